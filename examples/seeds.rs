//! Tells stories drawn by chance and prints a hash of each: `cargo run --release --example seeds -- [--storms] [--seeds 50]
//! [--seed N] [--threads 2] [--whole]`.
//!
//! Two runs that print different lines are a defect, whatever the number of threads. A story in which an invariant breaks is
//! told with the command that repeats it, and the program ends with 1.

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::{collections::BTreeMap, process::ExitCode, sync::mpsc, thread, time::Instant};

use clap::Parser;
use jiff::Timestamp;
use kitepool::simulate::{
    random,
    stage::{Outcome, Stage, never_killed},
    storm,
};
use sha2::{Digest as _, Sha256};

#[derive(Debug, Parser)]
struct Arguments {
    /// How many, from 0 on.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// Storms of events instead, of an hour and a half each.
    #[arg(long)]
    storms: bool,
    /// This one alone.
    #[arg(long)]
    seed: Option<u64>,
    /// How many at once.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Print what happened as well.
    #[arg(long)]
    whole: bool,
}

fn told(seed: u64, is_storm: bool) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let story = if is_storm { storm::story } else { random::story };
    Ok(runtime.block_on(async { Stage::new(story(seed, Timestamp::UNIX_EPOCH), never_killed()).play().await }))
}

#[expect(clippy::disallowed_methods, reason = "how long it takes for real is told at the end")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let seeds: Vec<u64> = arguments.seed.map_or_else(|| (0..arguments.seeds).collect(), |seed| vec![seed]);
    let (tell, told_by) = mpsc::channel();
    for thread in 0..arguments.threads.max(1) {
        let (tell, seeds, threads) = (tell.clone(), seeds.clone(), arguments.threads.max(1));
        let is_storm = arguments.storms;
        thread::spawn(move || {
            for seed in seeds.into_iter().filter(|seed| seed % threads == thread || threads == 1) {
                // Nobody listens any more: then nobody wants it.
                let _ = tell.send((seed, told(seed, is_storm)));
            }
        });
    }
    drop(tell);
    let outcomes: BTreeMap<u64, _> = told_by.into_iter().collect();
    let mut is_well = outcomes.len() == seeds.len();
    for (seed, outcome) in &outcomes {
        let Ok(outcome) = outcome else {
            is_well = false;
            continue;
        };
        if arguments.whole {
            println!("{}", outcome.transcript.join("\n"));
        }
        let digest = Sha256::digest(format!("{:?} {:?}", outcome.transcript, outcome.summary));
        let short = digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        println!("{seed:>6} {short} {} jobs, {} lines", outcome.summary.jobs, outcome.transcript.len());
        for sentence in &outcome.wrong {
            is_well = false;
            let kind = if arguments.storms { "--storms " } else { "" };
            println!(
                "{seed:>6} WRONG {sentence}\n       cargo run --release --example seeds -- {kind}--whole --seed {seed}"
            );
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    eprintln!(
        "{} stories in {:.1} s, {:.0} a minute",
        outcomes.len(),
        minutes * 60.0,
        f64::from(u32::try_from(seeds.len()).unwrap_or(u32::MAX)) / minutes
    );
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
