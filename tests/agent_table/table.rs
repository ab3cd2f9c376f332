//! The table as Markdown, and the recorded one that it is compared with.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use crate::{
    case::{Case, Played},
    life::Moment,
    times::{ROWS, median},
};

const HEAD: &str = "# What the real buildkite-agent does, and the simulated agents with it

Written by `tests/agent/table`, which runs each case with the real agent (the version of [go.mod](go.mod)) against the simulated
Buildkite, and with the simulated agents of `crates/world` in virtual time. What is in a row is true of both, or the test fails. Times
are those of the run that wrote this page; they are compared with each other, and not with it. Exits of a row may be 3 s apart.

What Buildkite itself does with jobs and lost agents is simulated in both: it wants a ping a second and a heartbeat every two, gives an
assigned job away again after 5 s, and misses an agent after 6 s; after 100 s each where calls fail for a while. Without a word on
jobs there is none. The calls are made slow, or fail, to keep an agent in a state: for `assigned` its pings fail. The agent
polls (`--ping-mode poll-only`); in `auto` its first ping comes up to a second later, when the stream has been refused.

";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/agent/table.md")
}

/// A row without its times.
pub(crate) fn row(case: &Case, played: &Played) -> String {
    let outcome = &played.outcome;
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        case.at, case.then, outcome.process, outcome.agent, outcome.jobs, outcome.told
    )
}

pub(crate) fn outcomes(rows: &[(String, Option<Duration>, Option<Duration>)]) -> String {
    let mut text = "## Outcomes\n\n\
         | state | what befalls it | process | Buildkite's view | jobs | `/status.json` | exit after, real | simulated |\n\
         |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (row, real, simulated) in rows {
        writeln!(text, "{row} {} | {} |", rounded(*real), rounded(*simulated)).unwrap();
    }
    text
}

pub(crate) fn moments(life: &[Moment]) -> String {
    let mut text = "## A life\n\n| moment | `/status.json` |\n|---|---|\n".to_owned();
    for (moment, told) in life {
        writeln!(text, "{}", moment_row(moment, told)).unwrap();
    }
    text
}

pub(crate) fn moment_row(moment: &str, told: &str) -> String {
    format!("| {moment} | {told} |")
}

pub(crate) fn times(real: &[Vec<Duration>], simulated: &[Vec<Duration>]) -> String {
    let mut text = "## Times\n\nMedian (largest) in seconds. The medians may be apart by the bound.\n\n\
         | from → to | n | real | simulated | bound | why so much |\n\
         |---|---|---|---|---|---|\n"
        .to_owned();
    for ((what, bound, why), (real, simulated)) in ROWS.iter().zip(real.iter().zip(simulated)) {
        let (n, bound) = (real.len(), bound.as_secs_f64());
        writeln!(text, "| {what} | {n} | {} | {} | {bound} | {why} |", spread(real), spread(simulated)).unwrap();
    }
    text
}

fn spread(sorted: &[Duration]) -> String {
    format!("{:.3} ({:.2})", median(sorted).as_secs_f64(), sorted.last().unwrap().as_secs_f64())
}

fn rounded(took: Option<Duration>) -> String {
    took.map_or_else(String::new, |took| format!("{:.1} s", took.as_secs_f64()))
}

/// The whole page.
pub(crate) fn page(parts: &[String]) -> String {
    format!("{HEAD}{}", parts.join("\n"))
}

/// The rows that must stand in the recorded page and do not.
pub(crate) fn missing<'a>(rows: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let recorded = fs::read_to_string(path()).unwrap_or_default();
    rows.into_iter().filter(|row| !recorded.lines().any(|line| line.starts_with(row.as_str()))).collect()
}

/// How many rows the recorded page has of outcomes and moments.
pub(crate) fn recorded_rows() -> usize {
    let recorded = fs::read_to_string(path()).unwrap_or_default();
    let told = recorded.split("## Times").next().unwrap_or_default();
    told.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| state |") && !line.starts_with("| moment |"))
        .count()
}

pub(crate) fn write(page: &str) {
    fs::write(path(), page).unwrap();
}
