//! One invocation, from its bytes to its answer and its line of log.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use jiff::SignedDuration;
use kitepool_api::events::{Assumed, Invocation, read_invocation};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    clock::Clock,
    deliver::{Delivery, Fate, Hints, Reason, Terms, deliver},
};

/// Of an invocation's time, kept for its answer.
const ANSWER_TIME: Duration = Duration::from_millis(300);

/// The function.
#[derive(Debug)]
pub struct Function<H> {
    hints: H,
    assumed: Assumed,
    max_age: SignedDuration,
    clock: Clock,
}

/// What an invocation comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The answer, or why the invocation counts as failed and comes again as a whole.
    pub answer: Result<Value, String>,
    /// What is worth a line.
    pub log: Log,
}

/// A line of log. It holds counts, names of ours and sentences of ours; no token ever gets near it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    level: &'static str,
    message: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: String,
    records: usize,
    created: usize,
    redelivered: usize,
    dropped: BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    calls: usize,
    milliseconds: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_milliseconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
}

impl<H: Hints> Function<H> {
    /// A function that stores hints here.
    pub fn new(hints: H, assumed: Assumed, max_age: SignedDuration, clock: Clock) -> Self {
        Self { hints, assumed, max_age, clock }
    }

    /// Where it stores hints.
    pub fn hints(&self) -> &H {
        &self.hints
    }

    /// Runs one invocation, which has this long.
    pub async fn run(&self, request_id: &str, body: &[u8], time: Duration) -> Done {
        let began = self.clock.now();
        let invocation = read_invocation(body, &self.assumed);
        #[expect(
            clippy::disallowed_methods,
            reason = "time left of an invocation that runs: the runtime's own, which tests move"
        )]
        let deadline = Instant::now() + time.saturating_sub(ANSWER_TIME);
        let terms = Terms { now: began, max_age: self.max_age, deadline };
        let delivery = deliver(&invocation, &self.hints, &terms).await;
        let log = self.log(request_id, began, &invocation, &delivery);
        Done { answer: answer(&invocation, &delivery), log }
    }

    fn log(&self, request_id: &str, began: jiff::Timestamp, invocation: &Invocation, delivery: &Delivery) -> Log {
        let count = |fate: Fate| delivery.fates.iter().filter(|known| **known == fate).count();
        let dropped: BTreeMap<&str, usize> =
            REASONS.into_iter().map(|(reason, name)| (name, count(Fate::Dropped(reason)))).collect();
        let redelivered = count(Fate::Redelivered);
        let is_odd =
            redelivered > 0 || count(Fate::Dropped(Reason::Malformed)) + count(Fate::Dropped(Reason::Quota)) > 0;
        let stored = invocation.records().iter().zip(&delivery.fates).filter(|(_, fate)| **fate == Fate::Created);
        let now = self.clock.now();
        let lags = stored.filter_map(|(record, _)| record.job.as_ref().ok());
        let lags = lags.map(|job| milliseconds(now.duration_since(job.runnable_at)));
        Log {
            level: if is_odd { "WARN" } else { "INFO" },
            message: "events",
            request_id: request_id.to_owned(),
            records: delivery.fates.len(),
            created: count(Fate::Created),
            redelivered,
            dropped,
            hints: delivery.hints.clone(),
            calls: delivery.calls,
            milliseconds: milliseconds(now.duration_since(began)),
            lag_milliseconds: lags.max(),
            trouble: delivery.trouble.as_ref().map(crate::trouble::Trouble::category),
            detail: delivery.trouble.as_ref().map(ToString::to_string),
            malformed: delivery.malformed.clone(),
        }
    }
}

/// Every reason, with its name in the log; all of them in each line, so that a metric filter finds a zero too.
const REASONS: [(Reason, &str); 5] = [
    (Reason::TooOld, "too_old"),
    (Reason::NotScript, "not_script"),
    (Reason::Malformed, "malformed"),
    (Reason::Quota, "quota"),
    (Reason::OtherEvent, "other_event"),
];

fn milliseconds(time: SignedDuration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A batch names what has to come again. An event by itself, and a batch with a record that has no name, come again
/// whole.
fn answer(invocation: &Invocation, delivery: &Delivery) -> Result<Value, String> {
    let again = || delivery.fates.iter().zip(invocation.records()).filter(|(fate, _)| **fate == Fate::Redelivered);
    let why = || {
        let trouble = delivery.trouble.as_ref().map_or_else(|| "not stored".to_owned(), ToString::to_string);
        format!("{} of {} records have to come again: {trouble}", again().count(), delivery.fates.len())
    };
    match invocation {
        Invocation::Event(_) if again().count() > 0 => Err(why()),
        Invocation::Event(_) => Ok(Value::Null),
        Invocation::Batch(_) if again().any(|(_, record)| record.message.is_none()) => Err(why()),
        Invocation::Batch(_) => {
            let named = again().filter_map(|(_, record)| record.message.as_ref());
            let failures: Vec<Value> = named.map(|message| json!({ "itemIdentifier": message })).collect();
            Ok(json!({ "batchItemFailures": failures }))
        }
    }
}

/// Writes a line of JSON where Lambda, and everybody else, collects it. A log that cannot be written is nobody's reason
/// to lose an event.
pub fn write_log(line: &impl Serialize) {
    let Ok(mut text) = serde_json::to_vec(line) else { return };
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    drop(out.write_all(&text).and_then(|()| out.flush()));
}
