//! One pool in one tick: what is known of it, and what is carried from tick to tick.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kitepool_api::{
    Problem,
    validate::{TemplateSource, ValidPool},
};
use kitepool_policy::{decision::Decision, memory::Memory, observation::PodCounts, spec::PoolName, units::Pods};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    metrics::ReadingAge,
    observe::Candidate,
    pool_status,
    readings::Seen,
    run::Config,
    snapshot::{Beside, GenerationFacts, NamespaceSnapshot},
};
use crate::{
    buildkite::Identity,
    cluster::{
        cell::NamespaceCells,
        events::PoolReference,
        view::{PodTemplateView, PoolView},
    },
    pods::{
        generation::{self, Owner, Planned},
        render::Overrides,
    },
};

/// A raise is recorded by a report, which may come a second after another one and rest for a second while hints come. From then on it comes
/// first whatever else there is.
const UNRECORDED_MAX: Duration = Duration::from_secs(2);

/// What is carried from tick to tick. All of it that matters stands in the pool's status as well, or in its Deployment.
#[derive(Debug)]
pub struct PoolState {
    /// Which pool.
    pub name: PoolName,
    /// What the policy remembers.
    pub memory: Memory,
    /// What of it the status holds.
    pub recorded: Memory,
    /// The last decision that the status is still to tell.
    pub untold: Option<Value>,
    /// Since when there is a raise that the status is still to record.
    pub unrecorded_since: Option<Instant>,
    /// The status as it stands, as far as we wrote or read it.
    status: Value,
    /// The identity in it: each tick asks for it, and looking it up in JSON costs more than keeping it.
    identity: Option<Identity>,
    /// When the status was last written.
    pub status_written_at: Option<Instant>,
    /// When its last act was begun.
    pub acted_at: Option<Instant>,
    /// Since when an act of it waits for a burst to be told.
    pub act_waits_since: Option<Instant>,
    /// Since when its report rests for hints that may follow.
    pub report_rests_since: Option<Instant>,
    /// The series that moves while nothing else does.
    pub reading_age: Option<ReadingAge>,
    /// The last change that was logged and not made, so that each is logged once.
    pub logged: Option<(u32, u32)>,
    /// Whether the last status may have been written without our hearing of it.
    pub is_status_unsure: bool,
    /// What the API server last refused to take from us, while we still try.
    pub refusal: Option<String>,
    /// The same of signs on its pods.
    pub sign_refusal: Option<String>,
    /// What the last tick found in which there was nothing to write, as long as that stays so.
    pub(super) quiet: Option<Quiet>,
    /// The last pass over all pools in which it was there.
    pub(super) seen_in: u64,
    planned: Option<(PlanKey, PlanResult)>,
}

/// All that a pool's conditions and status are made of. The same again makes the same of them, and with many pools that takes
/// most of a tick's time.
#[derive(Debug)]
pub struct Quiet {
    view: Arc<PoolView>,
    generations: Vec<GenerationFacts>,
    plan: PlanResult,
    seen: Seen,
    decision: Option<Decision>,
    companions: Vec<PoolName>,
    sign_refusal: Option<String>,
}

impl Quiet {
    /// As of this tick.
    pub(super) fn of(
        candidate: &Candidate,
        state: &PoolState,
        decision: Option<&Decision>,
        companions: &[PoolName],
    ) -> Self {
        Self {
            view: Arc::clone(&candidate.facts.view),
            generations: candidate.facts.generations.clone(),
            plan: candidate.plan.clone(),
            seen: candidate.seen.clone(),
            decision: decision.cloned(),
            companions: companions.to_vec(),
            sign_refusal: state.sign_refusal.clone(),
        }
    }

    /// Whether this tick finds the same. What the cells hold never changes: a changed object is another one.
    pub(super) fn is_still_so(
        &self,
        candidate: &Candidate,
        state: &PoolState,
        decision: Option<&Decision>,
        companions: &[PoolName],
    ) -> bool {
        Arc::ptr_eq(&self.view, &candidate.facts.view)
            && self.seen.says_the_same(&candidate.seen)
            && self.decision.as_ref() == decision
            && self.generations == candidate.facts.generations
            && self.plan == candidate.plan
            && self.companions == companions
            && self.sign_refusal == state.sign_refusal
    }
}

pub(super) type PlanResult = Result<Arc<Planned>, Vec<Problem>>;

/// What a plan depends on; the same again gives the same plan.
#[derive(Debug, Clone)]
struct PlanKey {
    generation: i64,
    template: Option<Arc<PodTemplateView>>,
    /// What each generation is made of, and its name.
    existing: Vec<(String, String)>,
}

impl PlanKey {
    /// An object in a cell never changes; a changed one is another object.
    fn is_of(&self, generation: i64, template: Option<&Arc<PodTemplateView>>, generations: &[GenerationFacts]) -> bool {
        let same_template = match (&self.template, template) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let existing = self.existing.iter().map(|(inputs, name)| (inputs.as_str(), name.as_str()));
        self.generation == generation && same_template && existing.eq(existing_of(generations))
    }
}

