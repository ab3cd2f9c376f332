//! What a story's steps do to the world.

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::{
    Fault, Route,
    buildkite::{Concurrency, JobId, NewJob},
    kubernetes::{self, Kind, PodFault, Verb, WatchEnd},
};
use serde_json::{Value, json};

use super::{
    expectation::pool_of,
    stage::{
        Act, CLUSTER, NAMESPACE, SECRET, Stage, TOKEN, definition, delivery, later, let_in, pool_manifest, put,
        write_token,
    },
    story::{
        ForeignScale, ImageFault, ImageProblem, Jobs, NodesChange, PoolChange, QueueChange, RouteChange, SecretChange,
        Step, TokenChange, WritesChange,
    },
};

/// As often as `kubectl drain` tries an eviction again.
const DRAIN_AGAIN: Duration = Duration::from_secs(5);

impl Stage {
    pub(super) fn perform(&mut self, act: Act, now: Timestamp) {
        match act {
            Act::Start => {
                self.transcript.say(now, "the controller starts");
                self.controller.start();
            }
            Act::State => self.tell_state(now),
            Act::Frame => self.tell_frame(now),
            Act::Step(step) => self.step(*step, now),
            Act::Job(jobs) => self.submit_next(*jobs, now),
            Act::Drain(node) => self.drain(&node, now),
            Act::End => {}
        }
    }

    fn step(&mut self, step: Step, now: Timestamp) {
        // Named one by one, so that a step that is added cannot be forgotten here.
        let Step {
            at: _,
            say,
            jobs,
            cancel,
            queue,
            buildkite,
            events,
            token,
            secret,
            scale,
            pool,
            image,
            fault,
            unschedulable,
            nodes,
            lose_node,
            drain,
            contrary,
            cut_watches,
            writes,
            restart,
            expect,
        } = step;
        if let Some(text) = say {
            self.transcript.say(now, &format!("* {text}"));
        }
        if let Some(events) = events {
            self.world.buildkite().at(now, |world| world.set_delivery(delivery(events), now));
        }
        if let Some(jobs) = jobs {
            self.submit(jobs, now);
        }
        if let Some(queue) = cancel {
            self.cancel(&queue, now);
        }
        if let Some(queue) = queue {
            self.pause(&queue, now);
        }
        if let Some(change) = buildkite {
            self.change_route(&change, now);
        }
        if let Some(change) = token {
            self.change_token(change, now);
        }
        if let Some(SecretChange { name, token }) = secret {
            let (name, token) = (name.as_deref().unwrap_or(SECRET), token.as_deref().unwrap_or(TOKEN));
            self.transcript.say(now, &format!("the Secret {name} holds {token}"));
            write_token(&self.world, name, token, now);
        }
        if let Some(scale) = scale {
            self.scale(&scale, now);
        }
        if let Some(change) = pool {
            self.change_pool(&change, now);
        }
        if let Some(image) = image {
            self.transcript.say(now, &format!("the pod definition has image {image}"));
            put(&self.world, definition(&image), now);
        }
        self.break_cluster(fault, unschedulable, nodes, lose_node, now);
        self.take_pods(drain, contrary, now);
        self.hinder_server(cut_watches, writes, now);
        if restart == Some(true) {
            self.transcript.say(now, "the controller is killed");
            self.controller.kill();
            self.start_later();
        }
        self.expect_now(&expect, now);
    }

    fn break_cluster(
        &mut self,
        fault: Option<ImageFault>,
        unschedulable: Option<bool>,
        nodes: Option<NodesChange>,
        lose_node: Option<String>,
        now: Timestamp,
    ) {
        if let Some(fault) = fault {
            self.change_image(&fault, now);
        }
        if let Some(is_so) = unschedulable {
            self.transcript.say(now, if is_so { "pods find no node" } else { "pods find nodes again" });
            self.world.kubernetes().with(now, |world| world.set_unschedulable(NAMESPACE, is_so, now));
        }
        if let Some(change) = nodes {
            self.change_nodes(&change, now);
        }
        if let Some(node) = lose_node {
            self.transcript.say(now, &format!("node {node} is lost"));
            self.world.kubernetes().with(now, |world| world.lose_node(&node, now));
        }
    }

    fn hinder_server(&mut self, cut_watches: Option<bool>, writes: Option<WritesChange>, now: Timestamp) {
        if cut_watches == Some(true) {
            self.cut_watches(now);
        }
        if let Some(change) = writes {
            self.change_writes(&change, now);
        }
    }

    fn take_pods(&mut self, drain: Option<String>, contrary: Option<bool>, now: Timestamp) {
        if let Some(node) = drain {
            self.transcript.say(now, &format!("node {node} is drained"));
            self.world.kubernetes().with(now, |world| world.cordon(&node, now));
            self.drain(&node, now);
        }
        if let Some(is_so) = contrary {
            let whom = if is_so { "whom it should take last" } else { "whom it should again" };
            self.transcript.say(now, &format!("Kubernetes takes first {whom}"));
            self.world.kubernetes().with(now, |world| world.set_contrary(is_so));
        }
    }

