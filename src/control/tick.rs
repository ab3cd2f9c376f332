//! One pass over everything: observe, decide, check, act, record.
//!
//! A tick takes no input and keeps no promise to itself: whatever woke it, it looks at all pools again. What it carries from
//! one to the next is what the status of each pool holds as well (its memory), and what cannot outlive the process (calls in
//! flight, what they left that the watch has not shown).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kitepool_api::validate::ValidPool;
use kitepool_policy::{
    decision::Decision,
    memory::Memory,
    observation::{QueueObservation, Trouble},
    spec::{Mode, PoolName},
    unsatisfiable::Watch,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    act::{Act, Work, Writers},
    agents, announce, conditions,
    departures::Departures,
    hint_sweep::HintSweep,
    hints::HintIndex,
    overlay::Overlay,
    pool::{PlanInputs, PlanResult, PoolFacts, PoolState, Quiet, owner, reference},
    pool_status::{self, NewStatus},
    queues::{self, Decided, Queue},
    readings::{QueueKey, Readings, Seen},
    run::Shared,
    show,
    signs::Signs,
    snapshot::NamespaceSnapshot,
    verdict,
};
use crate::{
    cluster::{
        cell::{Health, NamespaceCells},
        client::chain,
        error::Error,
        events::Announcer,
        read::Reader,
        view::PoolView,
        write::Writer,
    },
    sense::{probe::ProbeSet, watch::ClusterWatch},
};

/// A status that only reports (no act follows) is written at most this often: a burst moves the numbers twenty times a
/// second, and nobody reads so fast.
const STATUS_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A list that takes longer than this hangs; the other namespaces do not wait for it.
const BEGINNING_MAX: Duration = Duration::from_secs(15);

/// How soon to look again if nothing is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Something goes on by itself.
    Soon,
    /// Nothing does but the hours.
    Calm,
}

/// One term of leadership.
pub struct Term {
    pub(super) shared: Shared,
    began: Instant,
    /// The same by the wall clock; names the term in the record.
    began_at: Timestamp,
    pub(super) watch: ClusterWatch,
    readings: Readings,
    writers: Writers,
    hints: HintIndex,
    sweep: HintSweep,
    pub(super) probes: ProbeSet,
    pub(super) signs: Signs,
    pub(super) departures: Departures,
    pub(super) announcer: Announcer,
    pub(super) pools: BTreeMap<String, PoolState>,
    /// How often all of them were looked at.
    passes: u64,
    pub(super) overlay: Overlay,
    /// What the readings of each queue have in common. A new term begins anew, which costs a minute's delay.
    watches: BTreeMap<QueueKey, Watch>,
}

/// A valid pool in this tick.
pub(super) struct Candidate {
    pub(super) facts: PoolFacts,
    pub(super) valid: Arc<ValidPool>,
    pub(super) plan: PlanResult,
    pub(super) seen: Seen,
    pub(super) memory: Memory,
}

impl Candidate {
    pub(super) fn view(&self) -> &PoolView {
        &self.facts.view
    }
}

impl Term {
    /// Begins to look.
    pub(super) fn begin(
        shared: Shared,
        writer: Writer,
        reader: Reader,
        announcer: Announcer,
        wake: &Arc<Notify>,
        background: &mut JoinSet<()>,
    ) -> Self {
        let writer = Arc::new(writer);
        let watch = ClusterWatch::begin(&shared.clients, &shared.config.namespaces, wake, &shared.clock);
        let readings = Readings::begin(&shared, reader.clone(), wake, background);
        let probes = ProbeSet::begin(Arc::clone(&shared.agents), shared.clock.clone(), Arc::clone(wake));
        let last_word = probes.last_word();
        let writers = Writers::new(Arc::clone(&writer), reader, last_word, shared.clock.clone(), Arc::clone(wake));
        let signs = Signs::new(Arc::clone(&writer), shared.clock.clone(), Arc::clone(wake));
        let sweep = HintSweep::new(writer, shared.metrics.clone(), shared.clock.clone());
        let (pools, overlay, watches) = (BTreeMap::new(), Overlay::default(), BTreeMap::new());
        let hints = HintIndex::default();
        let (began, began_at) = (shared.clock.mono(), shared.clock.now());
        Self {
            shared,
            began,
            began_at,
            watch,
            readings,
            writers,
            hints,
            sweep,
            probes,
            signs,
            departures: Departures::default(),
            announcer,
            pools,
            passes: 0,
            overlay,
            watches,
        }
    }

