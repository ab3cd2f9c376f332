//! What a Lambda function is given: a batch of SQS records with an event in each, or an event itself.

use serde_json::Value;

use super::{Assumed, Unusable, fields, job_of_event, read_event};
use crate::HintedJob;

/// The longest id of a message: 100 characters, by SQS's own bound.
const MESSAGE_ID_MAX: usize = 100;

/// One thing to answer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the answer calls it, should it have to come again. `None` where the batch gives it no name: then only the whole
    /// batch can come again.
    pub message: Option<String>,
    /// Its job, or why it has none.
    pub job: Result<HintedJob, Unusable>,
}

/// A function's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Records of a queue; each is answered for by its name.
    Batch(Vec<Record>),
    /// An event that came without a queue; it succeeds or comes again as a whole.
    Event(Record),
}

impl Invocation {
    /// What there is to answer for.
    pub fn records(&self) -> &[Record] {
        match self {
            Self::Batch(records) => records,
            Self::Event(record) => std::slice::from_ref(record),
        }
    }
}

/// Reads a function's input; every record of it, since one that nobody answers for would be lost. What is neither a batch nor an event counts as a malformed event: it would not become better by
/// coming again.
pub fn read_invocation(body: &[u8], assumed: &Assumed) -> Invocation {
    let event = match fields::json(body, "event", "send a batch of SQS or an event of EventBridge") {
        Ok(event) => event,
        Err(unusable) => return Invocation::Event(Record { message: None, job: Err(unusable) }),
    };
    let Some(records) = event.get("Records").and_then(Value::as_array) else {
        return Invocation::Event(Record { message: None, job: job_of_event(&event, assumed) });
    };
    Invocation::Batch(records.iter().map(|record| of_queue(record, assumed)).collect())
}

fn of_queue(record: &Value, assumed: &Assumed) -> Record {
    let message = fields::extra(record, "messageId").filter(|id| id.len() <= MESSAGE_ID_MAX).map(str::to_owned);
    let remedy = "let EventBridge put whole events into the queue";
    let job = fields::text(record, "body", remedy).and_then(|body| read_event(body.as_bytes(), assumed));
    Record { message, job }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::eventbridge::tests::SAMPLE;

    fn read(input: &Value) -> Invocation {
        read_invocation(input.to_string().as_bytes(), &Assumed::default())
    }

    #[test]
    fn a_batch_has_a_record_for_each_message_good_or_not() {
        let batch = json!({ "Records": [
            { "messageId": "1", "receiptHandle": "secret", "body": SAMPLE, "attributes": {}, "eventSource": "aws:sqs" },
            { "messageId": "2", "body": "{" },
            { "messageId": "3" },
            { "body": SAMPLE },
            "no record",
        ] });
        let Invocation::Batch(records) = read(&batch) else { panic!() };
        let seen: Vec<(Option<&str>, bool)> =
            records.iter().map(|record| (record.message.as_deref(), record.job.is_ok())).collect();
        let expected = [(Some("1"), true), (Some("2"), false), (Some("3"), false), (None, true), (None, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_event_may_come_without_a_queue() {
        let event: Value = serde_json::from_str(SAMPLE).unwrap();
        let Invocation::Event(record) = read(&event) else { panic!() };
        assert!(record.job.is_ok());
        for broken in [json!({}), json!([]), json!(1), json!({ "Records": "none" })] {
            let Invocation::Event(record) = read(&broken) else { panic!() };
            assert_eq!(record.job.unwrap_err().category(), "malformed");
        }
        assert_eq!(read_invocation(b"\xff", &Assumed::default()).records().len(), 1);
        assert_eq!(read(&json!({ "Records": [] })).records().len(), 0);
    }
}
