//! A world in which a story is told, and the loop that moves it.
//!
//! ```text
//!  ┌─► world up to now ─► events to hints ─► what the story says ─► look: transcript, tally ─┐
//!  └────────────── sleep until the next of them, or until a request changed it ◄─────────────┘
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kitepool_world::{
    Agenda, Chance, Joined, Token,
    buildkite::{Buildkite, Delivery, JobId, NumbersAge, PickUp, Spread},
    kubernetes::{Delay, Kind, Kubernetes, Readiness},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    controller::{Controller, Ended},
    courier,
    loopback::{Doors, Loopback},
    news::{self, Frame, News, Teller},
    pace::Pace,
    replica::{KillPoint, Replica, Side},
    story::{Events, Expectation, Jobs, Step, Story},
    tally::{self, Agents, Summary, Tally},
    transcript::Transcript,
    verdict::{Circumstances, Records},
};
use crate::{clock::Clock, control::record::Line};

/// Where all pools of a story are.
pub const NAMESPACE: &str = "buildkite";

/// The usual cluster, and the token that is always there.
pub const CLUSTER: &str = "0197a1b2-0000-4000-8000-000000000001";
/// See [`CLUSTER`].
pub const TOKEN: &str = "bkct_simulated";
/// The Secret that it lies in.
pub(super) const SECRET: &str = "buildkite-agent-token";
/// The pod definition that is always there.
const DEFINITION: &str = "agent";

/// A killed controller is away so long: a pod that is started again takes about that.
const AWAY: Duration = Duration::from_secs(2);

/// How often it is told how everything stands, where somebody watches: as often as an eye can follow numbers.
const FRAME_EVERY: Duration = Duration::from_millis(250);

/// What ticks record between two looks of the stage.
const LINES_MAX: usize = 10_000;

/// What happens next by the story.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Step(Box<Step>),
    /// One job of those that come one after another.
    Job(Box<Jobs>),
    /// A node is still being drained.
    Drain(String),
    /// The controller starts again.
    Start,
    /// The state of the pools is told.
    State,
    /// Whoever watches is told how everything stands.
    Frame,
    End,
}

/// The world, the story, and what is known of both.
pub struct Stage {
    pub(super) world: Joined,
    pub(super) story: Story,
    pub(super) clock: Clock,
    pub(super) acts: Agenda<Act>,
    pub(super) controller: Controller,
    pub(super) transcript: Transcript,
    pub(super) jobs: BTreeMap<String, Vec<JobId>>,
    pub(super) chance: Chance,
    end: Timestamp,
    tally: Tally,
    records: Records,
    lines: mpsc::Receiver<Line>,
    pub(super) around: Circumstances,
    controller_writes: u64,
    writes_pace: Pace,
    calls_pace: Pace,
    /// Requests to Buildkite so far.
    calls: u64,
    states: BTreeMap<String, String>,
    /// Whose jobs each pool's are: cluster and queue. Pods of a pool that is gone may still run some.
    queues: BTreeMap<String, (String, String)>,
    /// What was not as the story says.
    pub(super) wrong: Vec<String>,
    teller: Option<Teller>,
    stop: CancellationToken,
}

/// What a story came to.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub transcript: Vec<String>,
    /// In numbers.
    pub summary: Summary,
    /// Broken invariants and expectations, as sentences.
    pub wrong: Vec<String>,
    /// How many writes the controller made, those to its Events among them.
    pub writes: usize,
}

impl Stage {
    /// A world for this story, under the runtime's own clock, which is at `story.start` now.
    pub fn new(story: Story, kill_point: Arc<KillPoint>) -> Self {
        let clock = Clock::fixed(story.start);
        let world = world(&story, &clock);
        let (record, lines) = mpsc::channel(LINES_MAX);
        let config = super::replica::config(NAMESPACE, story.poll_interval);
        let replica = Replica::new(world.clone(), clock.clone(), config, Some(record), kill_point);
        Self::with(story, clock, world, Controller::Replica(Box::new(replica)), lines)
    }