    /// One pass.
    pub(super) fn tick(&mut self) -> Next {
        if let Some(jump) = self.shared.clock.anchor() {
            self.shared.metrics.clock_jumped();
            tracing::warn!(seconds = jump.as_secs(), "the wall clock jumped");
        }
        let now = self.shared.clock.now();
        self.record();
        if self.is_beginning() {
            show::board(self);
            return Next::Soon;
        }
        let (candidates, broken) = self.observe(now);
        self.note_departures(&candidates);
        self.hints.take_in(&self.watch.namespaces);
        let mut queues = queues::by_key(&candidates, &broken, &mut self.hints);
        queues::watch(&mut queues, &mut self.watches);
        let decided = queues::decide(&queues, candidates.len(), |key, queue| self.decide(key, queue, now));
        let is_calm = |decided: &Decided| decided.decision.as_ref().is_some_and(Decision::is_calm);
        let is_calm = broken.is_empty() && decided.iter().all(is_calm);
        let mut is_settled = true;
        self.ask(&candidates, &decided);
        self.put_up_signs(&candidates, &decided);
        for (candidate, decided) in candidates.iter().zip(&decided) {
            is_settled &= self.act(candidate, decided.decision.as_ref(), &decided.companions, now);
        }
        for facts in &broken {
            self.report_broken(facts, now);
        }
        is_settled &= self.sweep_hints(&queues, now);
        show::board(self);
        if is_calm && is_settled { Next::Calm } else { Next::Soon }
    }

    /// Whether some namespace is still being listed for the first time. A queue may have pools in several, and what those of
    /// the others run would pass for work that needs agents here.
    fn is_beginning(&self) -> bool {
        let is_starting = |cells: &NamespaceCells| {
            let mut health = cells.health().into_iter();
            health.any(|(resource, health)| resource != "jobhints" && health == Health::Starting)
        };
        let is_young = self.shared.clock.mono().saturating_duration_since(self.began) < BEGINNING_MAX;
        is_young && self.watch.namespaces.values().any(is_starting)
    }

    /// Waits for the writes in flight.
    pub(super) async fn drain(&mut self) {
        self.writers.drain().await;
        self.signs.drain().await;
    }

    /// Takes its series away: whoever leads next shows the pools.
    pub(super) fn end(&mut self) {
        self.forget_all_but(self.passes.wrapping_add(1), &BTreeSet::new());
        self.shared.metrics.hints(0);
    }

