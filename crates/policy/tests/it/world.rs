//! A tiny world around the policy: jobs, agents, pods that take their time, readings that lag, and a script of accidents.
//!
//! One pass is five seconds of true time. Deployments take the worst pods they may: those that are
//! not ready first, as a `ReplicaSet` does, then by what is written on them, then busy ones.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use kitepool_policy::{
    Standing, decide,
    decision::{Decision, Intent},
    hints::Hints,
    memory::Memory,
    observation::{
        AgentPod, AgentState, Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Rank,
        Reading, Sign, Trouble,
    },
    spec::{Pause, PoolSpec},
    units::{Agents, Jobs, Pods},
    unsatisfiable::Watch,
    violations::{History, Tick},
};

use crate::build::{agent, at};

pub(crate) const PASS_SECS: i64 = 5;
/// A poll every ten seconds, as Buildkite asks for.
const PASSES_PER_POLL: u32 = 2;
/// What goes along with no act is recorded once in so many.
const PASSES_PER_REPORT: u32 = 2;

/// What happens before a pass.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// Jobs become runnable, each running for so many passes; events tell of them unless they are lost.
    Jobs { count: u32, passes: u32, events_lost: bool },
    /// Jobs are cancelled before they start.
    Cancelled { count: usize },
    /// Readings fail for so many passes.
    Trouble { passes: u32 },
    /// No write gets through for so many passes.
    WritesFail { passes: u32 },
    /// The controller ends, and the next one knows what is recorded.
    Ends,
    /// Our clock steps by so many seconds, mostly back.
    ClockSteps { seconds: i64 },
    /// Somebody changes the replicas of a pool's newest generation.
    Foreign { pool: usize, replicas: u32 },
    /// A pool's definition changes.
    Redefined { pool: usize },
    /// A pool's definition breaks, or is mended.
    Broken { pool: usize, broken: bool },
    /// A person pauses a pool, or lets it go on.
    Paused { pool: usize, pause: Pause },
    /// Pods of a pool's newest generation stop becoming ready, or go on.
    CrashLoop { pool: usize, looping: bool },
    /// Agents in a pool's newest generation do not answer any more, or do again.
    Muted { pool: usize, muted: bool },
    /// A pool's newest generation takes others than the marked ones, or no longer does.
    Hostile { pool: usize, hostile: bool },
    /// Somebody evicts a pod of a pool's newest generation.
    Evicted { pool: usize },
}

#[derive(Debug)]
struct Pod {
    number: u32,
    age: u32,
    made_at: Timestamp,
    agents: Vec<Option<u32>>,
    is_draining: bool,
    sign: Sign,
    /// What its agents said last, and since when.
    said: Option<(AgentState, Timestamp)>,
}

impl Pod {
    fn is_busy(&self) -> bool {
        self.agents.iter().any(Option::is_some)
    }
}

#[derive(Debug)]
struct Deployment {
    name: String,
    replicas: u32,
    /// The pass in which we last scaled it, and the one in which somebody else last did.
    scaled_in: Option<u32>,
    touched_in: Option<u32>,
    pods: Vec<Pod>,
    is_looping: bool,
    is_muted: bool,
    is_hostile: bool,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub spec: PoolSpec,
    pub memory: Memory,
    /// As it stands in the status.
    recorded: Memory,
    deployments: Vec<Deployment>,
    generation: u32,
    is_broken: bool,
}

impl Place {
    fn wanted(&self) -> String {
        format!("{}-{}", self.spec.name.name, self.generation)
    }

    pub(crate) fn replicas(&self) -> u32 {
        self.deployments.iter().map(|deployment| deployment.replicas).sum()
    }

    /// Whether Deployments of other generations are left.
    pub(crate) fn is_rolling(&self) -> bool {
        self.deployments.iter().any(|deployment| deployment.name != self.wanted())
    }
}

pub(crate) type Policy = Box<dyn Fn(&QueueObservation, Timestamp) -> Vec<Decision>>;

