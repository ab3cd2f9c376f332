//! Logs: a constant message with fields, as text or JSON, on standard error.

use std::{fs::File, sync::Mutex};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// What is logged unless said otherwise. The Kubernetes client says again, for each attempt, what the controller says once.
pub const DEFAULT_FILTER: &str = "info,kube_client=off,kube_runtime=off";

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber for the whole program, with a file to write to: where the terminal shows something else.
pub fn install_to(file: File) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(DEFAULT_FILTER).with_writer(Mutex::new(file));
    builder.with_ansi(false).try_init().map_err(|error| anyhow::anyhow!("logging is set up twice: {error}"))
}

/// Installs the subscriber for the whole program.
pub fn install(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is no filter; write for example `info` or `info,kitepool=debug`"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging is set up twice: {error}"))
}
