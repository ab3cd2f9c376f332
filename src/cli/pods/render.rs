//! `kitepool pods render`: the Deployment of a pool, by the controller's own code.

use anyhow::Context as _;

use super::{Place, print};
use crate::{
    cli::plan::{self, Given},
    cluster::{client, library::Library},
    control::pool::owner,
};

/// The flags of `kitepool pods render`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pool.
    pool: String,

    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    place: Place,

    /// As YAML or as JSON.
    #[arg(long, short, value_enum, default_value = "yaml", value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Yaml,
    Json,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let library = Library::new(client::config().await?, arguments.place.namespace)?;
    let found = plan::of_pool(&library, &arguments.pool, arguments.given).await?;
    let stands = found.generations.get(&found.planned.name).map(|generation| generation.replicas);
    let replicas = stands.unwrap_or_else(|| found.valid.spec.limits.min().0);
    let manifest = found.planned.manifest(&owner(&found.view), &found.valid.queue, replicas);
    let text = match arguments.output {
        Format::Json => format!("{manifest:#}\n"),
        Format::Yaml => serde_saphyr::to_string(&manifest).context("it cannot be written as YAML")?,
    };
    print(&text)
}