fn existing_of(generations: &[GenerationFacts]) -> impl Iterator<Item = (&str, &str)> {
    generations.iter().filter_map(|facts| Some((facts.inputs.as_deref()?, facts.seen.name.as_str())))
}

impl PoolState {
    /// From what the cluster says.
    pub fn load(view: &PoolView) -> Self {
        let status = view.status.clone().unwrap_or(Value::Null);
        let memory = pool_status::memory(&status);
        Self {
            name: view.name.clone(),
            recorded: memory.clone(),
            memory,
            untold: None,
            unrecorded_since: None,
            identity: pool_status::identity(&status),
            status,
            reading_age: None,
            status_written_at: None,
            acted_at: None,
            act_waits_since: None,
            report_rests_since: None,
            logged: None,
            is_status_unsure: false,
            refusal: None,
            quiet: None,
            seen_in: 0,
            sign_refusal: None,
            planned: None,
        }
    }

    /// The status as it stands, as far as we wrote or read it.
    pub const fn status(&self) -> &Value {
        &self.status
    }

    /// The identity in the status.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// This status stands now, with this memory in it.
    pub fn now_stands(&mut self, status: Value, recorded: Memory) {
        self.recorded = recorded;
        self.identity = pool_status::identity(&status);
        self.status = status;
        (self.untold, self.unrecorded_since) = (None, None);
    }

    /// Whether a raise waits for its record for longer than it should.
    pub fn is_record_overdue(&self, at: Instant) -> bool {
        self.unrecorded_since.is_some_and(|since| at.saturating_duration_since(since) >= UNRECORDED_MAX)
    }

    /// Whether the decision's act may come before its record. What failed once is recorded before it is tried again, so that its pool tells
    /// why it fails.
    pub fn may_record_after(&self, decision: &Decision, has_failed: bool, at: Instant) -> bool {
        let is_troubled = self.is_status_unsure || self.is_record_overdue(at) || has_failed;
        !is_troubled && decision.is_plain_raise(&self.recorded)
    }

    /// The status that records what is remembered, and is else as it stands.
    pub fn status_with_memory(&self) -> Value {
        let mut status = self.status.clone();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("memory".to_owned(), serde_json::to_value(&self.memory).unwrap_or_default());
            fields.extend(self.untold.clone().map(|decided| ("lastDecision".to_owned(), decided)));
        }
        status
    }

    /// A scale of ours did not land and never will: whatever stands there now is as it was, or somebody else's, also between our
    /// two numbers.
    pub fn never_landed(&mut self, generation: &str, from: Pods) {
        if let Some(asked) = self.memory.asked.get_mut(generation) {
            asked.to = from;
        }
    }

    /// The generation that the definition asks for now; rendered again only when something of it changed.
    pub fn plan(&mut self, view: &PoolView, valid: &ValidPool, facts: &PlanInputs<'_>) -> PlanResult {
        let template = match &valid.template {
            TemplateSource::Inline(_) => None,
            TemplateSource::Reference(name) => facts.cells.templates.get(name),
        };
        if let Some((known, plan)) = &self.planned
            && known.is_of(view.generation, template.as_ref(), facts.generations)
        {
            return plan.clone();
        }
        let owned = |(inputs, name): (&str, &str)| (inputs.to_owned(), name.to_owned());
        let existing = existing_of(facts.generations).map(owned).collect();
        let key = PlanKey { generation: view.generation, template, existing };
        let existing: BTreeMap<String, String> = key.existing.iter().cloned().collect();
        let overrides = Overrides::of(valid, facts.config.endpoint.as_deref(), facts.config.first.as_ref());
        let plan = make_plan(view, valid, key.template.as_deref(), &overrides, &existing).map(Arc::new);
        self.planned = Some((key, plan.clone()));
        plan
    }
}

/// What a plan is made from, besides the pool.
pub struct PlanInputs<'a> {
    /// The namespace.
    pub cells: &'a NamespaceCells,
    /// The pool's generations.
    pub generations: &'a [GenerationFacts],
    /// What we were given for all pools.
    pub config: &'a Config,
}

/// The generation that a pool asks for, or everything that stands against it. `existing` are its generations by what they are made of.
pub fn make_plan(
    view: &PoolView,
    valid: &ValidPool,
    template: Option<&PodTemplateView>,
    overrides: &Overrides,
    existing: &BTreeMap<String, String>,
) -> Result<Planned, Vec<Problem>> {
    let owner = owner(view);
    match (&valid.template, template) {
        (TemplateSource::Inline(definition), _) => {
            generation::plan(&owner, definition, overrides, "spec.template", existing)
        }
        (TemplateSource::Reference(name), Some(template)) => {
            generation::plan(&owner, &template.template, overrides, &format!("PodTemplate {name}: template"), existing)
        }
        (TemplateSource::Reference(name), None) => Err(vec![Problem::new(
            "spec.podTemplateRef.name",
            format!("there is no PodTemplate {name} in namespace {}", view.name.namespace),
            "create it (pod-library/ has some to start from), or name one that exists",
        )]),
    }
}