    /// Takes in how the writes of the last ticks ended.
    fn record(&mut self) {
        let at = self.shared.clock.mono();
        self.take_in_signs();
        for outcome in self.writers.ended() {
            let refusal = outcome.refusal();
            let Some(state) = self.pools.get_mut(&outcome.uid) else { continue };
            state.quiet = None;
            if let Some(status) = outcome.status {
                self.shared.metrics.wrote("status", "ok");
                state.status = status;
                state.status_written_at = Some(at);
                // What was recorded is what counts from now on, whether or not the acts after it landed.
                state.memory = outcome.memory;
                state.is_status_unsure = false;
                outcome.notices.into_iter().for_each(|notice| self.announcer.announce(notice));
            }
            for (deployment, landed) in outcome.landed {
                // The answer is better knowledge than the watch: who puts the old number back from here on is somebody else.
                if let Some(asked) = state.memory.asked.get_mut(&deployment)
                    && landed.stands_at() == Some(asked.to)
                {
                    asked.from = asked.to;
                }
                self.overlay.landed(&outcome.uid, deployment, landed, at);
            }
            if let Some((generation, from)) = &outcome.held {
                state.never_landed(generation, *from);
                tracing::info!(pool = %outcome.pool, generation, "not lowered: a pod that was to go has found work");
            }
            for act in &outcome.done {
                self.shared.metrics.wrote(act.verb(), "ok");
                tracing::info!(pool = %outcome.pool, act = act.verb(), generation = act.generation(), reason = outcome.reason, "written");
                self.announcer.announce(announce::act(&reference(&outcome.pool, &outcome.uid), act, &outcome.reason));
            }
            if let Some(cells) = self.watch.namespaces.get(&outcome.pool.namespace) {
                for (name, seen) in outcome.reread {
                    if seen.is_none() {
                        self.overlay.gone(&outcome.uid, &name);
                    }
                    cells.take_in_deployment(&name, seen);
                }
            }
            state.refusal = refusal;
            if let Some((verb, error)) = outcome.failure {
                self.shared.metrics.wrote(verb, error.category());
                if matches!(error, Error::BudgetSpent) && verb == "status" {
                    // A report gives way to what is urgent; a later tick makes a newer one.
                    state.status_written_at = Some(at);
                    continue;
                }
                if let (Error::Conflict { .. }, Some((generation, from))) = (&error, &outcome.tried) {
                    state.never_landed(generation, *from);
                }
                // It may have landed all the same; the next write says for sure.
                state.is_status_unsure |= verb == "status";
                tracing::warn!(pool = %outcome.pool, verb, error = chain(&error), "write failed; deciding again");
            }
        }
    }

    /// All pools as they are now: the valid ones, and those that are broken.
    fn observe(&mut self, now: Timestamp) -> (Vec<Candidate>, Vec<PoolFacts>) {
        let mut seen_pools = Vec::new();
        let mut broken = Vec::new();
        self.passes = self.passes.wrapping_add(1);
        let mut unseen = BTreeSet::new();
        let at = self.shared.clock.mono();
        for (namespace, cells) in &self.watch.namespaces {
            if !cells.is_synced() {
                unseen.insert(namespace.clone());
                continue;
            }
            let snapshot = NamespaceSnapshot::take(cells, now);
            let said = |uid: &str| self.probes.look(uid);
            for view in cells.pools.objects().values().filter(|view| !view.is_deleting) {
                self.overlay.settle(&view.uid, &snapshot, at);
                let facts = PoolFacts::gather(Arc::clone(view), &snapshot, &self.overlay, &said);
                if !self.pools.contains_key(&view.uid) {
                    self.pools.insert(view.uid.clone(), PoolState::load(view));
                }
                let Some(state) = self.pools.get_mut(&view.uid) else { continue };
                state.seen_in = self.passes;
                let Ok(valid) = &view.pool else {
                    broken.push(facts);
                    continue;
                };
                let config = &self.shared.config;
                let plan = state.plan(view, valid, &PlanInputs { cells, generations: &facts.generations, config });
                let mut valid = Arc::clone(valid);
                if self.shared.config.is_dry_run {
                    // Where nothing is written every change is somebody else's, and no news.
                    Arc::make_mut(&mut valid).spec.mode = Mode::Observe;
                }
                seen_pools.push((facts, valid, plan));
            }
        }
        self.readings.want(seen_pools.iter().map(|(facts, valid, _)| (&*facts.view, &**valid)));
        self.forget_all_but(self.passes, &unseen);
        let pools = &self.pools;
        let (readings, writers) = (&self.readings, &self.writers);
        let candidates = seen_pools.into_iter().filter_map(|(facts, valid, plan)| {
            let state = pools.get(&facts.view.uid)?;
            let mut memory = writers.in_flight(&facts.view.uid).unwrap_or(&state.memory).clone();
            // A person's word ends a contest and accepts a new identity.
            let word = pool_status::word(&facts.view);
            let is_new_word = word.is_some() && word != pool_status::resolved(&state.status);
            if is_new_word {
                memory.settle_contest();
            }
            let expected = pool_status::identity(&state.status).filter(|_| !is_new_word);
            let seen = readings.of(&facts.view, &valid, expected);
            Some(Candidate { facts, valid, plan, seen, memory })
        });
        (candidates.collect(), broken)
    }

