//! The command line: one file per subcommand.

use clap::{Parser, Subcommand};

mod controller;
mod crd;

/// Keeps the right number of Buildkite agents running on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kitepool", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch pools and keep their Deployments at the right size.
    Controller(Box<controller::Arguments>),
    /// Print the `CustomResourceDefinitions`, to be applied before the controller starts.
    Crd,
}

/// Runs what was asked for.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Controller(arguments) => controller::run(*arguments).await,
        Command::Crd => crd::run(),
    }
}
