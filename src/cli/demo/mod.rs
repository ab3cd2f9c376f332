//! `kitepool demo`: the controller in a simulated world, and what it does there on the screen.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::show::Show;
use super::duration;
use crate::{
    shutdown,
    simulate::{
        demo,
        loopback::Doors,
        news::WAITING_MAX,
        speed::Speed,
        stage::{Outcome, Stage},
        story::Story,
        tally::Summary,
    },
    telemetry,
};

mod screen;
mod show;

/// Long enough to look, and short enough that all of it fits into memory.
const DURATION_MAX: Duration = Duration::from_hours(1);
const DURATION_MIN: Duration = Duration::from_secs(1);

/// How much shorter the story's jobs, windows and cooldowns are than usual ones: ten seconds for five minutes.
const COMPRESSED: f64 = 30.0;

/// What a shell reports for a program that an interrupt ended: the summary is not of the whole story.
const EXIT_INTERRUPTED: u8 = 130;

/// The flags of `kitepool demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ctrl-C ends it at once, with the summary so far and exit code 130.")]
pub(super) struct Arguments {
    /// Where all chance comes from: how long jobs run, pods take to start, events are on their way.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,

    /// When it ends; what the story tells later is left out. Left out: two minutes, divided by --speed.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,

    /// How many times as fast everything goes: the story, pods, agents' pings, polls, and the pace of the pools' scaling. What
    /// the controller allows for late numbers (11s) stays as long as it is.
    #[arg(long, default_value = "1", value_name = "FACTOR")]
    speed: Speed,

    /// What is written to standard output: what happens, or the summary alone as one JSON object.
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// A file of AgentPool manifests to try instead of the story's own. Their queues get seeded jobs; tokens and pod
    /// definitions are replaced by simulated ones.
    #[arg(long, value_name = "FILE")]
    pools: Option<PathBuf>,

    /// Where to write the controller's log.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Use no colours.
    #[arg(long, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    no_color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people: a table that moves on a terminal, lines elsewhere, and a summary.
    Text,
    /// The summary as one JSON object, and nothing else.
    Json,
}

/// Plays to the end, or to the first signal.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let story = story(&arguments)?;
    if let Some(path) = &arguments.log {
        let file = File::create(path).with_context(|| format!("--log {}: cannot be written to", path.display()))?;
        telemetry::install_to(file)?;
    }
    let stop = shutdown::on_signal().context("signals cannot be received")?;
    let doors = Doors::open().await.context("no port of 127.0.0.1 can be taken")?;
    let show = show(&arguments, intro(&arguments, &story, &doors));
    let (sender, news) = mpsc::channel(WAITING_MAX);
    // Standard output may be slow or stand still; the world does not.
    let showing = tokio::task::spawn_blocking({
        let closed = stop.clone();
        move || show.all(news).inspect_err(|_| closed.cancel())
    });
    let outcome = Stage::on_loopback(story, doors)?.watched_by(sender).until(stop.clone()).play().await;
    showing.await.context("showing ended abnormally")?.context("standard output is closed")?;
    conclude(&arguments, &outcome, &stop)
}

/// The story that the flags ask for.
fn story(arguments: &Arguments) -> anyhow::Result<Story> {
    let story = match &arguments.pools {
        None => demo::own_story(arguments.seed)?,
        Some(path) => pools_story(path, arguments.seed)?,
    };
    let story = story.at(arguments.speed);
    match arguments.duration {
        None => Ok(story),
        Some(lasts) if (DURATION_MIN..=DURATION_MAX).contains(&lasts) => Ok(story.lasting(lasts)),
        Some(lasts) => anyhow::bail!(
            "--duration {}: out of bounds; give something between 1s and 1h",
            humantime::format_duration(lasts)
        ),
    }
}

fn pools_story(path: &Path, seed: u64) -> anyhow::Result<Story> {
    let yaml = fs::read_to_string(path)
        .with_context(|| format!("--pools {}: cannot be read; give a file of AgentPool manifests", path.display()))?;
    let pools = demo::read(&yaml).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("--pools {}: this stands against it:\n  {}", path.display(), all.join("\n  "))
    })?;
    Ok(demo::story_of(&pools, seed))
}

/// What one should know before.
fn intro(arguments: &Arguments, story: &Story, doors: &Doors) -> Vec<String> {
    let speed = arguments.speed.get();
    let compressed = match &arguments.pools {
        None => format!(
            "Time is compressed: a minute here is like {} in a cluster, where jobs take minutes.",
            COMPRESSED * speed
        ),
        Some(_) if arguments.speed == Speed::PLAIN => {
            "Time is not compressed: a window of 5m takes 5 minutes. --speed 10 shows more.".to_owned()
        }
        Some(_) => format!("Time is compressed: a minute here is like {speed} in a cluster."),
    };
    vec![
        format!(
            "Real: the controller. Simulated: Buildkite ({}), Kubernetes ({}). Seed {}. Ctrl-C ends it.",
            doors.buildkite(),
            doors.kubernetes(),
            story.seed
        ),
        compressed,
        story.about.clone(),
    ]
}

fn show(arguments: &Arguments, intro: Vec<String>) -> Show {
    match arguments.output {
        Output::Json => Show::Nothing,
        Output::Text if io::stdout().is_terminal() => Show::Screen(screen::Screen::new(intro, !arguments.no_color)),
        Output::Text => Show::Lines(intro),
    }
}

/// The summary, and what the exit code says of it.
fn conclude(arguments: &Arguments, outcome: &Outcome, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let text = match arguments.output {
        Output::Json => serde_json::to_string(&outcome.summary)? + "\n",
        Output::Text => told(&outcome.summary),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output is closed")?;
    if !outcome.wrong.is_empty() {
        anyhow::bail!("this should not have happened, please report it:\n  {}", outcome.wrong.join("\n  "));
    }
    Ok(if stop.is_cancelled() { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// The summary for people.
fn told(summary: &Summary) -> String {
    let Summary {
        jobs,
        jobs_passed,
        jobs_killed,
        wait_seconds,
        agent_hours,
        pods_started,
        buildkite_calls,
        kubernetes_writes,
    } = summary;
    let waits = format!("p50 {:.1} s, p95 {:.1} s, max {:.1} s", wait_seconds.p50, wait_seconds.p95, wait_seconds.max);
    let hours = format!(
        "busy {:.3}, idle {:.3}, starting {:.3}, draining {:.3}",
        agent_hours.busy, agent_hours.idle, agent_hours.starting, agent_hours.draining
    );
    format!(
        "\njobs         {jobs} submitted, {jobs_passed} passed, {jobs_killed} killed\n\
         waits        {waits}\n\
         agent-hours  {hours}\n\
         pods         {pods_started} started\n\
         calls        {buildkite_calls} to Buildkite, {kubernetes_writes} writes to Kubernetes\n"
    )
}