    /// As `kubectl drain` and the daemons behind spot instances do it: what a budget guards is tried again later.
    pub(super) fn drain(&mut self, node: &str, now: Timestamp) {
        let on_node = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node);
        let is_guarded = |pod: &Value| pod.pointer("/metadata/labels/kitepool.dev~1busy").is_some();
        let is_going = |pod: &Value| pod.pointer("/metadata/deletionTimestamp").is_some();
        let pods = self.world.kubernetes().peek(|world| world.objects(Kind::Pod, NAMESPACE));
        let left: Vec<_> = pods.iter().filter(|pod| on_node(pod) && !is_going(pod)).collect();
        for pod in left.iter().filter(|pod| !is_guarded(pod)) {
            let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            self.transcript.say(now, &format!("{name} is evicted"));
            self.world.kubernetes().with(now, |world| world.evict(NAMESPACE, name, now));
        }
        if !left.is_empty() {
            self.acts.enter(later(now, DRAIN_AGAIN), Act::Drain(node.to_owned()));
        }
    }

    fn pause(&mut self, queue: &QueueChange, now: Timestamp) {
        let doing = if queue.paused { "is paused" } else { "goes on" };
        self.transcript.say(now, &format!("queue {} {doing}", queue.name));
        let pauses = self.around.pauses.entry(queue.name.clone()).or_default();
        if queue.paused {
            pauses.push((now, None));
        } else if let Some((_, until)) = pauses.last_mut() {
            *until = Some(now);
        }
        self.world.buildkite().at(now, |world| world.set_paused(CLUSTER, &queue.name, queue.paused, now));
    }

    fn change_nodes(&mut self, change: &NodesChange, now: Timestamp) {
        let NodesChange { label, value, are_there } = change;
        let there = if *are_there { "nodes again" } else { "no nodes any more" };
        self.transcript.say(now, &format!("there are {there} with {label}={value}"));
        self.world.kubernetes().with(now, |world| world.set_lacking((label, value), !are_there, now));
    }

    fn change_image(&mut self, fault: &ImageFault, now: Timestamp) {
        let problem = fault.is.map(|problem| match problem {
            ImageProblem::Pull => PodFault::ImagePull,
            ImageProblem::Crash => PodFault::CrashLoop,
            ImageProblem::Unready => PodFault::NeverReady,
        });
        self.transcript.say(now, &format!("image {}: {}", fault.image, doing(fault.is)));
        self.world.kubernetes().with(now, |world| world.set_pod_fault(&fault.image, problem));
    }

    /// All of them, and none can go on from where it was.
    fn cut_watches(&mut self, now: Timestamp) {
        self.transcript.say(now, "watches are cut");
        self.world.kubernetes().with(now, |world| {
            world.end_watches(None, WatchEnd::Cut);
            world.compact();
        });
    }

    fn submit(&mut self, jobs: Jobs, now: Timestamp) {
        let pace = jobs.every.map(|every| format!(", one each {}", humantime::format_duration(every)));
        let rules = if jobs.rules.is_empty() { String::new() } else { format!(" ({})", jobs.rules.join(", ")) };
        let of = jobs.cluster.as_deref().map(|cluster| format!(" of {cluster}")).unwrap_or_default();
        let text = format!("{} jobs for {}{of}{rules}{}", jobs.count, jobs.queue, pace.unwrap_or_default());
        self.transcript.say(now, &text);
        if jobs.every.is_some() {
            self.submit_next(jobs, now);
        } else {
            for _ in 0..jobs.count {
                self.submit_one(&jobs, now);
            }
        }
    }

    /// One of those that come one after another; the next is planned.
    fn submit_next(&mut self, mut jobs: Jobs, now: Timestamp) {
        let Some(every) = jobs.every.filter(|_| jobs.count > 0) else { return };
        self.submit_one(&jobs, now);
        jobs.count -= 1;
        let wait = if jobs.by_chance { self.chance.exponential(every) } else { every };
        self.acts.enter(later(now, wait), Act::Job(Box::new(jobs)));
    }

    fn submit_one(&mut self, jobs: &Jobs, now: Timestamp) {
        let run = jobs.run_most.map_or(jobs.run, |most| self.chance.between(jobs.run, most));
        let mut job = NewJob::new(jobs.cluster.as_deref().unwrap_or(CLUSTER), &jobs.queue, run);
        job.rules.extend(jobs.rules.iter().cloned());
        job.priority = jobs.priority;
        job.concurrency = jobs.group.clone().map(|group| Concurrency { group, limit: 1 });
        let first = self.world.buildkite().at(now, |world| world.submit(job.clone(), now));
        let mut submitted = vec![first];
        for _ in 0..jobs.followers {
            let follower = NewJob { depends_on: vec![first], ..job.clone() };
            submitted.push(self.world.buildkite().at(now, |world| world.submit(follower, now)));
        }
        self.jobs.entry(jobs.queue.clone()).or_default().extend(submitted);
    }

    fn cancel(&mut self, queue: &str, now: Timestamp) {
        let jobs: Vec<JobId> = self.jobs.remove(queue).unwrap_or_default();
        self.transcript.say(now, &format!("the jobs of {queue} are cancelled"));
        self.world.buildkite().at(now, |world| jobs.into_iter().for_each(|job| world.cancel(job, now)));
    }

    fn change_route(&mut self, change: &RouteChange, now: Timestamp) {
        let RouteChange { status, hangs, delay } = *change;
        let is_well = status.is_none() && !hangs && delay.is_none();
        let fault = Fault {
            status,
            hang: hangs,
            delay_ms: delay.and_then(|delay| u64::try_from(delay.as_millis()).ok()).unwrap_or_default(),
            ..Fault::default()
        };
        let text = match status {
            _ if is_well => "answers as it should".to_owned(),
            Some(status) => format!("answers {status}"),
            None if hangs => "does not answer".to_owned(),
            None => "answers late".to_owned(),
        };
        self.transcript.say(now, &format!("the metrics API {text}"));
        self.world.buildkite().set_fault(Route::Metrics, (!is_well).then_some(fault));
    }

    fn change_writes(&mut self, change: &WritesChange, now: Timestamp) {
        let WritesChange { late, permille } = *change;
        let text = if late.is_some() { "is late with writes" } else { "keeps up with writes" };
        self.transcript.say(now, &format!("the API server {text}"));
        for (verb, resource) in
            [(Verb::Patch, "pods"), (Verb::Patch, "deployments/scale"), (Verb::Patch, "agentpools/status")]
        {
            let fault = late.map(|delay| kubernetes::Fault { delay, permille, ..kubernetes::Fault::default() });
            let route = kubernetes::Route::new(verb, resource);
            self.world.kubernetes().with(now, |world| world.set_fault(route, fault));
        }
    }

    fn change_token(&mut self, change: TokenChange, now: Timestamp) {
        let TokenChange { token, cluster, organization } = change;
        let text = cluster
            .as_deref()
            .map_or_else(|| "is revoked".to_owned(), |cluster| format!("belongs to {organization}/{cluster}"));
        let which = token.as_deref().map(|token| format!(" {token}")).unwrap_or_default();
        self.transcript.say(now, &format!("the token{which} {text}"));
        let token = token.as_deref().unwrap_or(TOKEN);
        match cluster {
            Some(cluster) => let_in(&self.world, token, &organization, &cluster),
            None => self.world.buildkite().set_token(token, None),
        }
    }

    fn scale(&mut self, scale: &ForeignScale, now: Timestamp) {
        let ForeignScale { pool, replicas, by } = scale;
        self.transcript.say(now, &format!("{by} scales the Deployment of {pool} to {replicas}"));
        self.world.kubernetes().with(now, |world| {
            let deployments = world.objects(Kind::Deployment, NAMESPACE);
            let newest = deployments
                .iter()
                .filter(|deployment| pool_of(deployment) == Some(pool))
                .filter_map(|deployment| {
                    let text = |path: &str| deployment.pointer(path).and_then(Value::as_str).map(str::to_owned);
                    Some((text("/metadata/creationTimestamp")?, text("/metadata/name")?))
                })
                .max();
            let Some((_, name)) = newest else { return };
            let patch = json!({ "spec": { "replicas": replicas } });
            let scaled = world.patch(by, (Kind::Deployment, NAMESPACE, &name), "scale", &patch, now);
            if let Err(refusal) = scaled {
                tracing::error!(%refusal, "the story's scaling is refused");
            }
        });
    }

    fn change_pool(&mut self, change: &PoolChange, now: Timestamp) {
        let PoolChange { name, patch, delete } = change;
        let key = (Kind::AgentPool, NAMESPACE, name.as_str());
        if *delete {
            self.transcript.say(now, &format!("pool {name} is deleted"));
            drop(self.world.kubernetes().with(now, |world| world.delete("kubectl", key, now)));
        }
        let Some(patch) = patch else { return };
        self.transcript.say(now, &format!("pool {name} is changed: {patch}"));
        let is_there = self.world.kubernetes().peek(|world| world.object(key.0, key.1, key.2).is_some());
        if is_there {
            drop(self.world.kubernetes().with(now, |world| world.patch("kubectl", key, "", patch, now)));
        } else {
            let mut pool = json!({ "metadata": { "name": name } });
            json_patch::merge(&mut pool, patch);
            put(&self.world, pool_manifest(&pool, &self.story.defaults), now);
        }
    }
}

const fn doing(problem: Option<ImageProblem>) -> &'static str {
    match problem {
        None => "works",
        Some(ImageProblem::Pull) => "cannot be pulled",
        Some(ImageProblem::Crash) => "crashes",
        Some(ImageProblem::Unready) => "never is ready",
    }
}
