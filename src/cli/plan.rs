//! What the controller would make of a pool, for commands that show it or try it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use kitepool_api::{
    Problem,
    validate::{TemplateSource, ValidPool},
};

use super::first;
use crate::{
    cluster::{
        library::Library,
        view::{DeploymentView, PoolView},
    },
    control::pool::make_plan,
    pods::{
        generation::{INPUTS_ANNOTATION, Planned},
        render::Overrides,
    },
};

/// What the controller was given for all pools, and is part of their pods.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// Buildkite's agent API, where the controller is given one: its agents get it as well, so it is part of what they are.
    #[arg(long, env = "KITEPOOL_BUILDKITE_ENDPOINT", value_name = "URL")]
    buildkite_endpoint: Option<String>,

    #[command(flatten)]
    first: first::FirstProcess,
}

/// A pool and what comes of it.
pub(super) struct Found {
    pub(super) view: PoolView,
    pub(super) valid: Arc<ValidPool>,
    pub(super) planned: Planned,
    /// Those that stand, by name.
    pub(super) generations: BTreeMap<String, DeploymentView>,
}

/// By the controller's own code.
pub(super) async fn of_pool(library: &Library, name: &str, given: Given) -> anyhow::Result<Found> {
    let found = library.pool(name).await.context("the pool cannot be read")?;
    let view = found.with_context(|| format!("there is no AgentPool {name} in namespace {}", library.namespace()))?;
    let valid = Arc::clone(view.pool.as_ref().map_err(|problems| refused(name, problems))?);
    let definition = match &valid.template {
        TemplateSource::Inline(_) => None,
        TemplateSource::Reference(name) => library.definition(name).await.context("its definition cannot be read")?,
    };
    let generations = library.generations(&view).await.context("its generations cannot be read")?;
    let inputs = |(name, generation): (&String, &DeploymentView)| {
        Some((generation.annotations.get(INPUTS_ANNOTATION)?.clone(), name.clone()))
    };
    let existing: BTreeMap<String, String> = generations.iter().filter_map(inputs).collect();
    let endpoint = given.buildkite_endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
    let first = given.first.image().map_err(anyhow::Error::msg)?;
    let overrides = Overrides::of(&valid, endpoint, first.as_ref());
    let planned = make_plan(&view, &valid, definition.as_ref(), &overrides, &existing);
    let planned = planned.map_err(|problems| refused(name, &problems))?;
    Ok(Found { view, valid, planned, generations })
}

/// Everything that stands against a pool, as an error.
pub(super) fn refused(pool: &str, problems: &[Problem]) -> anyhow::Error {
    let all: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    anyhow::anyhow!("pool {pool} has no pods, since it is refused:{}", all.concat())
}
