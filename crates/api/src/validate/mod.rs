//! From a pool as it is written to a pool as the policy knows it, or to everything that stands against it.
//!
//! The definition's rules are checked here again: a definition may be older than this code, and a pool may come from a file.
//! A pool with problems is not decided about: what it has is kept, nothing grows and nothing shrinks.

mod check;
mod overrides;
mod scaling;
mod schedule;

use std::{collections::BTreeSet, time::Duration};

use kitepool_policy::{
    spec::{self, Pause, PoolName, PoolSpec},
    units::AgentsPerPod,
};
use serde_json::Value;

use self::check::Check;
use crate::{
    AgentPool, AgentPoolSpec, FilledTemplate, Mode, OtherAgents, PAUSE_ANNOTATION, Problem, Token,
    agent_pool::{AGENTS_PER_POD_MAX, FILE_MAX, NAME_MAX, QUEUE_MAX, TAG_MAX, TAGS_MAX},
    overrides::PodOverrides,
    pod_fields::unknown_fields,
    rules,
};

/// With a hyphen and ten digits behind it a name still is a label value.
const POOL_NAME_MAX: usize = 52;

/// A pool with nothing against it.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPool {
    /// As the policy knows it.
    pub spec: PoolSpec,
    /// The queue's key.
    pub queue: String,
    /// Where the token is.
    pub token: TokenSource,
    /// Where the pod definition is.
    pub template: TemplateSource,
    /// What the pool changes of it.
    pub overrides: PodOverrides,
    /// A Deployment to take over.
    pub adopt: Option<String>,
    /// The pods' grace period.
    pub longest_job: Duration,
    /// Whether foreign agents count.
    pub other_agents: OtherAgents,
}

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenSource {
    /// Under a key of a Secret.
    Secret {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// In a file.
    File(String),
}

/// Where a pod definition is.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateSource {
    /// In a `PodTemplate` of this name.
    Reference(String),
    /// In the pool itself.
    Inline(Value),
}

/// The meaning: the valid pool, or everything that stands against it, in the order of the spec.
pub fn validate(pool: &AgentPool) -> Result<ValidPool, Vec<Problem>> {
    let mut check = Check::default();
    let spec = &pool.spec;
    let name = name(&mut check, pool);
    let pause = pause(&mut check, pool);
    let queue = check.text("spec.queue", &spec.queue, QUEUE_MAX, &rules::QUEUE, is_queue);
    let tags = tags(&mut check, &spec.tags);
    let token = token(&mut check, &spec.token);
    let template = template(&mut check, spec);
    let overrides = overrides::validate(&mut check, spec.overrides.as_ref());
    let adopt = spec.adopt.as_ref().map(|name| object_name(&mut check, "spec.adopt", name));
    let agents_per_pod = check.count("spec.agentsPerPod", spec.agents_per_pod, 1, AGENTS_PER_POD_MAX);
    let longest_job = check.span("spec.longestJob", &spec.longest_job, &rules::LONGEST_JOB);
    let scaling = scaling::validate(&mut check, &spec.scaling);

    let valid = || {
        let scaling = scaling?;
        Some(ValidPool {
            spec: PoolSpec {
                name: name?,
                tags: tags?,
                agents_per_pod: agents_per_pod.and_then(AgentsPerPod::new)?,
                mode: match spec.mode {
                    Mode::Active => spec::Mode::Active,
                    Mode::Observe => spec::Mode::Observe,
                },
                pause: pause?,
                order: spec.order,
                limits: scaling.limits,
                spare: scaling.spare,
                waiting_weight: scaling.waiting_weight,
                scale_up: scaling.scale_up,
                scale_down: scaling.scale_down,
                hint_ttl: scaling.hint_ttl,
                stale_after: scaling.stale_after,
                schedules: scaling.schedules,
            },
            queue: queue?,
            token: token?,
            template: template?,
            overrides: overrides?,
            adopt: match adopt {
                None => None,
                Some(name) => Some(name?),
            },
            longest_job: longest_job?,
            other_agents: spec.other_agents,
        })
    };
    match valid() {
        Some(valid) if check.problems.is_empty() => Ok(valid),
        _ => Err(check.problems),
    }
}

/// In a file the namespace may be missing; it is then `default`, as for kubectl.
fn name(check: &mut Check, pool: &AgentPool) -> Option<PoolName> {
    let path = "metadata.name";
    let Some(name) = pool.metadata.name.as_deref().filter(|name| !name.is_empty()) else {
        check.refuse(path, "the pool has none", "give it one, such as that of its queue");
        return None;
    };
    let well_formed = object_name(check, path, name);
    let short = check.holds(name.chars().count() <= POOL_NAME_MAX, &rules::POOL_NAME, path);
    let namespace = pool.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    well_formed.filter(|_| short).map(|name| PoolName { namespace, name })
}

