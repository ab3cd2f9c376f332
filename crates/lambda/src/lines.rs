//! Without Lambda: an event or a batch in each line of standard input, a line of log for each.
//!
//! For clouds that have no EventBridge, for trying a setup by hand, and for tests.

use std::{
    io::{BufRead, Read as _},
    time::Duration,
};

use crate::{
    deliver::Hints,
    function::{Function, write_log},
};

/// The longest line: what Lambda takes as an input.
pub const LINE_MAX: usize = 6 * 1024 * 1024;

/// For each line, as the template grants the function.
const LINE_TIME: Duration = Duration::from_secs(10);

/// Reads to the end. Answers how many lines have to come again: the caller's business, as it is that of SQS otherwise.
pub async fn serve<H: Hints>(function: &Function<H>, mut input: impl BufRead) -> std::io::Result<usize> {
    let mut again = 0;
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(again);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let done = function.run("", &line, LINE_TIME).await;
        write_log(&done.log);
        let is_whole = done.answer.is_ok_and(|answer| {
            let failures = answer.get("batchItemFailures").and_then(serde_json::Value::as_array);
            failures.is_none_or(Vec::is_empty)
        });
        again += usize::from(!is_whole);
    }
}