pub(crate) struct World {
    /// The right one, unless a test puts another in its place.
    pub policy: Policy,
    pub places: Vec<Place>,
    pub history: History,
    /// Agents are asked in each of so many passes.
    pub asks_every: u32,
    /// Passes a pod takes to become ready.
    starts_in: u32,
    /// Passes by which a reading's numbers are late, at most two.
    lag: usize,
    pass: u32,
    clock_off: i64,
    queued: VecDeque<(u32, u32)>,
    jobs: u32,
    /// Pods so far.
    made: u32,
    hints: Vec<Hint>,
    loads: VecDeque<Load>,
    reading: Reading,
    watch: Watch,
    trouble_for: u32,
    writes_fail_for: u32,
    /// The most agents with a job, draining ones left out, for which a decision left no place.
    pub homeless: u32,
}

impl World {
    pub(crate) fn new(specs: Vec<PoolSpec>, starts_in: u32, lag: usize) -> Self {
        let place = |spec| Place {
            spec,
            memory: Memory::default(),
            recorded: Memory::default(),
            deployments: Vec::new(),
            generation: 0,
            is_broken: false,
        };
        Self {
            policy: Box::new(decide),
            places: specs.into_iter().map(place).collect(),
            history: History::default(),
            asks_every: 1,
            starts_in,
            lag,
            pass: 0,
            clock_off: 0,
            queued: VecDeque::new(),
            jobs: 0,
            made: 0,
            hints: Vec::new(),
            loads: VecDeque::new(),
            reading: Reading { last_good: None, trouble: Some(Trouble::NotRead) },
            watch: Watch::default(),
            trouble_for: 0,
            writes_fail_for: 0,
            homeless: 0,
        }
    }

    fn true_time(&self) -> Timestamp {
        at(i64::from(self.pass) * PASS_SECS)
    }

    fn our_time(&self) -> Timestamp {
        at(i64::from(self.pass) * PASS_SECS + self.clock_off)
    }

    /// One pass: the world goes on, and the policy decides about it.
    pub(crate) fn pass(&mut self, happening: Option<&Happening>) {
        self.pass += 1;
        if let Some(happening) = happening {
            self.happen(happening);
        }
        self.run_deployments();
        self.run_jobs();
        self.read();
        let (now, queue) = (self.our_time(), self.observe());
        let decisions = (self.policy)(&queue, now);
        self.homeless = self.homeless.max(self.staying_busy().saturating_sub(places_in(&queue, &decisions)));
        self.act(&decisions);
        self.history.ticks.push(Tick { now, queue, decisions, truth: None });
    }

    fn happen(&mut self, happening: &Happening) {
        let places = self.places.len();
        let now = self.true_time();
        let stored_at = self.our_time();
        match *happening {
            Happening::Jobs { count, passes, events_lost } => {
                for _ in 0..count {
                    self.jobs += 1;
                    self.queued.push_back((self.jobs, passes));
                    if !events_lost {
                        let job = format!("job-{}", self.jobs);
                        self.hints.push(Hint { job, runnable_at: now, stored_at, rules: Vec::new() });
                    }
                }
            }
            Happening::Cancelled { count } => self.queued.truncate(self.queued.len().saturating_sub(count)),
            Happening::Trouble { passes } => self.trouble_for = passes,
            Happening::WritesFail { passes } => self.writes_fail_for = passes,
            Happening::Ends => {
                for place in &mut self.places {
                    place.memory = place.recorded.clone();
                }
            }
            Happening::ClockSteps { seconds } => self.clock_off += seconds,
            Happening::Foreign { pool, replicas } => {
                if let Some(newest) = self.places[pool % places].deployments.last_mut() {
                    if newest.replicas != replicas {
                        newest.touched_in = Some(self.pass);
                    }
                    newest.replicas = replicas;
                }
            }
            Happening::Redefined { pool } => self.places[pool % places].generation += 1,
            Happening::Broken { pool, broken } => self.places[pool % places].is_broken = broken,
            Happening::Paused { pool, pause } => self.places[pool % places].spec.pause = pause,
            Happening::CrashLoop { pool, looping } => {
                if let Some(newest) = self.places[pool % places].deployments.last_mut() {
                    newest.is_looping = looping;
                }
            }
            Happening::Muted { pool, muted } => {
                if let Some(newest) = self.places[pool % places].deployments.last_mut() {
                    newest.is_muted = muted;
                }
            }
            Happening::Hostile { pool, hostile } => {
                if let Some(newest) = self.places[pool % places].deployments.last_mut() {
                    newest.is_hostile = hostile;
                }
            }
            Happening::Evicted { pool } => {
                let newest = self.places[pool % places].deployments.last_mut();
                let living = newest.into_iter().flat_map(|newest| &mut newest.pods).find(|pod| !pod.is_draining);
                if let Some(pod) = living {
                    pod.is_draining = true;
                }
            }
        }
    }

