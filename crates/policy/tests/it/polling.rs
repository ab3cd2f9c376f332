//! A simulated queue in true seconds: jobs that come and run, agents that ask for them every now and then, pods that take their
//! time, readings that lag, and the policy that decides about it all. Some jobs are for nobody.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use kitepool_policy::{
    decide,
    decision::{Decision, Intent},
    hints::Hints,
    memory::Memory,
    observation::{
        AgentPod, AgentState, Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Rank,
        Reading, Sign,
    },
    spec::PoolSpec,
    units::{Agents, Jobs, Pods},
    unsatisfiable::Watch,
    violations::{History, Tick},
};

use crate::build::{agent, at};

/// How a kind of jobs comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrivals {
    /// By chance, so many in a hundred seconds.
    Chance(u32),
    /// So many at once, each time that so many seconds are over.
    Every { seconds: u32, count: u32 },
    /// So many at this second.
    Once { second: u32, count: u32 },
}

/// Who may run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Anybody,
    /// Agents of the pool with this number.
    Pool(usize),
    /// Nobody's tags.
    Nobody,
    /// Anybody, one at a time.
    Turns,
}

/// How long a job runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runs {
    Exactly(u32),
    /// By chance, so many seconds in the mean.
    About(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    pub arrivals: Arrivals,
    pub runs: Runs,
    pub needs: Needs,
}

/// What makes one queue different from another.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub pools: Vec<PoolSpec>,
    pub streams: Vec<Stream>,
    /// Seconds that a pod takes to become ready: between the first number and the second.
    pub starts_in: (u32, u32),
    /// Seconds by which the numbers of a reading are late, ten at most.
    pub lag: usize,
    /// Seconds for which Buildkite keeps the numbers before it counts again.
    pub grain: u32,
    /// Seconds between two readings.
    pub poll: u32,
    /// Seconds in which Buildkite hands out no job.
    pub paused: (u32, u32),
    /// Whether events tell of jobs.
    pub tells: bool,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    runs: u32,
    needs: Needs,
}

#[derive(Debug, Clone, Copy)]
struct Agent {
    asks_at: u32,
    job: Option<(u32, Needs)>,
}

#[derive(Debug)]
struct Pod {
    ready_at: u32,
    agents: Vec<Agent>,
    is_draining: bool,
    number: u32,
    made_at: u32,
    sign: Sign,
}

impl Pod {
    fn is_busy(&self) -> bool {
        self.agents.iter().any(|agent| agent.job.is_some())
    }
}

#[derive(Debug)]
struct Place {
    spec: PoolSpec,
    memory: Memory,
    replicas: Option<u32>,
    pods: Vec<Pod>,
}

/// The queue as it stood at a tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub second: u32,
    /// Jobs that the policy took for unsatisfiable.
    pub unsatisfiable: u32,
    pub scheduled: u32,
    pub running: u32,
    /// Replicas asked for.
    pub replicas: u32,
}

pub(crate) struct Polling {
    setting: Setting,
    places: Vec<Place>,
    second: u32,
    random: u64,
    queued: VecDeque<Job>,
    jobs: u32,
    /// Pods so far.
    made: u32,
    hints: Vec<Hint>,
    loads: VecDeque<Load>,
    reading: Reading,
    pub watch: Watch,
    pub shown: Vec<Shown>,
    pub history: History,
    /// Writes of memories: how often any of them changed.
    pub memory_changes: u32,
}

/// An idle agent asks again after twice this at the latest.
const PING: u32 = 10;
const TICK: u32 = 5;

impl Polling {
    pub(crate) fn new(setting: Setting) -> Self {
        let place =
            |spec: &PoolSpec| Place { spec: spec.clone(), memory: Memory::default(), replicas: None, pods: Vec::new() };
        Self {
            places: setting.pools.iter().map(place).collect(),
            random: setting.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            setting,
            second: 0,
            queued: VecDeque::new(),
            jobs: 0,
            made: 0,
            hints: Vec::new(),
            loads: VecDeque::new(),
            reading: Reading { last_good: None, trouble: None },
            watch: Watch::default(),
            shown: Vec::new(),
            history: History::default(),
            memory_changes: 0,
        }
    }

    /// Xorshift: a test must repeat.
    fn draw(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from((self.random >> 16) % u64::from(below.max(1))).unwrap()
    }

    fn now(&self) -> Timestamp {
        at(i64::from(self.second))
    }

