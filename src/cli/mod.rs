//! The command line: one file per subcommand.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

mod check;
mod controller;
mod crd;
mod demo;
mod explain;
mod first;
mod plan;
mod pods;
mod webhook;

/// Keeps the right number of Buildkite agents running on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kitepool", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try a pool's pods on the cluster: one pod, one job of its own making, removed again.
    ///
    /// The pod is the pool's own, but that it is no agent of Buildkite's: the job is run by the agent's own bootstrap, with the
    /// definition's hooks, and takes nobody's place. Ends with 0 only where the job passed.
    Check(Box<check::Arguments>),
    /// Watch pools and keep their Deployments at the right size.
    Controller(Box<controller::Arguments>),
    /// Print the `CustomResourceDefinitions`, to be applied before the controller starts.
    Crd,
    /// See pools follow a load for two minutes, on this machine and without a cluster.
    ///
    /// The controller is the real one, with its lease and its clients. Buildkite and Kubernetes are simulated.
    Demo(Box<demo::Arguments>),
    /// Tell why pools have their size, and what hinted jobs ask for that no pool has.
    ///
    /// Reads pools, hints and Events with your own rights, and changes nothing.
    Explain(explain::Arguments),
    /// Look at the pod library, and at what pools make of pod definitions.
    Pods(Box<pods::Arguments>),
}

/// Runs what was asked for.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Check(arguments) => return Box::pin(check::run(*arguments)).await,
        Command::Controller(arguments) => controller::run(*arguments).await?,
        Command::Crd => crd::run()?,
        Command::Explain(arguments) => explain::run(arguments).await?,
        Command::Demo(arguments) => return Box::pin(demo::run(*arguments)).await,
        Command::Pods(arguments) => return Box::pin(pods::run(*arguments)).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like `10s`, `5m` or `1h 30m`"))
}