    /// Keeps the pools that were seen in this pass. Those of namespaces that cannot be seen are not gone.
    fn forget_all_but(&mut self, pass: u64, unseen: &BTreeSet<String>) {
        let metrics = &self.shared.metrics;
        let before = self.pools.len();
        self.pools.retain(|_, state| {
            let is_there = state.seen_in == pass || unseen.contains(&state.name.namespace);
            if !is_there {
                metrics.forget(&show::labels(&state.name));
            }
            is_there
        });
        let pools = &self.pools;
        self.writers.retain(|uid| pools.contains_key(uid));
        self.overlay.retain(|uid| pools.contains_key(uid));
        // It holds every pool, and nothing is added for one that is gone; the others hold what is under way, which may end later.
        if pools.len() < before {
            self.departures.retain(|uid| pools.contains_key(uid));
        }
    }

    /// The policy's decisions about a queue; those that would break an invariant are refused together.
    fn decide(&self, key: &QueueKey, observation: &QueueObservation, now: Timestamp) -> Vec<Decision> {
        let decided = kitepool_policy::decide(observation, now);
        self.shared.recorder.take_down(self.began_at, now, key, observation, &decided);
        let violations = kitepool_policy::check(observation, &decided, now);
        if violations.is_empty() {
            return decided;
        }
        self.shared.metrics.refused();
        tracing::error!(queue = observation.queue, ?violations, "decision refused; please report this");
        Vec::new()
    }

    /// Writes what the decision asks for, its memory first. Answers whether there was nothing to write.
    fn act(
        &mut self,
        candidate: &Candidate,
        decision: Option<&Decision>,
        companions: &[PoolName],
        now: Timestamp,
    ) -> bool {
        let view = candidate.view();
        let Some(state) = self.pools.get_mut(&view.uid) else { return true };
        if decision.is_some_and(|decision| decision.intents.is_empty()) {
            state.refusal = None;
        }
        if state.quiet.as_ref().is_some_and(|quiet| quiet.is_still_so(candidate, state, decision, companions)) {
            show::reading_age(&self.shared.metrics, candidate, now);
            return true;
        }
        state.quiet = None;
        let refusal = state.refusal.as_deref().or(state.sign_refusal.as_deref());
        let stood = state.status.get("conditions");
        let generations = &candidate.facts.generations;
        let verdict = verdict::of(&candidate.plan, &candidate.seen, decision, companions, refusal, generations, stood);
        show::pool(&self.shared.metrics, candidate, decision, &verdict, now);
        let is_passive = self.shared.config.is_dry_run || candidate.valid.spec.mode == Mode::Observe;
        let memory = decision.map_or(&candidate.memory, |decision| &decision.memory);
        let status = pool_status::build(&NewStatus {
            facts: &candidate.facts,
            before: &state.status,
            conditions: &verdict.conditions,
            memory,
            decision,
            reading: candidate.seen.reading.last_good.as_ref(),
            identity: candidate.seen.identity.as_ref(),
            resolved: pool_status::word(view),
            now,
        });
        if is_passive {
            show::would(state, candidate, decision, &verdict);
        }
        if self.shared.config.is_dry_run {
            (state.memory, state.status) = (memory.clone(), status);
            return true;
        }
        let acts = decision.filter(|_| !is_passive).map(|decision| acts(decision, candidate)).unwrap_or_default();
        let has_changed = state.is_status_unsure || status != state.status;
        let since_written = state.status_written_at.map(|at| self.shared.clock.mono().saturating_duration_since(at));
        let is_too_soon = since_written.is_some_and(|since| since < STATUS_INTERVAL_MIN);
        // Before the first poll has ended there is nothing to report that the last leader did not know better.
        let is_early =
            candidate.seen.reading.trouble == Some(Trouble::NotRead) && state.status.get("conditions").is_some();
        if !self.writers.is_free(&view.uid) || (acts.is_empty() && (!has_changed || is_too_soon || is_early)) {
            let is_settled = acts.is_empty() && !has_changed;
            // A write in flight may still leave another status.
            let is_quiet = is_settled && self.writers.is_free(&view.uid);
            state.quiet = is_quiet.then(|| Quiet::of(candidate, state, decision, companions));
            return is_settled;
        }
        let about = reference(&view.name, &view.uid);
        let news = conditions::news(state.status.get("conditions"), &verdict.conditions);
        let mut notices: Vec<_> = news.into_iter().map(|condition| announce::condition(&about, condition)).collect();
        for change in decision.iter().flat_map(|decision| &decision.foreign) {
            let who = candidate.facts.foreign_scaler_of(&change.generation);
            notices.push(announce::foreign(&about, change, who));
        }
        notices.extend(
            decision.iter().flat_map(|decision| &decision.spared).map(|spared| announce::spared(&about, spared)),
        );
        self.writers.begin(Work {
            pool: view.name.clone(),
            uid: view.uid.clone(),
            status: has_changed.then_some(status),
            memory: memory.clone(),
            acts,
            reason: verdict.decided,
            notices,
        });
        false
    }