    pub(crate) fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.second += 1;
            self.arrive();
            self.work();
            self.read();
            if self.second.is_multiple_of(TICK) {
                self.tick();
            }
        }
    }

    /// The controller ends, and another one begins.
    pub(crate) fn restart(&mut self) {
        self.watch = Watch::default();
    }

    /// Somebody resumes the queue.
    pub(crate) fn resume(&mut self) {
        self.setting.paused = (0, 0);
    }

    pub(crate) fn add_stream(&mut self, stream: Stream) {
        self.setting.streams.push(stream);
    }

    pub(crate) fn latest(&self) -> Shown {
        *self.shown.last().unwrap()
    }

    fn arrive(&mut self) {
        for index in 0..self.setting.streams.len() {
            let Stream { arrivals, runs, needs } = self.setting.streams[index];
            let count = match arrivals {
                Arrivals::Chance(in_hundred) => (0..10).filter(|_| self.draw(1_000) < in_hundred).count(),
                Arrivals::Every { seconds, count } if self.second.is_multiple_of(seconds) => count.try_into().unwrap(),
                Arrivals::Once { second, count } if self.second == second => count.try_into().unwrap(),
                Arrivals::Every { .. } | Arrivals::Once { .. } => 0,
            };
            for _ in 0..count {
                self.jobs += 1;
                let runs = match runs {
                    Runs::Exactly(seconds) => seconds,
                    // The sum of two uniform ones: never nothing, sometimes much.
                    Runs::About(seconds) => 1 + self.draw(seconds) + self.draw(seconds),
                };
                self.queued.push_back(Job { runs, needs });
                if self.setting.tells {
                    let rules = if needs == Needs::Nobody { vec!["gpu=true".to_owned()] } else { Vec::new() };
                    let (job, now) = (format!("job-{}", self.jobs), self.now());
                    self.hints.push(Hint { job, runnable_at: now, stored_at: now, rules });
                }
            }
        }
    }

    fn work(&mut self) {
        let second = self.second;
        let is_paused = (self.setting.paused.0..self.setting.paused.1).contains(&second);
        for number in 0..self.places.len() {
            self.keep_pods(number);
            let mut pods = std::mem::take(&mut self.places[number].pods);
            for pod in &mut pods {
                for agent in &mut pod.agents {
                    if agent.job.is_some_and(|(until, _)| until <= second) {
                        (agent.job, agent.asks_at) = (None, second + self.draw(PING));
                    }
                }
            }
            self.places[number].pods = pods;
        }
        let mut is_turn_free = !self
            .places
            .iter()
            .flat_map(|place| &place.pods)
            .flat_map(|pod| &pod.agents)
            .any(|agent| matches!(agent.job, Some((_, Needs::Turns))));
        for number in 0..self.places.len() {
            let mut pods = std::mem::take(&mut self.places[number].pods);
            for pod in pods.iter_mut().filter(|pod| !pod.is_draining && pod.ready_at <= second) {
                for agent in pod.agents.iter_mut().filter(|agent| agent.job.is_none() && agent.asks_at <= second) {
                    agent.asks_at = second + 1 + self.draw(2 * PING - 1);
                    let fits = |job: &Job| match job.needs {
                        Needs::Anybody => true,
                        Needs::Pool(pool) => pool == number,
                        Needs::Nobody => false,
                        Needs::Turns => is_turn_free,
                    };
                    if let Some(index) = self.queued.iter().position(fits).filter(|_| !is_paused)
                        && let Some(job) = self.queued.remove(index)
                    {
                        is_turn_free &= job.needs != Needs::Turns;
                        agent.job = Some((second + job.runs, job.needs));
                    }
                }
            }
            pods.retain(|pod| !pod.is_draining || pod.is_busy());
            self.places[number].pods = pods;
        }
    }

    /// A Deployment: as many pods as are asked for, those that are not ready first to go, then the youngest.
    fn keep_pods(&mut self, number: usize) {
        let (second, (least, most)) = (self.second, self.setting.starts_in);
        let per_pod = self.places[number].spec.agents_per_pod.get();
        let replicas = usize::try_from(self.places[number].replicas.unwrap_or(0)).unwrap();
        let living = |place: &Place| place.pods.iter().filter(|pod| !pod.is_draining).count();
        while living(&self.places[number]) < replicas {
            let ready_at = second + least + self.draw(most - least + 1);
            let agents = (0..per_pod).map(|_| Agent { asks_at: ready_at + self.draw(PING), job: None }).collect();
            self.made += 1;
            let (number_of_pod, made_at) = (self.made, second);
            let pod = Pod { ready_at, agents, is_draining: false, number: number_of_pod, made_at, sign: Sign::Plain };
            self.places[number].pods.push(pod);
        }
        while living(&self.places[number]) > replicas {
            let pods = self.places[number].pods.iter_mut().filter(|pod| !pod.is_draining);
            let Some(victim) = pods.max_by_key(|pod| {
                let is_cheap = (pod.sign == Sign::Leaving, pod.sign != Sign::Busy);
                (pod.ready_at > second, is_cheap, pod.ready_at)
            }) else {
                return;
            };
            victim.is_draining = true;
        }
    }

    fn load(&self) -> Load {
        let connected = self
            .places
            .iter()
            .flat_map(|place| &place.pods)
            .filter(|pod| pod.ready_at <= self.second)
            .flat_map(|pod| &pod.agents);
        let (busy, idle): (Vec<&Agent>, Vec<&Agent>) = connected.partition(|agent| agent.job.is_some());
        let busy = u32::try_from(busy.len()).unwrap();
        Load {
            scheduled: Jobs(u32::try_from(self.queued.len()).unwrap()),
            running: Jobs(busy),
            waiting: Jobs(0),
            idle: Agents(u32::try_from(idle.len()).unwrap()),
            busy: Agents(busy),
        }
    }

    fn read(&mut self) {
        if self.second.is_multiple_of(self.setting.grain) || self.loads.is_empty() {
            self.loads.push_front(self.load());
        } else {
            let again = self.loads[0];
            self.loads.push_front(again);
        }
        self.loads.truncate(self.setting.lag + 1);
        // Two seconds off the ticks: most decisions are made by a reading that was seen before.
        if self.second % self.setting.poll == 3 {
            let good = GoodReading { load: *self.loads.back().unwrap(), date: self.now(), at: self.now() };
            self.reading = Reading { last_good: Some(good), trouble: None };
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let mut queue = QueueObservation {
            queue: "linux".to_owned(),
            reading: self.reading,
            hints: Hints::default(),
            standing: Agents(0),
            pools: self.places.iter().map(|place| self.observe(place)).collect(),
            watch: Watch::default(),
        };
        let lives = |hint: &Hint| {
            use kitepool_policy::Standing::{Expired, Settled};
            !matches!(kitepool_policy::standing_of(hint, &queue, now), Settled | Expired)
        };
        self.hints.retain(lives);
        queue.hints = self.hints.iter().cloned().collect();
        self.watch.look(&queue);
        queue.watch.clone_from(&self.watch);
        let decisions = decide(&queue, now);
        self.act(&decisions);
        let load = self.load();
        self.shown.push(Shown {
            second: self.second,
            unsatisfiable: decisions[0].memory.unsatisfiable.map_or(0, |found| found.jobs.0),
            scheduled: load.scheduled.0,
            running: load.running.0,
            replicas: decisions.iter().map(|decision| decision.target.0).sum(),
        });
        self.history.ticks.push(Tick { now, queue, decisions, truth: None });
    }

    fn observe(&self, place: &Place) -> PoolObservation {
        let count = |is_so: &dyn Fn(&Pod) -> bool| {
            Pods(u32::try_from(place.pods.iter().filter(|pod| is_so(pod)).count()).unwrap())
        };
        let is_ready = |pod: &Pod| pod.ready_at <= self.second;
        let pods = PodCounts {
            unready: count(&|pod| !pod.is_draining && !is_ready(pod)),
            ready: count(&|pod| !pod.is_draining && is_ready(pod)),
            draining: count(&|pod| pod.is_draining),
            ..PodCounts::default()
        };
        let generation = |replicas| Generation {
            name: "a".to_owned(),
            adopted: false,
            replicas: Pods(replicas),
            scaled_by_us: false,
            settled: pods.living() == Pods(replicas),
            pods,
            agents: place.pods.iter().map(|pod| self.listed(place, pod)).collect(),
        };
        PoolObservation {
            spec: place.spec.clone(),
            memory: place.memory.clone(),
            generations: place.replicas.map(generation).into_iter().collect(),
            wanted_generation: Some("a".to_owned()),
        }
    }

    /// The pod as its agents show it, asked at this moment.
    fn listed(&self, place: &Place, pod: &Pod) -> AgentPod {
        let busy = u32::try_from(pod.agents.iter().filter(|agent| agent.job.is_some()).count()).unwrap();
        let (state, rank) = match busy {
            _ if pod.ready_at > self.second => (AgentState::Starting, Rank::Unready),
            0 => (AgentState::Idle, Rank::Ready),
            busy => (AgentState::Busy(Agents(busy)), Rank::Ready),
        };
        let name = format!("pod-{:05}", pod.number);
        let is_chosen = place.memory.rounds.values().any(|round| round.names(&format!("uid-{name}")));
        AgentPod {
            state,
            rank,
            since: self.now() - SignedDuration::from_secs(i64::from(pod.ready_at % 50)),
            asked_at: is_chosen.then(|| self.now()),
            is_draining: pod.is_draining,
            created_at: at(i64::from(pod.made_at)),
            sign: pod.sign,
            ..agent(&name)
        }
    }

    fn act(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            let place = self.places.iter_mut().find(|place| place.spec.name == decision.pool).unwrap();
            self.memory_changes += u32::from(place.memory != decision.memory);
            place.memory = decision.memory.clone();
            for change in &decision.signs {
                let named = |pod: &&mut Pod| format!("uid-pod-{:05}", pod.number) == change.uid;
                if let Some(pod) = place.pods.iter_mut().find(named) {
                    pod.sign = change.sign;
                }
            }
            for intent in &decision.intents {
                match intent {
                    Intent::Create { replicas, .. } => place.replicas = Some(replicas.0),
                    Intent::Scale { to, .. } => place.replicas = Some(to.0),
                    Intent::Delete { .. } => {}
                }
            }
        }
    }
}