    /// A script's end: everything that was broken is mended, and a person settles what is contested.
    pub(crate) fn heal(&mut self) {
        (self.trouble_for, self.writes_fail_for) = (0, 0);
        for place in &mut self.places {
            place.is_broken = false;
            place.spec.pause = Pause::None;
            place.memory.settle_contest();
            for deployment in &mut place.deployments {
                (deployment.is_looping, deployment.is_muted, deployment.is_hostile) = (false, false, false);
            }
        }
    }

    fn run_deployments(&mut self) {
        let (starts_in, made_at) = (self.starts_in, self.our_time());
        for place in &mut self.places {
            let agents = usize::try_from(place.spec.agents_per_pod.get()).unwrap();
            for deployment in &mut place.deployments {
                for pod in &mut deployment.pods {
                    pod.age += 1;
                }
                deployment.pods.retain(|pod| !pod.is_draining || pod.is_busy());
                let living = |pods: &[Pod]| u32::try_from(pods.iter().filter(|pod| !pod.is_draining).count()).unwrap();
                while living(&deployment.pods) < deployment.replicas {
                    self.made += 1;
                    deployment.pods.push(Pod {
                        number: self.made,
                        age: 0,
                        made_at,
                        agents: vec![None; agents],
                        is_draining: false,
                        sign: Sign::Plain,
                        said: None,
                    });
                }
                while living(&deployment.pods) > deployment.replicas {
                    let (looping, hostile) = (deployment.is_looping, deployment.is_hostile);
                    let rank = |pod: &&mut Pod| {
                        let is_cheap = (pod.sign == Sign::Leaving, pod.sign != Sign::Busy);
                        let by_sign = if hostile { (!is_cheap.0, false) } else { is_cheap };
                        (pod.age < starts_in || looping, by_sign, pod.is_busy(), u32::MAX - pod.age)
                    };
                    let Some(victim) = deployment.pods.iter_mut().filter(|pod| !pod.is_draining).max_by_key(rank)
                    else {
                        break;
                    };
                    victim.is_draining = true;
                }
            }
        }
    }

    fn run_jobs(&mut self) {
        let starts_in = self.starts_in;
        let deployments = self.places.iter_mut().flat_map(|place| &mut place.deployments);
        for deployment in deployments {
            let is_looping = deployment.is_looping;
            for pod in &mut deployment.pods {
                for agent in &mut pod.agents {
                    *agent = agent.and_then(|left| left.checked_sub(1)).filter(|left| *left > 0);
                    if agent.is_none() && !pod.is_draining && pod.age >= starts_in && !is_looping {
                        *agent = self.queued.pop_front().map(|(_, passes)| passes);
                    }
                }
            }
        }
    }

    fn staying_busy(&self) -> u32 {
        let deployments = self.places.iter().flat_map(|place| &place.deployments);
        let staying = deployments.flat_map(|deployment| &deployment.pods).filter(|pod| !pod.is_draining);
        u32::try_from(staying.flat_map(|pod| &pod.agents).flatten().count()).unwrap()
    }