    /// A pool that is not valid: everything that is wrong with it, and nothing is touched.
    fn report_broken(&mut self, facts: &PoolFacts, now: Timestamp) {
        let view = &facts.view;
        let (Err(problems), Some(state)) = (&view.pool, self.pools.get_mut(&view.uid)) else { return };
        let conditions = [verdict::invalid(problems)];
        show::broken(&self.shared.metrics, facts);
        let status = pool_status::build(&NewStatus {
            facts,
            before: &state.status,
            conditions: &conditions,
            memory: &state.memory,
            decision: None,
            reading: None,
            identity: pool_status::identity(&state.status).as_ref(),
            // A word that comes while the pool is broken is heard when it is whole again.
            resolved: pool_status::resolved(&state.status),
            now,
        });
        if status == state.status || self.shared.config.is_dry_run || !self.writers.is_free(&view.uid) {
            return;
        }
        let about = reference(&view.name, &view.uid);
        let news = conditions::news(state.status.get("conditions"), &conditions);
        let notices = news.into_iter().map(|condition| announce::condition(&about, condition)).collect();
        self.writers.begin(Work {
            pool: view.name.clone(),
            uid: view.uid.clone(),
            status: Some(status),
            memory: state.memory.clone(),
            acts: Vec::new(),
            reason: String::new(),
            notices,
        });
    }

    /// Deletes what is over. Answers whether there is no hint at all: one that is there may be over at any moment.
    fn sweep_hints(&mut self, queues: &BTreeMap<QueueKey, Queue>, now: Timestamp) -> bool {
        let mut all = 0;
        self.hints.review(queues, &self.watch.namespaces, now, self.shared.clock.mono());
        for (namespace, review) in self.hints.reviews() {
            let Some(cells) = self.watch.namespaces.get(namespace) else { continue };
            all += review.all;
            if !self.shared.config.is_dry_run {
                self.sweep.sweep(namespace, review, &cells.hints);
            }
        }
        self.shared.metrics.hints(all);
        for found in self.hints.take_unmatched() {
            self.shared.metrics.hint_unmatched(&found.queue);
            if !self.shared.config.is_dry_run {
                for notice in announce::unmatched(&found) {
                    self.announcer.announce(notice);
                }
            }
        }
        all == 0
    }
}

/// The intents as writes.
fn acts(decision: &Decision, candidate: &Candidate) -> Vec<Act> {
    let owner = owner(candidate.view());
    let manifest = |replicas: kitepool_policy::units::Pods| {
        candidate.plan.as_ref().ok().map(|planned| planned.manifest(&owner, &candidate.valid.queue, replicas.0))
    };
    let uid = |generation: &str| candidate.facts.uid_of(generation);
    let ask = |generation: &str| agents::chosen(&candidate.facts, &decision.memory, generation);
    decision.intents.iter().filter_map(|intent| Act::from_intent(intent.clone(), manifest, uid, ask)).collect()
}