fn pause(check: &mut Check, pool: &AgentPool) -> Option<Pause> {
    let annotations = pool.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(PAUSE_ANNOTATION)).map(String::as_str) {
        None => Some(Pause::None),
        Some("all") => Some(Pause::All),
        Some("up") => Some(Pause::Up),
        Some("down") => Some(Pause::Down),
        // Somebody meant to stop something; until it is clear what, nothing is changed at all.
        Some(other) => {
            check.refuse(
                &format!("metadata.annotations[{PAUSE_ANNOTATION}]"),
                format!("{other:?} is no direction"),
                "write all, up or down, or remove the annotation",
            );
            None
        }
    }
}

fn tags(check: &mut Check, tags: &[String]) -> Option<BTreeSet<String>> {
    let mut all_valid = check.items("spec.tags", tags.len(), TAGS_MAX);
    let mut seen = BTreeSet::new();
    for (index, tag) in tags.iter().enumerate() {
        let path = format!("spec.tags[{index}]");
        all_valid &= check.text(&path, tag, TAG_MAX, &rules::TAG_FORM, is_tag).is_some();
        all_valid &= check.holds(!tag.starts_with("queue="), &rules::TAG_QUEUE, &path);
        all_valid &= check.holds(seen.insert(tag.clone()), &rules::TAGS_UNIQUE, &path);
    }
    all_valid.then_some(seen)
}

fn token(check: &mut Check, token: &Token) -> Option<TokenSource> {
    let secret = token.secret_ref.as_ref().map(|secret| {
        let name = object_name(check, "spec.token.secretRef.name", &secret.name);
        let key = check.text("spec.token.secretRef.key", &secret.key, NAME_MAX, &rules::SECRET_KEY, is_secret_key);
        Some(TokenSource::Secret { name: name?, key: key? })
    });
    let file = token.file.as_ref().map(|file| {
        let absolute = |path: &str| path.starts_with('/');
        check.text("spec.token.file", file, FILE_MAX, &rules::TOKEN_FILE, absolute).map(TokenSource::File)
    });
    check.holds(secret.is_some() != file.is_some(), &rules::TOKEN_CHOICE, "spec.token");
    secret.or(file).flatten()
}

fn template(check: &mut Check, spec: &AgentPoolSpec) -> Option<TemplateSource> {
    let reference = spec.pod_template_ref.as_ref().map(|reference| {
        object_name(check, "spec.podTemplateRef.name", &reference.name).map(TemplateSource::Reference)
    });
    let inline = spec.template.as_ref().map(|template| inline_template(check, template));
    check.holds(reference.is_some() != inline.is_some(), &rules::DEFINITION_CHOICE, "spec");
    reference.or(inline).flatten()
}

/// The definition lets anything through here. What no version of Kubernetes takes for a pod template is told now, and not
/// when the first pods are to be made; and so is a field that it does not have, which the API server would drop in silence.
fn inline_template(check: &mut Check, template: &FilledTemplate) -> Option<TemplateSource> {
    match template.typed() {
        Ok(_) => {
            let unknown = unknown_fields(&template.0, "spec.template");
            let is_known = unknown.is_empty();
            check.problems.extend(unknown);
            is_known.then(|| TemplateSource::Inline(template.0.clone()))
        }
        Err(error) => {
            let path = match error.path().to_string().as_str() {
                "." => "spec.template".to_owned(),
                inner => format!("spec.template.{inner}"),
            };
            check.refuse(&path, error.inner().to_string(), "write it as in the template of a Deployment");
            None
        }
    }
}

/// Rule `QUEUE`.
fn is_queue(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(legal)
}

/// Rule `TAG_FORM`.
fn is_tag(text: &str) -> bool {
    let space = |c: char| c.is_ascii_whitespace();
    text.split_once('=').is_some_and(|(key, value)| {
        let key = !key.is_empty() && !key.contains(|c| c == ',' || space(c));
        key && !value.contains([',', '\n']) && !value.starts_with(space) && !value.ends_with(space)
    })
}

/// Rule `OBJECT_NAME`. It goes into the paths of requests, so nothing else will do.
fn object_name(check: &mut Check, path: &str, name: &str) -> Option<String> {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inside = |c: char| end(c) || c == '-' || c == '.';
    let legal = |text: &str| text.chars().all(inside) && text.starts_with(end) && text.ends_with(end);
    check.text(path, name, NAME_MAX, &rules::OBJECT_NAME, legal)
}

/// Rule `SECRET_KEY`.
fn is_secret_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests;
