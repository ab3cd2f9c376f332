//! `kitepool pods migrate`: the pools that an export of builds asks for.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::{print, read};
use crate::pods::migrate::{Common, pools, shapes};

/// The flags of `kitepool pods migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Builds with their jobs as Buildkite's REST API lists them, one page after the other; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    builds: PathBuf,

    /// The pod definition of pools whose jobs name none (`pod-template=`).
    #[arg(long, default_value = "basic", value_name = "NAME")]
    definition: String,

    /// The Secret that holds the agent token.
    #[arg(long, default_value = "buildkite-agent-token", value_name = "NAME")]
    token_secret: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = read(&arguments.builds)?;
    let place = arguments.builds.display();
    let shapes = shapes(&text).with_context(|| format!("{place} is no JSON"))?;
    anyhow::ensure!(
        !shapes.is_empty(),
        "{place} holds no command job with its agent_query_rules; export builds with their jobs (without exclude_jobs)"
    );
    let common = Common { definition: arguments.definition.clone(), secret: arguments.token_secret.clone() };
    print(&pools(&shapes, &common))?;
    Ok(ExitCode::SUCCESS)
}
