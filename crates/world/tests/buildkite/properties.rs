//! What holds whatever happens: over random histories, and with as many jobs and agents as anybody has.

use std::collections::{BTreeMap, BTreeSet};

use kitepool_world::{Chance, Queue, buildkite::Concurrency};

use super::*;

/// Everything at once, drawn by a seed: jobs of all kinds, agents that come and go in every way, pauses, tokens revoked.
struct History {
    buildkite: Buildkite,
    chance: Chance,
    now: Timestamp,
    pods: u32,
    jobs: Vec<JobId>,
    /// Those of the group of two.
    limited: BTreeSet<JobId>,
    exits: BTreeMap<String, usize>,
    began: BTreeMap<JobId, Timestamp>,
    ended: BTreeMap<JobId, End>,
}

const QUEUES: [&str; 3] = ["q", "r", "default"];

impl History {
    fn new(seed: u64) -> Self {
        let settings = if seed.is_multiple_of(3) {
            streaming()
        } else {
            Settings { registration: Settings::default().registration, ..polling() }
        };
        Self {
            buildkite: buildkite(settings, seed),
            chance: Chance::new(seed, "history"),
            now: START,
            pods: 0,
            jobs: Vec::new(),
            limited: BTreeSet::new(),
            exits: BTreeMap::new(),
            began: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    fn queue(&mut self) -> &'static str {
        QUEUES[usize::try_from(self.chance.below(3)).unwrap()]
    }

    fn some_job(&mut self) -> Option<JobId> {
        let count = u32::try_from(self.jobs.len()).unwrap();
        self.jobs.get(usize::try_from(self.chance.below(count)).unwrap()).copied()
    }

    fn new_job(&mut self) -> NewJob {
        let queue = self.queue();
        let mut rules = vec![format!("queue={queue}")];
        if self.chance.permille(200) {
            rules.push("os=linux".to_owned());
        }
        let depends_on = if self.chance.permille(200) { self.some_job().into_iter().collect() } else { Vec::new() };
        let limited = Concurrency { group: "one".into(), limit: 2 };
        NewJob {
            rules,
            priority: i64::from(self.chance.below(3)),
            fails: self.chance.permille(100),
            depends_on,
            concurrency: self.chance.permille(150).then_some(limited),
            ..NewJob::new(CLUSTER, queue, self.chance.exponential(secs(40)))
        }
    }

    fn new_pod(&mut self) -> AgentPod {
        self.pods += 1;
        let mut tags = vec![format!("queue={}", self.queue())];
        if self.chance.permille(500) {
            tags.push("os=linux".to_owned());
        }
        let token = if self.chance.permille(50) { "unknown" } else { TOKEN }.to_owned();
        AgentPod { pod: format!("pod-{}", self.pods), token, tags, spawn: 1 + self.chance.below(3) }
    }

    fn act(&mut self) {
        let pod = format!("pod-{}", 1 + self.chance.below(self.pods));
        match self.chance.below(100) {
            0..45 => {
                let job = self.new_job();
                let is_limited = job.concurrency.is_some();
                let id = self.buildkite.submit(job, self.now);
                self.jobs.push(id);
                self.limited.extend(is_limited.then_some(id));
            }
            45..65 => {
                let pod = self.new_pod();
                self.buildkite.pod_started(pod, self.now);
            }
            65..80 => self.buildkite.pod_told(&pod, self.now),
            80..85 => self.buildkite.pod_killed(&pod, self.now),
            85..92 => {
                if let Some(job) = self.some_job() {
                    self.buildkite.cancel(job, self.now);
                }
            }
            92..98 => {
                let (queue, is_paused) = (self.queue(), self.chance.permille(300));
                self.buildkite.set_paused(CLUSTER, queue, is_paused, self.now);
            }
            _ => {
                let token = self.chance.permille(800).then(|| Token::new("acme", Some(CLUSTER)));
                self.buildkite.set_token(TOKEN, token);
            }
        }
        self.look();
    }

    /// Up to `until`, a look after each event.
    fn go(&mut self, until: Timestamp) {
        while let Some(next) = self.buildkite.next_at().filter(|next| *next <= until) {
            assert!(next >= self.buildkite.now(), "time goes back");
            self.buildkite.advance(next);
            self.look();
        }
        self.buildkite.advance(until);
        self.now = until;
    }

    /// All that stands against the jobs goes away.
    fn mend(&mut self) {
        self.buildkite.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
        for (number, queue) in QUEUES.into_iter().enumerate() {
            self.buildkite.set_paused(CLUSTER, queue, false, self.now);
            let tags = vec![format!("queue={queue}"), "os=linux".to_owned()];
            self.buildkite.pod_started(AgentPod { tags, spawn: 2, ..pod(1_000_000 + number) }, self.now);
        }
    }

    fn look(&mut self) {
        let mut loads: BTreeMap<&str, Queue> = BTreeMap::new();
        let mut taken = 0;
        for job in self.buildkite.jobs() {
            let load = loads.entry(&job.queue).or_default();
            match job.state {
                JobState::Waiting => load.waiting += 1,
                JobState::Limited | JobState::Scheduled => load.scheduled += 1,
                JobState::Assigned | JobState::Accepted | JobState::Running | JobState::Cancelling => load.running += 1,
                JobState::Ended(end) => assert_eq!(*self.ended.entry(job.id).or_insert(end), end, "{job:?}"),
            }
            assert!(job.end().is_some() || !self.ended.contains_key(&job.id), "{job:?} has ended and is back");
            if let Some(started) = job.started_at {
                assert_eq!(*self.began.entry(job.id).or_insert(started), started, "{job:?} runs twice");
            }
            let is_going = !matches!(job.state, JobState::Waiting | JobState::Limited | JobState::Ended(_));
            taken += usize::from(is_going && self.limited.contains(&job.id));
        }
        for (queue, load) in loads {
            let counted = self.buildkite.load(CLUSTER, queue);
            assert_eq!(
                (counted.waiting, counted.scheduled, counted.running),
                (load.waiting, load.scheduled, load.running)
            );
            assert_eq!(counted.busy, counted.running, "every assigned job has an agent of its own");
        }
        assert!(taken <= 2, "{taken} of a group of two");
        let connected = QUEUES.map(|queue| self.buildkite.load(CLUSTER, queue)).map(|load| load.idle + load.busy);
        assert_eq!(connected.iter().sum::<u32>(), u32::try_from(self.buildkite.agents()).unwrap());
        self.look_at_pods();
    }

    fn look_at_pods(&mut self) {
        let mut current = BTreeSet::new();
        for number in 1..=self.pods {
            for worker in self.buildkite.status(&format!("pod-{number}")).into_iter().flat_map(|status| status.workers)
            {
                if let Some(job) = worker.current_job_id {
                    assert!(current.insert(job), "one job on two agents");
                }
            }
        }
        for exit in self.buildkite.take_exits() {
            *self.exits.entry(exit.pod).or_default() += 1;
        }
    }
}

#[test]
fn no_job_runs_twice_every_job_ends_once_and_the_counts_add_up() {
    let mut ends: BTreeMap<End, usize> = BTreeMap::new();
    for seed in 0..200 {
        let mut history = History::new(seed);
        for _ in 0..150 {
            let wait = history.chance.exponential(secs(4));
            history.go(history.now + wait);
            history.act();
        }
        history.mend();
        history.go(history.now + secs(12 * 3_600));
        for job in history.buildkite.jobs() {
            let end = job.end().unwrap_or_else(|| panic!("seed {seed}: {job:?} never ended"));
            *ends.entry(end).or_default() += 1;
            let has_begun = job.started_at.is_some();
            match end {
                End::Passed | End::Failed => assert!(has_begun, "seed {seed}: {job:?}"),
                End::Broken => assert!(!has_begun && job.assignments == 0, "seed {seed}: {job:?}"),
                End::Lost | End::Killed => assert!(job.accepted_at.is_some(), "seed {seed}: {job:?}"),
                End::Cancelled => {}
            }
        }
        for number in 1..=history.pods {
            let pod = format!("pod-{number}");
            history.buildkite.pod_killed(&pod, history.now);
            history.look();
            assert_eq!(history.exits.get(&pod), Some(&1), "seed {seed}: {pod} ends once");
        }
        history.go(history.now + secs(240));
        assert_eq!(history.buildkite.agents(), 6, "seed {seed}: those that nobody told or killed");
    }
    println!("{ends:?}");
    let all = [End::Passed, End::Failed, End::Cancelled, End::Killed, End::Lost, End::Broken];
    assert!(
        all.iter().all(|end| ends.get(end).is_some_and(|count| *count > 20)),
        "the histories see them all: {ends:?}"
    );
}

#[test]
fn the_same_seed_and_the_same_calls_give_the_same_history() {
    let history = |seed| {
        let mut history = History::new(seed);
        for _ in 0..150 {
            history.go(history.now + secs(3));
            history.act();
        }
        format!("{:?}", history.buildkite)
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what is measured is the machine's time")]
fn ten_thousand_agents_and_a_hundred_thousand_jobs_go_through_in_seconds() {
    let began = std::time::Instant::now();
    let mut buildkite = buildkite(Settings::default(), 1);
    for number in 0..10_000 {
        buildkite.pod_started(AgentPod::new(&format!("pod-{number}"), TOKEN, &format!("q-{}", number % 4)), START);
    }
    for number in 0..100_000_u64 {
        let queue = format!("q-{}", number % 4);
        buildkite.submit(NewJob::new(CLUSTER, &queue, secs(30 + number % 60)), at(millis(number * 5)));
    }
    while let Some(next) = buildkite.next_at() {
        buildkite.advance(next);
    }
    let summary = buildkite.summary();
    println!("{:?} of machine time, {:?} of the world's", began.elapsed(), since(buildkite.now()));
    assert_eq!((summary.submitted, summary.passed, summary.stranded), (100_000, 100_000, 0));
    // Three seconds alone on a machine, unoptimized; hours if anything looked at every agent or job for each.
    assert!(began.elapsed() < secs(120), "{:?}", began.elapsed());
}