/// The pool as the owner of its generations.
pub fn owner(view: &PoolView) -> Owner {
    Owner { namespace: view.name.namespace.clone(), name: view.name.name.clone(), uid: view.uid.clone() }
}

/// What is known of one pool in one tick, its validity apart.
#[derive(Debug)]
pub struct PoolFacts {
    /// The pool.
    pub view: Arc<PoolView>,
    /// Its generations.
    pub generations: Vec<GenerationFacts>,
}

impl PoolFacts {
    /// Out of the cells.
    pub fn gather(view: Arc<PoolView>, namespace: &NamespaceSnapshot, beside: Beside<'_>) -> Self {
        let adopt = view.pool.as_ref().ok().and_then(|valid| valid.adopt.as_deref());
        let generations = namespace.generations(&view, adopt, beside);
        Self { view, generations }
    }

    /// Replicas that the specs of all generations ask for.
    pub fn replicas(&self) -> Pods {
        self.generations.iter().fold(Pods::ZERO, |sum, generation| sum.plus(generation.seen.replicas))
    }

    /// All pods, whatever their generation.
    pub fn pods(&self) -> PodCounts {
        self.generations.iter().fold(PodCounts::default(), |sum, generation| PodCounts {
            unready: sum.unready.plus(generation.seen.pods.unready),
            failing: sum.failing.plus(generation.seen.pods.failing),
            leaving: sum.leaving.plus(generation.seen.pods.leaving),
            unscheduled: sum.unscheduled.plus(generation.seen.pods.unscheduled),
            ready: sum.ready.plus(generation.seen.pods.ready),
            draining: sum.draining.plus(generation.seen.pods.draining),
        })
    }

    /// The uid of one of its Deployments.
    pub fn uid_of(&self, generation: &str) -> Option<String> {
        let found = self.generations.iter().find(|facts| facts.seen.name == generation)?;
        (!found.uid.is_empty()).then(|| found.uid.clone())
    }

    /// Who, other than us, last wrote its replicas.
    pub fn foreign_scaler_of(&self, generation: &str) -> Option<&str> {
        self.generations.iter().find(|facts| facts.seen.name == generation)?.foreign_scaler.as_deref()
    }
}

/// The pool as an Event is about it.
pub fn reference(pool: &PoolName, uid: &str) -> PoolReference {
    PoolReference { namespace: pool.namespace.clone(), name: pool.name.clone(), uid: uid.to_owned() }
}

#[cfg(test)]
mod tests {
    use kitepool_policy::decision::{Intent, Report};
    use serde_json::json;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> PoolState {
        let object = json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool",
            "metadata": { "name": "linux", "namespace": "ci", "uid": "pool" },
            "status": { "replicas": { "desired": 2 }, "memory": { "asked": { "a": { "from": 2, "to": 2 } } } },
        });
        PoolState::load(&serde_json::from_value::<kube::core::DynamicObject>(object).unwrap().into())
    }

    /// From two pods to so many.
    fn scaled(to: u32, state: &PoolState) -> Decision {
        let mut memory = state.memory.clone();
        memory.asked.get_mut("a").unwrap().to = Pods(to);
        Decision {
            pool: state.name.clone(),
            target: Pods(to),
            intents: vec![Intent::Scale { generation: "a".to_owned(), from: Pods(2), to: Pods(to) }],
            signs: Vec::new(),
            foreign: Vec::new(),
            unrecorded: Vec::new(),
            spared: Vec::new(),
            memory,
            report: Report { entries: Vec::new() },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_raise_is_recorded_after_it_unless_there_was_trouble() {
        let at = Clock::fixed(jiff::Timestamp::UNIX_EPOCH).mono();
        let mut state = state();
        let (raise, lowering) = (scaled(3, &state), scaled(1, &state));
        assert!(state.may_record_after(&raise, false, at) && !state.may_record_after(&lowering, false, at));
        assert!(!state.may_record_after(&raise, true, at), "it failed before: then it is told why");
        state.unrecorded_since = Some(at);
        assert!(state.may_record_after(&raise, false, at + SECOND));
        assert!(!state.may_record_after(&raise, false, at + 2 * SECOND), "the one before waits for its record");
        state.unrecorded_since = None;
        state.is_status_unsure = true;
        assert!(!state.may_record_after(&raise, false, at), "nobody knows what is recorded");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_can_be_recorded_by_itself() {
        let at = Clock::fixed(jiff::Timestamp::UNIX_EPOCH).mono();
        let mut state = state();
        state.memory = scaled(3, &state).memory;
        (state.untold, state.unrecorded_since) = (Some(json!({ "to": 3 })), Some(at));
        let status = state.status_with_memory();
        assert_eq!((&status["memory"]["asked"]["a"]["to"], &status["lastDecision"]), (&json!(3), &json!({ "to": 3 })));
        assert_eq!(status["replicas"], state.status()["replicas"], "all else as it stands");
        state.now_stands(status, state.memory.clone());
        assert_eq!((&state.recorded, &state.untold, state.unrecorded_since), (&state.memory, &None, None));
    }
}