    fn load(&self) -> Load {
        let (mut running, mut idle) = (0, 0);
        for deployment in self.places.iter().flat_map(|place| &place.deployments) {
            for pod in &deployment.pods {
                let is_ready = pod.age >= self.starts_in && !deployment.is_looping;
                for agent in &pod.agents {
                    running += u32::from(agent.is_some());
                    idle += u32::from(agent.is_none() && is_ready && !pod.is_draining);
                }
            }
        }
        Load {
            scheduled: Jobs(u32::try_from(self.queued.len()).unwrap()),
            running: Jobs(running),
            waiting: Jobs(0),
            idle: Agents(idle),
            busy: Agents(running),
        }
    }

    /// Numbers of up to ten seconds ago, twice in ten seconds counted once.
    fn read(&mut self) {
        self.loads.push_front(self.load());
        self.loads.truncate(self.lag + 1);
        (self.trouble_for, self.writes_fail_for) =
            (self.trouble_for.saturating_sub(1), self.writes_fail_for.saturating_sub(1));
        if !self.pass.is_multiple_of(PASSES_PER_POLL) {
            return;
        }
        if self.trouble_for > 0 {
            self.reading.trouble = Some(Trouble::ServerError);
        } else if let Some(load) = self.loads.back() {
            let good = GoodReading { load: *load, date: self.true_time(), at: self.our_time() };
            self.reading = Reading { last_good: Some(good), trouble: None };
        }
    }

    fn observe(&mut self) -> QueueObservation {
        let now = self.our_time();
        let asked_at = at(i64::from(self.pass - self.pass % self.asks_every) * PASS_SECS + self.clock_off);
        for place in &mut self.places {
            for deployment in &mut place.deployments {
                if asked_at == now {
                    deployment.ask(self.starts_in, now);
                }
            }
        }
        let mut queue = QueueObservation {
            queue: "linux".to_owned(),
            reading: self.reading,
            hints: Hints::default(),
            standing: Agents(0),
            pools: self.places.iter().map(|place| observed(place, self.starts_in, asked_at)).collect(),
            watch: Watch::default(),
        };
        let lives = |hint: &Hint| {
            !matches!(kitepool_policy::standing_of(hint, &queue, now), Standing::Settled | Standing::Expired)
        };
        self.hints.retain(lives);
        queue.hints = self.hints.iter().cloned().collect();
        self.watch.look(&queue);
        queue.watch.clone_from(&self.watch);
        queue
    }

    fn act(&mut self, decisions: &[Decision]) {
        let fails = self.writes_fail_for > 0;
        for decision in decisions {
            let place = self.places.iter_mut().find(|place| place.spec.name == decision.pool).unwrap();
            let is_recorded_first = !decision.intents.is_empty() && !decision.is_plain_raise(&place.recorded);
            if !fails && (is_recorded_first || self.pass.is_multiple_of(PASSES_PER_REPORT)) {
                place.recorded = decision.memory.clone();
            }
            place.memory = decision.memory.clone();
            for change in &decision.foreign {
                let is_theirs = |of: &Deployment| of.name == change.generation && of.touched_in.is_some();
                assert!(place.deployments.iter().any(is_theirs), "{change:?} is our own doing");
            }
            let pods = place.deployments.iter_mut().flat_map(|deployment| &mut deployment.pods);
            for pod in pods.filter(|_| !fails) {
                if let Some(change) = decision.signs.iter().find(|change| change.uid == uid(pod.number)) {
                    pod.sign = change.sign;
                }
            }
            for intent in decision.intents.iter().filter(|_| !fails) {
                match intent {
                    Intent::Create { generation, replicas } => place.deployments.push(Deployment {
                        name: generation.clone(),
                        replicas: replicas.0,
                        scaled_in: None,
                        touched_in: None,
                        pods: Vec::new(),
                        is_looping: false,
                        is_muted: false,
                        is_hostile: false,
                    }),
                    Intent::Scale { generation, from, to } => {
                        let found = place.deployments.iter_mut().find(|found| found.name == *generation).unwrap();
                        assert_eq!(found.replicas, from.0, "the precondition of the write");
                        found.replicas = to.0;
                        found.scaled_in = Some(self.pass);
                    }
                    Intent::Delete { generation } => {
                        let index = place.deployments.iter().position(|found| found.name == *generation).unwrap();
                        assert!(place.deployments.remove(index).pods.is_empty(), "deleted under its pods");
                    }
                }
            }
        }
    }