    /// A world for this story that is served on this machine, and the controller as it runs in a cluster, in real time. What
    /// its ticks see stays with it, so that no invariant is looked at.
    pub fn on_loopback(mut story: Story, doors: Doors) -> anyhow::Result<Self> {
        // The controller goes by the machine's clock, so the world does.
        story.start = Clock::machine().now();
        let clock = Clock::fixed(story.start);
        let world = world(&story, &clock);
        let config = super::replica::config(NAMESPACE, story.poll_interval);
        let loopback = Loopback::new(doors, &world, &clock, config)?;
        let (_, lines) = mpsc::channel(1);
        Ok(Self::with(story, clock, world, Controller::Loopback(Box::new(loopback)), lines))
    }

    fn with(story: Story, clock: Clock, world: Joined, controller: Controller, lines: mpsc::Receiver<Line>) -> Self {
        let mut acts = Agenda::default();
        let at = |since: Duration| story.start.saturating_add(since).unwrap_or(Timestamp::MAX);
        acts.enter(story.start, Act::Start);
        for step in &story.story {
            acts.enter(at(step.at), Act::Step(Box::new(step.clone())));
        }
        acts.enter(at(story.state_every), Act::State);
        let end = at(story.lasts);
        acts.enter(end, Act::End);
        let budgets = super::replica::config(NAMESPACE, story.poll_interval);
        Self {
            transcript: Transcript::new(story.start),
            chance: Chance::new(story.seed, "the story's jobs"),
            world,
            clock,
            acts,
            controller,
            end,
            lines,
            story,
            jobs: BTreeMap::new(),
            tally: Tally::default(),
            records: Records::default(),
            around: Circumstances::default(),
            controller_writes: 0,
            writes_pace: Pace::new("writes", budgets.write_budget, Duration::from_secs(1)),
            calls_pace: Pace::new("requests to Buildkite", budgets.buildkite_budget, Duration::from_mins(1)),
            calls: 0,
            states: BTreeMap::new(),
            queues: BTreeMap::new(),
            wrong: Vec::new(),
            teller: None,
            stop: CancellationToken::new(),
        }
    }

    /// What happens is told to this reader as it happens.
    #[must_use]
    pub fn watched_by(mut self, reader: mpsc::Sender<News>) -> Self {
        self.teller = Some(Teller::new(reader));
        self.acts.enter(self.story.start, Act::Frame);
        self
    }

