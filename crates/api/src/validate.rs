//! From a pool as it is written to a pool as the policy knows it, or to everything that stands against it.
//!
//! The definition's rules are checked here again: a definition may be older than this code, and a pool may come from a file.

use std::{collections::BTreeSet, time::Duration};

use kitepool_policy::{
    spec::{self, Fraction, Limits, Pause, Percent, PoolName, PoolSpec, Spare},
    units::{Agents, AgentsPerPod, Pods},
};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    AgentPool, AgentPoolSpec, Mode, OtherAgents, PAUSE_ANNOTATION, Problem, Span, StepSpec,
    agent_pool::{AGENTS_PER_POD_MAX, PODS_MAX},
    schedule,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const WEEK: Duration = Duration::from_hours(7 * 24);

/// With a hyphen and ten digits behind it a name still is a label value.
const NAME_BYTES_MAX: usize = 52;
const TAGS_MAX: usize = 32;
const SCHEDULES_MAX: usize = 16;

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

/// The shape: an object that may be anything becomes a pool, or a problem with its path.
pub fn parse(object: DynamicObject) -> Result<AgentPool, Vec<Problem>> {
    let spec = object.data.get("spec").cloned().unwrap_or(Value::Null);
    let spec = read_spec(&spec)?;
    let mut pool = AgentPool::new(object.metadata.name.as_deref().unwrap_or_default(), spec);
    pool.metadata = object.metadata;
    Ok(pool)
}

/// The shape of a pool in a file: as [`parse`], and a field that nobody knows is a problem as well.
pub fn parse_strict(object: DynamicObject) -> Result<AgentPool, Vec<Problem>> {
    let written = object.data.get("spec").cloned().unwrap_or(Value::Null);
    let pool = parse(object)?;
    let understood = serde_json::to_value(&pool.spec).unwrap_or_default();
    let mut problems = Vec::new();
    unknown(&written, &understood, "spec", &mut problems);
    if problems.is_empty() { Ok(pool) } else { Err(problems) }
}

fn read_spec(spec: &Value) -> Result<AgentPoolSpec, Vec<Problem>> {
    serde_path_to_error::deserialize(spec).map_err(|error| {
        let path = match error.path().to_string() {
            inner if inner == "." => "spec".to_owned(),
            inner => format!("spec.{inner}"),
        };
        let remedy = "write it as `kubectl explain agentpool.spec --recursive` says";
        vec![Problem::new(path, error.inner().to_string(), remedy)]
    })
}

