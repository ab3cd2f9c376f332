//! `kitepool crd`: the definitions that this version works with.

use std::io::Write as _;

use anyhow::Context as _;

/// Prints them as YAML documents.
pub(super) fn run() -> anyhow::Result<()> {
    let yaml = kitepool_api::crds_yaml();
    std::io::stdout().lock().write_all(yaml.as_bytes()).context("standard output is closed")
}