    /// The story breaks off at `stop`. What it expects in the end is not asked for then.
    #[must_use]
    pub fn until(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Tells the story to its end.
    pub async fn play(mut self) -> Outcome {
        loop {
            let now = self.clock.now();
            self.world.advance(now);
            self.carry_events(now);
            while let Some((_, act)) = self.acts.due(now) {
                self.perform(act, now);
            }
            let next = self.world.advance(now);
            self.look(now);
            self.tell_news();
            if now >= self.end {
                return self.outcome(now, None).await;
            }
            let next = [next, self.acts.next_at()].into_iter().flatten().min().unwrap_or(self.end);
            let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.break_off().await,
                ended = self.controller.ended() => match ended {
                    Ended::Killed => {
                        self.controller.kill();
                        self.transcript.say(self.clock.now(), "the controller is killed");
                        self.start_later();
                    }
                    Ended::Failed(why) => {
                        let now = self.clock.now();
                        return self.outcome(now, Some(why)).await;
                    }
                },
                () = self.world.kubernetes().changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    pub(super) fn start_later(&mut self) {
        let at = self.clock.now().saturating_add(AWAY).unwrap_or(self.end);
        self.acts.enter(at, Act::Start);
    }

    fn carry_events(&mut self, now: Timestamp) {
        let events = self.world.buildkite().at(now, |buildkite| buildkite.take_events(now));
        if events.is_empty() {
            return;
        }
        let carried = courier::carry(&events, &self.world, NAMESPACE, now);
        for event in carried.stored {
            self.around.told.entry(event.uuid.clone()).or_default().push(now);
        }
        self.transcript.events(now, events.len(), carried.shed);
    }

    /// Takes in what was written and what ticks recorded.
    fn look(&mut self, now: Timestamp) {
        let writes = self.world.kubernetes().with(now, Kubernetes::take_writes);
        for write in writes.iter().filter(|write| is_controllers(&write.who)) {
            self.transcript.wrote(write);
            self.controller_writes += 1;
            self.writes_pace.note(write.at, u64::from(write.resource != "events" && write.resource != "leases"));
        }
        let calls = tally::buildkite_calls(&self.world);
        self.calls_pace.note(now, calls.saturating_sub(self.calls));
        self.calls = calls;
        while let Ok(line) = self.lines.try_recv() {
            self.records.take_in(line);
        }
        self.tally.note(now, tally::agents(&self.world, NAMESPACE, None));
    }

    /// Tells how each pool stands, where that changed.
    pub(super) fn tell_state(&mut self, now: Timestamp) {
        for pool in self.world.kubernetes().peek(|kubernetes| kubernetes.objects(Kind::AgentPool, NAMESPACE)) {
            let text = |path: &str| pool.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let secret = text("/spec/token/secretRef/name");
            let other = self.story.tokens.iter().find(|token| token.secret == secret);
            let cluster = other.map_or(CLUSTER, |token| &token.cluster).to_owned();
            self.queues.insert(text("/metadata/name").to_owned(), (cluster, text("/spec/queue").to_owned()));
        }
        for (name, (cluster, queue)) in &self.queues {
            let load = self.world.buildkite().peek(|buildkite| buildkite.load(cluster, queue));
            let Agents { busy, idle, starting, draining } = tally::agents(&self.world, NAMESPACE, Some(name));
            let state = format!(
                "{name}: jobs {} scheduled, {} running, {} waiting; agents {busy} busy, {idle} idle, {starting} starting, {draining} draining",
                load.scheduled, load.running, load.waiting
            );
            if self.states.get(name) != Some(&state) {
                self.transcript.say(now, &state);
                self.states.insert(name.clone(), state);
            }
        }
        self.acts.enter(now.saturating_add(self.story.state_every).unwrap_or(self.end), Act::State);
    }

    /// Tells whoever watches what is new, and in its turn how everything stands.
    fn tell_news(&mut self) {
        if let Some(teller) = &mut self.teller {
            self.transcript.news().for_each(|line| teller.line(line));
        }
    }

    pub(super) fn tell_frame(&mut self, now: Timestamp) {
        let Some(teller) = &self.teller else { return };
        let since = now.duration_since(self.story.start).unsigned_abs();
        teller.frame(Frame { since, lasts: self.story.lasts, rows: news::rows(&self.world) });
        self.acts.enter(later(now, FRAME_EVERY), Act::Frame);
    }

    async fn break_off(mut self) -> Outcome {
        let now = self.clock.now();
        self.world.advance(now);
        self.look(now);
        self.transcript.say(now, "broken off");
        self.story.expect = Expectation { killed: self.story.expect.killed, ..Expectation::default() };
        self.outcome(now, None).await
    }

    async fn outcome(mut self, now: Timestamp, failure: Option<String>) -> Outcome {
        self.tell_frame(now);
        // All numbers are of this instant: what the controller does while it ends is no part of the story.
        let summary = self.tally.summary(&self.world, self.controller_writes);
        self.controller.stop().await;
        // What was recorded up to the end is in the channel.
        while let Ok(line) = self.lines.try_recv() {
            self.records.take_in(line);
        }
        let mut wrong = self.records.violations(&self.world, &self.around);
        wrong.extend([&self.writes_pace, &self.calls_pace].into_iter().filter_map(Pace::broken));
        wrong.extend(self.unexpected());
        wrong.extend(failure.map(|why| format!("the controller ended: {why}")));
        self.transcript.say(now, "the end");
        self.tell_news();
        Outcome { summary, writes: self.controller.writes(), transcript: self.transcript.into_lines(), wrong }
    }
}

/// Whether this is the controller: under its field manager, or by a request that names nobody (Events).
fn is_controllers(who: &str) -> bool {
    who == "unknown" || who.starts_with("kitepool")
}

/// Everything as it is before the story begins.
pub fn world(story: &Story, clock: &Clock) -> Joined {
    let (seed, start) = (story.seed, story.start);
    let buildkite = Buildkite::new(buildkite_settings(story), seed, start);
    let kubernetes = Kubernetes::new(kubernetes_settings(story), seed, start);
    let world = Joined::new(kubernetes, buildkite);
    let reading = clock.clone();
    world.buildkite().set_clock(move || reading.now());
    world.buildkite().set_poll_duration(story.buildkite.poll_duration);
    add_token(&world, SECRET, TOKEN, "acme", CLUSTER, start);
    for token in &story.tokens {
        add_token(&world, &token.secret, &token.token, &token.organization, &token.cluster, start);
    }
    put(&world, definition("agent:1"), start);
    if let Some(quota) = story.kubernetes.hint_quota {
        let hard = json!({ "count/jobhints.kitepool.dev": quota.to_string() });
        put(&world, object("v1", "ResourceQuota", "hints", &json!({ "spec": { "hard": hard } })), start);
    }
    for pool in &story.pools {
        put(&world, pool_manifest(pool, &story.defaults), start);
    }
    // What was written so far is the beginning, and no part of the story.
    world.kubernetes().with(start, |kubernetes| drop(kubernetes.take_writes()));
    world
}

fn buildkite_settings(story: &Story) -> kitepool_world::buildkite::Settings {
    let side = &story.buildkite;
    kitepool_world::buildkite::Settings {
        pick_up: side.ping.map_or(PickUp::Streaming, |interval| PickUp::Polling { interval }),
        numbers: NumbersAge { refresh: side.refresh, lag: side.lag },
        events: delivery(side.events),
        ..kitepool_world::buildkite::Settings::default()
    }
}

pub(super) fn delivery(events: Events) -> Delivery {
    Delivery {
        delay: Spread::Tailed { least: events.least, mean: events.mean, most: events.most },
        lost_permille: events.lost_permille,
        doubled_permille: events.doubled_permille,
        again: false,
    }
}

fn kubernetes_settings(story: &Story) -> kitepool_world::kubernetes::Settings {
    let side = &story.kubernetes;
    kitepool_world::kubernetes::Settings {
        definitions: kitepool_api::crds().iter().filter_map(|crd| serde_json::to_value(crd).ok()).collect(),
        start_up: Delay::between(side.start_least, side.start_most),
        nodes: side.nodes.clone(),
        // An agent's health server answers from its registration on.
        readiness: Readiness::AsTold,
        ..kitepool_world::kubernetes::Settings::default()
    }
}

fn add_token(world: &Joined, secret: &str, token: &str, organization: &str, cluster: &str, now: Timestamp) {
    write_token(world, secret, token, now);
    let_in(world, token, organization, cluster);
}

/// A token belongs to a cluster from now on. Clusters have names, which is how a metrics answer says whose it is.
pub(super) fn let_in(world: &Joined, token: &str, organization: &str, cluster: &str) {
    let mut state = world.buildkite().state();
    state.tokens.insert(token.to_owned(), Token::new(organization, Some(cluster)));
    state.clusters.entry(cluster.to_owned()).or_default().name = format!("cluster {cluster}");
    world.buildkite().set_state(state);
}

/// Writes a token into a Secret, and lets the pods that mount it have it.
pub(super) fn write_token(world: &Joined, secret: &str, token: &str, now: Timestamp) {
    let data = k8s_openapi::ByteString(token.as_bytes().to_vec());
    put(world, object("v1", "Secret", secret, &json!({ "data": { "token": data } })), now);
    world.set_token((NAMESPACE.to_owned(), secret.to_owned()), token);
}

/// The pod definition with this image.
pub(super) fn definition(image: &str) -> Value {
    let container = json!({ "name": "agent", "image": image, "command": ["buildkite-agent", "start"] });
    object("v1", "PodTemplate", DEFINITION, &json!({ "template": { "spec": { "containers": [container] } } }))
}

/// A pool as the story has it, on top of its defaults.
pub(super) fn pool_manifest(pool: &Value, defaults: &Value) -> Value {
    let name = pool.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let spec = json!({
        "queue": name,
        "token": { "secretRef": { "name": SECRET, "key": "token" } },
        "podTemplateRef": { "name": DEFINITION },
    });
    let mut manifest = object("kitepool.dev/v1alpha1", "AgentPool", name, &json!({ "spec": spec }));
    json_patch::merge(&mut manifest, &json!({ "spec": defaults.as_object().cloned().unwrap_or_default() }));
    json_patch::merge(&mut manifest, pool);
    manifest
}

fn object(api_version: &str, kind: &str, name: &str, rest: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata });
    json_patch::merge(&mut object, rest);
    object
}

/// As a person would.
pub(super) fn put(world: &Joined, object: Value, now: Timestamp) {
    let put = world.kubernetes().with(now, |kubernetes| kubernetes.put("kubectl", object, now));
    if let Err(refusal) = put {
        tracing::error!(%refusal, "the story's object is refused");
    }
}

/// Never killed, and writes are counted.
pub fn never_killed() -> Arc<KillPoint> {
    KillPoint::new(0, Side::Before)
}

/// From the beginning, as text.
pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