    /// Jobs that are queued or run.
    pub(crate) fn unfinished(&self) -> u32 {
        let load = self.load();
        load.scheduled.0 + load.running.0
    }

    pub(crate) fn memories(&self) -> BTreeMap<String, Memory> {
        self.places.iter().map(|place| (place.spec.name.to_string(), place.memory.clone())).collect()
    }
}

/// Agents in the pods that are left after the decisions.
fn places_in(queue: &QueueObservation, decisions: &[Decision]) -> u32 {
    let agents = |decision: &Decision| {
        let pool = queue.pools.iter().find(|pool| pool.spec.name == decision.pool).unwrap();
        pool.spec.agents_per_pod.agents_in(decision.target).0
    };
    decisions.iter().map(agents).sum()
}

fn name_of(pod: u32) -> String {
    format!("pod-{pod:05}")
}

fn uid(pod: u32) -> String {
    agent(&name_of(pod)).uid
}

impl Deployment {
    /// Asks every pod.
    fn ask(&mut self, starts_in: u32, now: Timestamp) {
        let (is_looping, is_muted) = (self.is_looping, self.is_muted);
        for pod in &mut self.pods {
            let busy = u32::try_from(pod.agents.iter().flatten().count()).unwrap();
            let state = match busy {
                _ if is_muted => AgentState::Unknown,
                0 if pod.age < starts_in || is_looping => AgentState::Starting,
                0 => AgentState::Idle,
                busy => AgentState::Busy(Agents(busy)),
            };
            if pod.said.is_none_or(|(before, _)| before != state) {
                pod.said = Some((state, now));
            }
        }
    }
}

fn observed(place: &Place, starts_in: u32, asked_at: Timestamp) -> PoolObservation {
    let generation = |deployment: &Deployment| {
        let count = |is_so: &dyn Fn(&Pod) -> bool| {
            Pods(u32::try_from(deployment.pods.iter().filter(|pod| is_so(pod)).count()).unwrap())
        };
        let is_ready = |pod: &Pod| pod.age >= starts_in && !deployment.is_looping;
        let pods = PodCounts {
            unready: count(&|pod| !pod.is_draining && !is_ready(pod)),
            ready: count(&|pod| !pod.is_draining && is_ready(pod)),
            draining: count(&|pod| pod.is_draining),
            failing: count(&|pod| !pod.is_draining && deployment.is_looping && pod.age > 1),
            ..PodCounts::default()
        };
        let listed = |pod: &Pod| {
            let (state, since) = pod.said.unwrap_or((AgentState::Unknown, asked_at));
            let is_chosen = place.memory.rounds.values().any(|round| round.names(&uid(pod.number)));
            AgentPod {
                state,
                since,
                asked_at: is_chosen.then_some(asked_at),
                rank: if is_ready(pod) { Rank::Ready } else { Rank::Unready },
                is_draining: pod.is_draining,
                created_at: pod.made_at,
                sign: pod.sign,
                ..agent(&name_of(pod.number))
            }
        };
        Generation {
            name: deployment.name.clone(),
            adopted: false,
            replicas: Pods(deployment.replicas),
            // A pass begins with what others do, and ends with what we do.
            scaled_by_us: deployment.scaled_in.is_some() && deployment.scaled_in >= deployment.touched_in,
            settled: pods.living() == Pods(deployment.replicas),
            pods,
            agents: deployment.pods.iter().map(listed).collect(),
        }
    };
    PoolObservation {
        spec: place.spec.clone(),
        memory: place.memory.clone(),
        generations: place.deployments.iter().map(generation).collect(),
        wanted_generation: (!place.is_broken).then(|| place.wanted()),
    }
}
