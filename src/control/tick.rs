//! One pass over everything: observe, decide, check, act, record.
//!
//! A tick takes no input and keeps no promise to itself: whatever woke it, it looks at all pools again. What it carries from
//! one to the next is what the status of each pool holds as well or soon will (its memory), and what cannot outlive the process
//! (calls in flight, what they left that the watch has not shown).
//!
//! ```text
//!  all pools: valid? token? ─► by queue ─┬─► one queue: observe ─► decide ─► check ─► ask, act ─┬─► what is left over: signs,
//!                                        └──────────────── the next queue ◄─────────────────────┘   hints that are over
//! ```
//!
//! A pass in which another hint comes ends early, but no two after each other: all pools are served in every second one.
//!
//! Each queue goes the whole way before the next one begins, so that what is known of it is looked up once and is still in the
//! processor's caches when it is used: with thousands of pools that is most of a tick's time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kitepool_policy::{
    decision::Decision,
    observation::{QueueObservation, Trouble},
    spec::{Mode, PoolName},
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    act::{Act, Record, Work, Writers},
    agents, announce,
    departures::Departures,
    hint_sweep::HintSweep,
    hints::HintIndex,
    joined::Joins,
    observe::{self, Candidate, Placed},
    overlay::Overlay,
    pace,
    pool::{PoolFacts, PoolState, Quiet, owner, reference},
    pool_status::{self, NewStatus},
    queues::{Decided, Queue, Watches},
    readings::{QueueKey, Readings},
    report::{News, Report},
    run::Shared,
    show,
    signs::{Signs, Wanted},
    turns::{Turns, Waiting},
    verdict,
};
use crate::{
    cluster::{
        cell::{Health, NamespaceCells},
        events::Announcer,
        read::Reader,
        write::{Urgency, Writer},
    },
    sense::{probe::ProbeSet, watch::ClusterWatch},
};

/// A list that takes longer than this hangs; the other namespaces do not wait for it.
const BEGINNING_MAX: Duration = Duration::from_secs(15);

/// How soon to look again if nothing is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    /// Something was put off until then.
    At(Instant),
    /// Something goes on by itself.
    Soon,
    /// Nothing does but the hours.
    Calm,
}

impl Next {
    const fn calm_if(is_calm: bool) -> Self {
        if is_calm { Self::Calm } else { Self::Soon }
    }
}

/// One term of leadership.
pub struct Term {
    pub(super) shared: Shared,
    began: Instant,
    /// The same by the wall clock; names the term in the record.
    began_at: Timestamp,
    pub(super) watch: ClusterWatch,
    pub(super) readings: Readings,
    pub(super) writers: Writers,
    pub(super) turns: Turns,
    pub(super) hints: HintIndex,
    sweep: HintSweep,
    pub(super) probes: ProbeSet,
    pub(super) signs: Signs,
    pub(super) departures: Departures,
    pub(super) announcer: Announcer,
    /// By uid.
    pub(super) pools: HashMap<String, PoolState>,
    /// How often all of them were looked at.
    pub(super) passes: u64,
    /// Whether the last pass was cut short.
    is_cut: bool,
    pub(super) joins: Joins,
    pub(super) overlay: Overlay,
    watches: Watches,
}

/// What one pass comes to, over all queues.
struct Pass {
    next: Next,
    signs: Vec<Wanted>,
    /// The queues of which there are hints.
    hinted: BTreeMap<QueueKey, Queue>,
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
        let (pools, joins, overlay, watches) =
            (HashMap::new(), Joins::default(), Overlay::default(), Watches::default());
        let hints = HintIndex::default();
        let (began, began_at) = (shared.clock.mono(), shared.clock.now());
        Self {
            shared,
            began,
            began_at,
            watch,
            readings,
            writers,
            turns: Turns::default(),
            hints,
            sweep,
            probes,
            signs,
            departures: Departures::default(),
            announcer,
            pools,
            passes: 0,
            is_cut: false,
            joins,
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
        self.take_in_outcomes();
        self.hints.take_in(&self.watch.namespaces, self.shared.clock.mono());
        if self.is_beginning() {
            show::board(self);
            return Next::Soon;
        }
        self.turns.begin_pass();
        let (placed, broken) = self.look_around(now);
        let next = Next::calm_if(broken.is_empty());
        let mut pass = Pass { next, signs: Vec::new(), hinted: BTreeMap::new() };
        self.is_cut = self.serve_all(placed, &broken, now, &mut pass);
        if self.is_cut {
            self.put_up(pass.signs);
            return Next::Soon;
        }
        for facts in &broken {
            self.report_broken(facts, now);
        }
        self.watches.forget_all_but(self.passes);
        self.probes.end_round();
        self.put_up(pass.signs);
        let swept = Next::calm_if(self.sweep_hints(&pass.hinted, now));
        show::board(self);
        pass.next.min(swept)
    }

