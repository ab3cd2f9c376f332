//! Makes the pods of a namespace look alive where no kubelet is: for a demo on the control plane of `tests/control-plane`.
//!
//! `cargo run --example simulated_kubelet -- --namespace buildkite`

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

mod kubelet;

use kubelet::{Habits, SimulatedKubelet};

#[derive(Debug, Parser)]
struct Arguments {
    /// Whose pods; may be given several times.
    #[arg(long = "namespace", required = true)]
    namespaces: Vec<String>,
    /// From binding to Ready.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    ready_after: Duration,
    /// From the deletion timestamp to the end.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    drain: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("the TLS provider is set up twice");
    }
    let client = kube::Client::try_default().await.context("no way to the API server; set KUBECONFIG")?;
    let habits = Habits { ready_after: arguments.ready_after, drain: arguments.drain, ..Habits::default() };
    let kubelets: Vec<SimulatedKubelet> = arguments
        .namespaces
        .iter()
        .map(|namespace| SimulatedKubelet::start(client.clone(), namespace, habits.clone()))
        .collect();
    tokio::signal::ctrl_c().await.context("signals cannot be received")?;
    drop(kubelets);
    Ok(())
}
