//! `kitepool explain`: why a pool has its size.

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{
    clock::Clock,
    cluster::{client, look},
    explain::{Account, read_record, text::Text},
};

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The flags of `kitepool explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pool. Left out: all of the namespace.
    #[arg(value_name = "POOL")]
    pool: Option<String>,

    /// The namespace. Left out: the one of the kubeconfig's context, or the one that this runs in.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Only what hinted jobs ask for and no pool of their queue has.
    #[arg(long)]
    rules: bool,

    /// The file of `kitepool controller --record`: tells the last decision step by step.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// How it is written.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// Reads and tells. Nothing is written anywhere.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = client::config().await?;
    let namespace = arguments.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let look = look::look(&config, &namespace).await;
    let look = look.with_context(|| format!("the pools in namespace {namespace} cannot be read"))?;
    let mut account = Account::of(&namespace, look);
    if let Some(pool) = &arguments.pool {
        account = match account.only(pool) {
            Ok(account) => account,
            Err(names) if names.is_empty() => bail!("there is no pool in namespace {namespace}"),
            Err(names) => bail!("there is no pool {pool} in namespace {namespace}; there are: {}", names.join(", ")),
        };
    }
    if let Some(path) = &arguments.record {
        let recorded = read_record(path, &namespace);
        account.add_record(recorded.with_context(|| format!("the record {} cannot be read", path.display()))?);
    }
    let told = match arguments.output {
        Output::Text => {
            Text { account: &account, with_pools: !arguments.rules, now: Clock::machine().now() }.to_string()
        }
        Output::Json if arguments.rules => serde_json::to_string_pretty(&account.unmatched)? + "\n",
        Output::Json => serde_json::to_string_pretty(&account)? + "\n",
    };
    std::io::stdout().lock().write_all(told.as_bytes()).context("standard output is closed")
}