    fn put_up(&mut self, signs: Vec<Wanted>) {
        if !self.shared.config.is_dry_run {
            self.signs.put_up(signs);
        }
    }

    /// All queues, those with hints first. Answers whether it was cut short: with a thousand pools a job that is told of meanwhile would wait
    /// for all the others, which may wait for the next pass instead. That one is whole.
    fn serve_all(&mut self, placed: Vec<Placed>, broken: &[PoolFacts], now: Timestamp, pass: &mut Pass) -> bool {
        let was_cut = self.is_cut;
        let mut rest = placed.into_iter().peekable();
        loop {
            let pools = observe::next_queue(&mut rest);
            let Some(first) = pools.first() else { return false };
            if pace::may_end(was_cut, self.hints.concern(first.queue()), || self.is_told_more()) {
                return true;
            }
            let candidates: Vec<Candidate> = pools.into_iter().filter_map(|placed| self.observe(placed)).collect();
            self.serve(&candidates, broken, now, pass);
        }
    }

    /// Whether a job may wait for the next tick: a hint came since the last one, or the way of an act is free.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_told_more() || self.writers.is_way_free()
    }

    /// Whether a hint came that this tick did not take in. While some wait for the hints that still come, one more is what they wait for.
    fn is_told_more(&self) -> bool {
        !self.turns.gathers() && self.hints.lags(&self.watch.namespaces)
    }

    /// One queue, the whole way.
    fn serve(&mut self, candidates: &[Candidate], broken: &[PoolFacts], now: Timestamp, pass: &mut Pass) {
        let Some(key) = candidates.first().map(|candidate| &candidate.seen.key) else { return };
        self.note_departures(candidates);
        let mut queue = Queue::of(key, candidates, broken, &mut self.hints, self.shared.clock.mono());
        self.watches.look(key, &mut queue, self.passes);
        let decided = queue.decide(|observation| self.decide(key, observation, now));
        let is_calm = |decided: &Decided| decided.decision.as_ref().is_some_and(Decision::is_calm);
        pass.next = pass.next.min(Next::calm_if(decided.iter().all(is_calm)));
        self.ask(candidates, &decided);
        pass.signs.extend(self.wanted_signs(candidates, &decided));
        for (candidate, decided) in candidates.iter().zip(&decided) {
            let next = self.act(candidate, decided.decision.as_ref(), &decided.companions, now);
            pass.next = pass.next.min(next);
        }
        if self.hints.concern(key) {
            pass.hinted.insert(key.clone(), queue);
        }
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

    /// Takes its series away: whoever leads next shows the pools.
    pub(super) fn end(&mut self) {
        self.forget_all_but(self.passes.wrapping_add(1), &BTreeSet::new());
        self.shared.metrics.hints(0);
    }

    /// Keeps the pools that were seen in this pass. Those of namespaces that cannot be seen are not gone.
    pub(super) fn forget_all_but(&mut self, pass: u64, unseen: &BTreeSet<String>) {
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

    /// Writes what the decision asks for, its memory first but for a raise. Calm where there was nothing to write.
    fn act(
        &mut self,
        candidate: &Candidate,
        decision: Option<&Decision>,
        companions: &[PoolName],
        now: Timestamp,
    ) -> Next {
        let view = candidate.view();
        let Some(state) = self.pools.get_mut(&view.uid) else { return Next::Calm };
        if decision.is_some_and(|decision| decision.intents.is_empty()) {
            state.refusal = None;
        }
        if state.quiet.as_ref().is_some_and(|quiet| quiet.is_still_so(candidate, state, decision, companions)) {
            show::reading_age(&self.shared.metrics, state, candidate, now);
            return Next::Calm;
        }
        state.quiet = None;
        let refusal = state.refusal.as_deref().or(state.sign_refusal.as_deref());
        let stood = state.status().get("conditions");
        let generations = &candidate.facts.generations;
        let verdict = verdict::of(&candidate.plan, &candidate.seen, decision, companions, refusal, generations, stood);
        show::pool(&self.shared.metrics, candidate, decision, &verdict, now);
        let is_passive = self.shared.config.is_dry_run || candidate.valid.spec.mode == Mode::Observe;
        let memory = decision.map_or(&candidate.memory, |decision| &decision.memory);
        let status = pool_status::build(&NewStatus {
            facts: &candidate.facts,
            before: state.status(),
            untold: state.untold.as_ref(),
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
            state.memory = memory.clone();
            state.now_stands(status, memory.clone());
            return Next::Calm;
        }
        let acts = decision.filter(|_| !is_passive).map(|decision| acts(decision, candidate)).unwrap_or_default();
        let has_changed = state.is_status_unsure || status != *state.status();
        if let Some(next) = self.puts_off(candidate, !acts.is_empty(), has_changed) {
            // A write in flight may still leave another status.
            let is_quiet = next == Next::Calm && self.writers.is_free(&view.uid);
            if let Some(state) = self.pools.get_mut(&view.uid).filter(|_| is_quiet) {
                state.quiet = Some(Quiet::of(candidate, state, decision, companions));
            }
            return next;
        }
        let Some(state) = self.pools.get(&view.uid) else { return Next::Calm };
        let urgency = if acts.is_empty() { Urgency::Report } else { Urgency::Act };
        let (has_failed, at) = (self.writers.has_failed(&view.uid), self.shared.clock.mono());
        let is_raise = |decision: &Decision| !acts.is_empty() && state.may_record_after(decision, has_failed, at);
        let record = if decision.is_some_and(is_raise) {
            Record::After { decided: status.get("lastDecision").cloned() }
        } else {
            let about = reference(&view.name, &view.uid);
            let mut notices = announce::news(&about, state.status(), &verdict.conditions);
            notices.extend(decision.into_iter().flat_map(|it| announce::found(&about, it, &candidate.facts)));
            Record::First { status: has_changed.then_some(status), notices }
        };
        self.writers.begin(Work {
            pool: view.name.clone(),
            uid: view.uid.clone(),
            record,
            memory: memory.clone(),
            acts,
            reason: verdict.decided,
            urgency,
        });
        Next::Soon
    }

    /// When to look again at a pool of which nothing is to be written now, calm where its status stands already; `None`: it is.
    fn puts_off(&mut self, candidate: &Candidate, has_acts: bool, has_changed: bool) -> Option<Next> {
        let uid = &candidate.view().uid;
        let state = self.pools.get_mut(uid)?;
        let at = self.shared.clock.mono();
        let is_free = self.writers.is_free(uid);
        let hinted_at = self.hints.changed_at(&candidate.seen.key);
        if has_acts {
            let told_at = hinted_at.and_then(|_| self.hints.came_at());
            let waiting = Waiting { acted_at: state.acted_at, told_at, since: state.act_waits_since };
            let wait = self.turns.wait(&waiting, at);
            state.act_waits_since = wait.and_then(|wait| wait.since);
            if let Some(wait) = wait {
                return Some(Next::At(wait.until));
            }
            if !is_free {
                return Some(self.writers.act_waits(uid).map_or(Next::Soon, Next::At));
            }
            state.acted_at = Some(at);
            self.turns.begins(at);
            state.report_rests_since = None;
            return None;
        }
        state.act_waits_since = None;
        // Before the first poll has ended there is nothing to report that the last leader did not know better.
        let is_early =
            candidate.seen.reading.trouble == Some(Trouble::NotRead) && state.status().get("conditions").is_some();
        let (written_at, rested_since) = (state.status_written_at, state.report_rests_since);
        let is_overdue = state.is_record_overdue(at);
        let report = Report::of(&News { has_changed, is_overdue, is_early, written_at, hinted_at, rested_since }, at);
        if report == Report::Due && !is_free {
            // It stays due.
            return Some(Next::Soon);
        }
        state.report_rests_since = report.rests_since();
        match report {
            Report::NoNews => Some(Next::Calm),
            Report::Rests { until, .. } => Some(Next::At(until)),
            Report::Later => Some(Next::Soon),
            Report::Due => None,
        }
    }

    /// A pool that is not valid: everything that is wrong with it, and nothing is touched.
    fn report_broken(&mut self, facts: &PoolFacts, now: Timestamp) {
        let view = &facts.view;
        let (Err(problems), Some(state)) = (&view.pool, self.pools.get_mut(&view.uid)) else { return };
        let conditions = [verdict::invalid(problems)];
        show::broken(&self.shared.metrics, facts);
        let status = pool_status::build(&NewStatus {
            facts,
            before: state.status(),
            untold: state.untold.as_ref(),
            conditions: &conditions,
            memory: &state.memory,
            decision: None,
            reading: None,
            identity: state.identity(),
            // A word that comes while the pool is broken is heard when it is whole again.
            resolved: pool_status::resolved(state.status()),
            now,
        });
        if status == *state.status() || self.shared.config.is_dry_run || !self.writers.is_free(&view.uid) {
            return;
        }
        let about = reference(&view.name, &view.uid);
        let notices = announce::news(&about, state.status(), &conditions);
        self.writers.begin(Work {
            pool: view.name.clone(),
            uid: view.uid.clone(),
            record: Record::First { status: Some(status), notices },
            memory: state.memory.clone(),
            acts: Vec::new(),
            reason: String::new(),
            urgency: Urgency::Report,
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
