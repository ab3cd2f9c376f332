//! `kitepool pods render`: the Deployment of a pool, by the controller's own code.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kitepool_api::{Problem, TemplateSource};

use super::{Place, print};
use crate::{
    cluster::{client, library::Library},
    control::pool::{make_plan, owner},
    pods::{first::FirstImage, generation::INPUTS_ANNOTATION, render::Overrides},
};

/// The flags of `kitepool pods render`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pool.
    pool: String,

    /// Buildkite's agent API, where the controller is given one: its agents get it as well, so it is part of what they are.
    #[arg(long, env = "KITEPOOL_BUILDKITE_ENDPOINT", value_name = "URL")]
    buildkite_endpoint: Option<String>,

    /// Kitepool's own image, where the controller is given one: a new generation gets its first process from there.
    #[arg(long, env = "KITEPOOL_FIRST_IMAGE", value_name = "IMAGE")]
    first_image: Option<String>,

    /// A Secret to pull that image with, as for the controller; may be given several times.
    #[arg(
        long = "first-pull-secret",
        env = "KITEPOOL_FIRST_PULL_SECRETS",
        value_delimiter = ',',
        value_name = "SECRET",
        requires = "first_image"
    )]
    first_pull_secrets: Vec<String>,

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
    let name = &arguments.pool;
    let found = library.pool(name).await.context("the pool cannot be read")?;
    let view = found.with_context(|| format!("there is no AgentPool {name} in namespace {}", library.namespace()))?;
    let valid = view.pool.as_ref().map_err(|problems| refused(name, problems))?;
    let definition = match &valid.template {
        TemplateSource::Inline(_) => None,
        TemplateSource::Reference(name) => library.definition(name).await.context("its definition cannot be read")?,
    };
    let generations = library.generations(&view).await.context("its generations cannot be read")?;
    let inputs = |(name, generation): (&String, &crate::cluster::view::DeploymentView)| {
        Some((generation.annotations.get(INPUTS_ANNOTATION)?.clone(), name.clone()))
    };
    let existing: BTreeMap<String, String> = generations.iter().filter_map(inputs).collect();
    let endpoint = arguments.buildkite_endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
    let image = arguments.first_image.filter(|image| !image.is_empty());
    let first = image.map(|image| FirstImage { image, pull_secrets: arguments.first_pull_secrets });
    let overrides = Overrides::of(valid, endpoint, first.as_ref());
    let planned = make_plan(&view, valid, definition.as_ref(), &overrides, &existing);
    let planned = planned.map_err(|problems| refused(name, &problems))?;
    let stands = generations.get(&planned.name).map(|generation| generation.replicas);
    let replicas = stands.unwrap_or_else(|| valid.spec.limits.min().0);
    let manifest = planned.manifest(&owner(&view), &valid.queue, replicas);
    let text = match arguments.output {
        Format::Json => format!("{manifest:#}\n"),
        Format::Yaml => serde_saphyr::to_string(&manifest).context("it cannot be written as YAML")?,
    };
    print(&text)
}

fn refused(pool: &str, problems: &[Problem]) -> anyhow::Error {
    let all: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    anyhow::anyhow!("pool {pool} has no pods, since it is refused:{}", all.concat())
}