/// Fields that were written and not understood.
fn unknown(written: &Value, understood: &Value, path: &str, problems: &mut Vec<Problem>) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (name, value) in written {
                let here = format!("{path}.{name}");
                match understood.get(name) {
                    Some(known) => unknown(value, known, &here, problems),
                    None if value.is_null() => {}
                    None => problems.push(Problem::new(here, "there is no such field", "mend its name, or take it out")),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            for (index, (value, known)) in written.iter().zip(understood).enumerate() {
                unknown(value, known, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

/// The meaning: everything that stands against the pool at once.
pub fn validate(pool: &AgentPool) -> Result<ValidPool, Vec<Problem>> {
    let mut check = Check { problems: Vec::new() };
    let name = PoolName {
        namespace: pool.metadata.namespace.clone().unwrap_or_default(),
        name: pool.metadata.name.clone().unwrap_or_default(),
    };
    if name.name.len() > NAME_BYTES_MAX {
        check.refuse(
            "metadata.name",
            format!("it is longer than {NAME_BYTES_MAX} characters, which leaves no room for the name of a Deployment"),
            "choose a shorter one",
        );
    }
    let annotations = pool.metadata.annotations.as_ref();
    let pause = check.pause(annotations.and_then(|all| all.get(PAUSE_ANNOTATION)).map(String::as_str));
    let spec = &pool.spec;
    check.queue(&spec.queue);
    let tags = check.tags(&spec.tags);
    let token = check.token(&spec.token);
    let template = check.template(spec);
    let longest_job = check.span("spec.longestJob", &spec.longest_job, SECOND, WEEK);
    let agents_per_pod = check.agents_per_pod(spec.agents_per_pod);
    let scaling = check.scaling(&spec.scaling);
    if !check.problems.is_empty() {
        return Err(check.problems);
    }
    let valid = (|| {
        let scaling = scaling?;
        Some(ValidPool {
            spec: PoolSpec {
                name,
                tags: tags?,
                agents_per_pod: agents_per_pod?,
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
            queue: spec.queue.clone(),
            token: token?,
            template: template?,
            adopt: spec.adopt.clone(),
            longest_job: longest_job?,
            other_agents: spec.other_agents,
        })
    })();
    valid.ok_or_else(|| vec![Problem::new("spec", "it cannot be used", "report this as a defect of Kitepool")])
}

struct ValidScaling {
    limits: Limits,
    spare: Spare,
    waiting_weight: Fraction,
    scale_up: spec::ScaleUp,
    scale_down: spec::ScaleDown,
    hint_ttl: Duration,
    stale_after: Duration,
    schedules: Vec<spec::Schedule>,
}

/// Collects problems; each check answers the valid value where there is one.
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn refuse(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(path, what, remedy));
    }

    fn pause(&mut self, annotation: Option<&str>) -> Option<Pause> {
        match annotation {
            None => Some(Pause::None),
            Some("all") => Some(Pause::All),
            Some("up") => Some(Pause::Up),
            Some("down") => Some(Pause::Down),
            // Somebody meant to stop something; until it is clear what, nothing is changed at all.
            Some(other) => {
                self.refuse(
                    &format!("metadata.annotations[{PAUSE_ANNOTATION}]"),
                    format!("{other:?} is no direction"),
                    "write all, up or down, or remove the annotation",
                );
                None
            }
        }
    }

    fn queue(&mut self, queue: &str) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-');
        let begins = queue.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !begins || queue.len() > 255 || !queue.chars().all(legal) {
            self.refuse(
                "spec.queue",
                format!("{queue:?} is no queue key"),
                "use letters, digits and . _ : / - and begin with a letter or digit",
            );
        }
    }

    fn tags(&mut self, tags: &[String]) -> Option<BTreeSet<String>> {
        let count = self.problems.len();
        let mut seen = BTreeSet::new();
        for (index, tag) in tags.iter().enumerate() {
            let path = format!("spec.tags[{index}]");
            let has_key = tag.split_once('=').is_some_and(|(key, _)| !key.is_empty());
            if !has_key || tag.contains(',') || tag.len() > 255 {
                self.refuse(&path, format!("{tag:?} is no tag"), "write it key=value, without a comma");
            } else if tag.starts_with("queue=") {
                self.refuse(&path, "a tag must not hold queue=", "the queue stands in spec.queue");
            } else if !seen.insert(tag.clone()) {
                self.refuse(&path, format!("{tag:?} stands twice"), "write each once");
            }
        }
        if tags.len() > TAGS_MAX {
            self.refuse("spec.tags", format!("there are {}", tags.len()), format!("keep to {TAGS_MAX}"));
        }
        (self.problems.len() == count).then_some(seen)
    }

    fn token(&mut self, token: &crate::Token) -> Option<TokenSource> {
        match (&token.secret_ref, &token.file) {
            (Some(secret), None) => Some(TokenSource::Secret { name: secret.name.clone(), key: secret.key.clone() }),
            (None, Some(file)) if file.starts_with('/') => Some(TokenSource::File(file.clone())),
            (None, Some(_)) => {
                self.refuse("spec.token.file", "it is no absolute path", "begin it with /");
                None
            }
            (Some(_), Some(_)) | (None, None) => {
                self.refuse(
                    "spec.token",
                    "exactly one of secretRef and file must say where the agent token is",
                    "set one of them",
                );
                None
            }
        }
    }

    fn template(&mut self, spec: &AgentPoolSpec) -> Option<TemplateSource> {
        match (&spec.pod_template_ref, &spec.template) {
            (Some(reference), None) => Some(TemplateSource::Reference(reference.name.clone())),
            (None, Some(template)) => Some(TemplateSource::Inline(template.0.clone())),
            (Some(_), Some(_)) | (None, None) => {
                self.refuse(
                    "spec",
                    "exactly one of podTemplateRef and template must say what the pods are",
                    "set one of them",
                );
                None
            }
        }
    }

    fn agents_per_pod(&mut self, agents: i32) -> Option<AgentsPerPod> {
        let valid = u32::try_from(agents).ok().filter(|agents| *agents <= AGENTS_PER_POD_MAX).and_then(AgentsPerPod::new);
        if valid.is_none() {
            self.refuse(
                "spec.agentsPerPod",
                format!("{agents} is out of bounds"),
                format!("give something from 1 to {AGENTS_PER_POD_MAX}"),
            );
        }
        valid
    }

    fn scaling(&mut self, scaling: &crate::Scaling) -> Option<ValidScaling> {
        let limits = self.limits(scaling.min, scaling.max);
        let spare = self.spare(&scaling.spare);
        let waiting_weight = self.fraction("spec.scaling.waitingWeight", scaling.waiting_weight);
        let up_cooldown = self.span("spec.scaling.scaleUp.cooldown", &scaling.scale_up.cooldown, Duration::ZERO, HOUR);
        let up_step = self.step("spec.scaling.scaleUp.step", &scaling.scale_up.step);
        let down = &scaling.scale_down;
        let down_cooldown = self.span("spec.scaling.scaleDown.cooldown", &down.cooldown, Duration::ZERO, DAY);
        let window = self.span("spec.scaling.scaleDown.window", &down.window, Duration::ZERO, DAY);
        let down_step = self.step("spec.scaling.scaleDown.step", &down.step);
        let min_age = self.span("spec.scaling.scaleDown.minAge", &down.min_age, Duration::ZERO, DAY);
        let hint_ttl = self.span("spec.scaling.hintTtl", &scaling.hint_ttl, 10 * SECOND, HOUR);
        let stale_after = self.span("spec.scaling.staleAfter", &scaling.stale_after, 10 * SECOND, HOUR);
        if scaling.schedules.len() > SCHEDULES_MAX {
            let count = scaling.schedules.len();
            self.refuse("spec.scaling.schedules", format!("there are {count}"), format!("keep to {SCHEDULES_MAX}"));
        }
        let schedules: Vec<_> = scaling
            .schedules
            .iter()
            .take(SCHEDULES_MAX)
            .enumerate()
            .filter_map(|(index, spec)| {
                schedule::validate(spec, &format!("spec.scaling.schedules[{index}]"), &mut self.problems)
            })
            .collect();
        Some(ValidScaling {
            limits: limits?,
            spare: spare?,
            waiting_weight: waiting_weight?,
            scale_up: spec::ScaleUp { cooldown: up_cooldown?, step: up_step? },
            scale_down: spec::ScaleDown { cooldown: down_cooldown?, window: window?, step: down_step?, min_age: min_age? },
            hint_ttl: hint_ttl?,
            stale_after: stale_after?,
            schedules,
        })
    }

    fn limits(&mut self, min: i32, max: i32) -> Option<Limits> {
        let min_pods = self.pods("spec.scaling.min", min);
        let max_pods = self.pods("spec.scaling.max", max);
        let limits = Limits::new(Pods(min_pods?), Pods(max_pods?));
        if limits.is_none() {
            self.refuse("spec.scaling.min", format!("{min} is above max, which is {max}"), "lower min or raise max");
        }
        limits
    }

    fn pods(&mut self, path: &str, count: i32) -> Option<u32> {
        let valid = u32::try_from(count).ok().filter(|count| *count <= PODS_MAX);
        if valid.is_none() {
            self.refuse(path, format!("{count} is out of bounds"), format!("give something from 0 to {PODS_MAX}"));
        }
        valid
    }

    fn spare(&mut self, spare: &crate::SpareSpec) -> Option<Spare> {
        match (spare.agents, spare.percent) {
            (None, None) => Some(Spare::Agents(Agents::ZERO)),
            (Some(agents), None) => self.pods("spec.scaling.spare.agents", agents).map(|agents| Spare::Agents(Agents(agents))),
            (None, Some(percent)) => self.percent("spec.scaling.spare.percent", percent).map(Spare::Percent),
            (Some(_), Some(_)) => {
                self.refuse("spec.scaling.spare", "it holds both agents and percent", "keep one of them");
                None
            }
        }
    }

    fn percent(&mut self, path: &str, percent: i32) -> Option<Percent> {
        let valid = u16::try_from(percent).ok().and_then(Percent::new);
        if valid.is_none() {
            self.refuse(path, format!("{percent} is out of bounds"), format!("give something from 0 to {}", Percent::MAX));
        }
        valid
    }

    /// To the thousandth; finer than anybody can measure.
    fn fraction(&mut self, path: &str, value: f64) -> Option<Fraction> {
        let valid = (0.0..=1.0).contains(&value).then(|| {
            let thousandths = (0..=1_000_u16).rev().find(|n| f64::from(*n) <= value * 1_000.0 + 0.5).unwrap_or_default();
            Fraction::from_thousandths(thousandths)
        });
        if valid.is_none() {
            self.refuse(path, format!("{value} is out of bounds"), "give something from 0 to 1");
        }
        valid.flatten()
    }

    fn span(&mut self, path: &str, span: &Span, least: Duration, most: Duration) -> Option<Duration> {
        match span.get() {
            Ok(duration) if (least..=most).contains(&duration) => Some(duration),
            Ok(duration) => {
                self.refuse(
                    path,
                    format!("{} is out of bounds", humantime::format_duration(duration)),
                    format!(
                        "give something from {} to {}",
                        humantime::format_duration(least),
                        humantime::format_duration(most)
                    ),
                );
                None
            }
            Err(what) => {
                self.refuse(path, what, "write it like 90s, 5m or 4h 30m");
                None
            }
        }
    }

    fn step(&mut self, path: &str, step: &StepSpec) -> Option<spec::Step> {
        let percent = self.percent(&format!("{path}.percent"), step.percent);
        let agents = self.pods(&format!("{path}.agents"), step.agents).map(Agents);
        let per = self.span(&format!("{path}.per"), &step.per, SECOND, HOUR);
        let valid = spec::Step::new(percent?, agents?, per?);
        if valid.is_none() {
            self.refuse(path, "this step could never move", "give it a percent or agents above zero");
        }
        valid
    }
}
