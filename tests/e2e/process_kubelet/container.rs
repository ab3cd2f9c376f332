//! The life of one container in its pod: start, care, restarts with back-off, and its end, asked for or not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler};
use kube::ResourceExt as _;
use rustix::process::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    board::{End, Kind, State, View},
    launch::{Program, Running, Watched, launch},
    ledger::{Ending, What, Why},
    pod::{PodContext, Termination, now},
    probes::{self, Target},
    program::program,
    settings::{FAILING_STARTS_LABEL, Image, START_DELAY_LABEL},
};

/// A container gets at least so long between the signal and the kill.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// The back-off grows to so many times its first step, and is forgotten after twice that.
const BACK_OFF_MAX: u32 = 30;

/// What a status shows for a start that did not come about.
const START_FAILED: i32 = 128;

/// One container of a pod.
pub(crate) struct Life {
    pod: Arc<PodContext>,
    spec: Container,
    kind: Kind,
    /// Containers that are to be over before this one is asked to end.
    before_it: Vec<String>,
}

type Stop = watch::Receiver<Option<Termination>>;

impl Life {
    pub(crate) fn new(pod: &Arc<PodContext>, spec: &Container, kind: Kind, before_it: Vec<String>) -> Self {
        Self { pod: Arc::clone(pod), spec: spec.clone(), kind, before_it }
    }

    /// All of it.
    pub(crate) async fn live(self) {
        let mut starts = 0;
        let mut step = 0;
        loop {
            let began = Instant::now();
            let (image, program) = tokio::select! {
                created = self.create(starts) => created,
                () = self.pod.stopping() => break,
            };
            let exit_code = self.once(starts, &image, program).await;
            if self.pod.is_stopping() || !self.is_restarted(exit_code) {
                break;
            }
            starts += 1;
            let back_off = self.pod.node.back_off;
            step = if began.elapsed() > back_off * BACK_OFF_MAX * 2 { 0 } else { step };
            // The first restart comes at once.
            let pause = if step == 0 { Duration::ZERO } else { doubled(back_off, step - 1) };
            step += 1;
            tokio::select! {
                () = self.pause("CrashLoopBackOff", "restarting failed container", pause) => {}
                () = self.pod.stopping() => break,
            }
        }
        self.pod.board.change(&self.spec.name, |view| {
            view.is_over = true;
            view.is_ready =
                self.kind == Kind::Init && matches!(&view.state, State::Terminated(end) if end.exit_code == 0);
        });
    }

    fn is_restarted(&self, exit_code: i32) -> bool {
        let policy = self.pod.spec().restart_policy;
        match (self.kind, policy.as_deref().unwrap_or("Always")) {
            (Kind::Sidecar, _) | (Kind::Main, "Always") => true,
            (_, "Never") => false,
            _ => exit_code != 0,
        }
    }

    fn waits(&self, reason: &str, message: String) {
        let state = State::Waiting { reason: reason.to_owned(), message };
        self.pod.board.change(&self.spec.name, |view| {
            // What has ended is remembered once it is over.
            if let State::Terminated(end) = &view.state {
                view.last = Some(end.clone());
            }
            view.state = state;
        });
    }

    async fn pause(&self, reason: &str, what: &str, pause: Duration) {
        if !pause.is_zero() {
            let (name, pod) = (&self.spec.name, self.pod.name());
            self.waits(reason, format!("back-off {pause:?} {what}={name} pod={pod}"));
            sleep(pause).await;
        }
    }

    /// Waits until there is an image and all that the definition names.
    async fn create(&self, starts: u32) -> (Image, Program) {
        let delay = self.pod.pod().labels().get(START_DELAY_LABEL).and_then(|seconds| seconds.parse().ok());
        let delay = delay.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
        let mut step = 0;
        while self.image().is_none() {
            let image = self.spec.image.clone().unwrap_or_default();
            self.waits("ErrImagePull", format!("failed to pull image \"{image}\": not in the image file"));
            // Long enough to be written down.
            sleep(self.pod.node.back_off / 2).await;
            self.pause("ImagePullBackOff", "pulling image", doubled(self.pod.node.back_off, step)).await;
            step += 1;
        }
        let image = self.image().cloned().unwrap_or_default();
        sleep(if starts == 0 { delay + image.start_delay() } else { Duration::ZERO }).await;
        loop {
            match program(&self.pod, &self.spec, &image, starts).await {
                Ok(program) => return (image, program),
                Err(trouble) => self.waits("CreateContainerConfigError", trouble),
            }
            sleep(self.pod.node.back_off).await;
        }
    }

    fn image(&self) -> Option<&Image> {
        self.pod.node.images.images.get(self.spec.image.as_deref()?)
    }

    fn fails_on_request(&self, image: &Image, starts: u32) -> bool {
        let label = self.pod.pod().labels().get(FAILING_STARTS_LABEL).and_then(|times| times.parse().ok());
        starts < label.unwrap_or(image.failing_starts)
    }

    /// One start and what comes of it, to its end. Answers the exit code.
    async fn once(&self, starts: u32, image: &Image, program: Program) -> i32 {
        let pod = &self.pod;
        let name = &self.spec.name;
        pod.board.change(name, |view| view.restarts = i32::try_from(starts).unwrap_or(i32::MAX));
        let launched = if self.fails_on_request(image, starts) {
            Err("it was asked to fail".to_owned())
        } else {
            launch(pod.node.first, program).await
        };
        let (running, mut watched) = match launched {
            Ok(launched) => launched,
            Err(trouble) => return self.not_started(trouble),
        };
        let since = now();
        pod.enter(name, running.pid(), What::Started);
        pod.board.change(name, |view| {
            if let State::Terminated(end) = &view.state {
                view.last = Some(end.clone());
            }
            view.state = State::Running { since };
        });
        let target = Target {
            address: pod.address.0,
            container: self.spec.clone(),
            running: running.clone(),
            http: pod.node.http.clone(),
        };
        let ending = tokio::select! {
            ending = self.attend(&target, &mut watched, image) => ending,
            ending = self.tell_readiness(&target) => ending,
        };
        pod.enter(name, running.pid(), What::Ended(ending));
        let end = End::of(ending, since, now());
        pod.board.change(name, |view| {
            view.state = State::Terminated(end);
            view.is_ready = false;
            view.is_started = false;
        });
        ending.exit_code()
    }

    fn not_started(&self, trouble: String) -> i32 {
        self.pod.enter(&self.spec.name, None, What::NotStarted(trouble.clone()));
        self.waits("RunContainerError", trouble.clone());
        let end = End {
            exit_code: START_FAILED,
            reason: "StartError".to_owned(),
            message: trouble,
            started: None,
            finished: now(),
        };
        self.pod.board.change(&self.spec.name, |view| view.last = Some(end));
        START_FAILED
    }

    fn hooks(&self) -> Lifecycle {
        self.spec.lifecycle.clone().unwrap_or_default()
    }

    /// Sees it run until it ends or has to end.
    async fn attend(&self, target: &Target, watched: &mut Watched, image: &Image) -> Ending {
        let why = tokio::select! {
            ending = watched.ended() => return ending,
            why = self.care(target) => Some(why),
            () = self.pod.stopping() => None,
        };
        let grace = match why {
            Some(Why::Unhealthy) => self.spec.liveness_probe.as_ref(),
            Some(Why::NotStarted) => self.spec.startup_probe.as_ref(),
            _ => None,
        };
        let grace = grace.and_then(|probe| probe.termination_grace_period_seconds);
        let grace = grace.and_then(|seconds| u64::try_from(seconds).ok().map(Duration::from_secs));
        let deadline = Instant::now() + grace.unwrap_or_else(|| self.pod.grace());
        let own = why.map(|why| Termination { deadline, round: 0, why });
        let signal = image.stop_signal().unwrap_or(Signal::TERM);
        self.take_down(target, watched, own, signal).await
    }

    /// Hook, startup probe, liveness probe. Ends only with a reason to end the container.
    async fn care(&self, target: &Target) -> Why {
        let name = &self.spec.name;
        let fail = |trouble| self.pod.enter(name, target.running.pid(), What::Failed(trouble));
        if let Some(hook) = &self.hooks().post_start
            && let Err(trouble) = probes::hook(hook, target, self.pod.grace()).await
        {
            fail(trouble);
            return Why::HookFailed;
        }
        if let Some(probe) = &self.spec.startup_probe
            && let Err(trouble) = probes::startup(probe, target).await
        {
            fail(trouble);
            return Why::NotStarted;
        }
        self.pod.board.change(name, |view| view.is_started = true);
        match &self.spec.liveness_probe {
            Some(probe) => fail(probes::until_unhealthy(probe, target).await),
            None => std::future::pending().await,
        }
        Why::Unhealthy
    }

    /// Never ends. Goes on while the container is ending, as the kubelet does.
    async fn tell_readiness(&self, target: &Target) -> Ending {
        let name = &self.spec.name;
        self.pod.board.until(|views: &BTreeMap<_, _>| views[name].is_started).await;
        let tell = |is_ready| {
            if self.pod.board.view(name).is_ready != is_ready {
                self.pod.board.change(name, |view| view.is_ready = is_ready);
            }
        };
        match &self.spec.readiness_probe {
            None => tell(true),
            Some(probe) => probes::readiness(probe, target, |verdict| tell(verdict.is_ok())).await,
        }
        std::future::pending().await
    }

    /// Hook, turn, signal, patience, kill. A new round begins again.
    async fn take_down(
        &self,
        target: &Target,
        watched: &mut Watched,
        own: Option<Termination>,
        signal: Signal,
    ) -> Ending {
        let mut rounds = self.pod.stop.subscribe();
        loop {
            let round = rounds.borrow_and_update().map_or(0, |stop| stop.round);
            tokio::select! {
                ending = watched.ended() => return ending,
                () = self.steps(target, own, signal) => return watched.ended().await,
                () = next_round(&mut rounds, round) => {}
            }
        }
    }

    async fn steps(&self, target: &Target, own: Option<Termination>, signal: Signal) {
        let stop = self.pod.stop.subscribe();
        if let Some(hook) = &self.hooks().pre_stop {
            self.before_stop(hook, target, own, &stop).await;
        }
        let is_over = |name: &String, views: &BTreeMap<String, View>| views[name].is_over;
        if own.is_none() {
            tokio::select! {
                () = self.pod.board.until(|views| self.before_it.iter().all(|name| is_over(name, views))) => {}
                () = patience(own, &stop, Instant::now()) => {}
            }
        }
        let why = own.or_else(|| *stop.borrow()).map_or(Why::Deleted, |termination| termination.why);
        self.signal(&target.running, signal, why);
        patience(own, &stop, Instant::now() + SHORTEST_GRACE).await;
        self.signal(&target.running, Signal::KILL, Why::GraceOver);
    }

    async fn before_stop(&self, hook: &LifecycleHandler, target: &Target, own: Option<Termination>, stop: &Stop) {
        tokio::select! {
            done = probes::hook(hook, target, self.pod.grace()) => {
                if let Err(trouble) = done {
                    self.pod.enter(&self.spec.name, target.running.pid(), What::Failed(trouble));
                }
            }
            () = patience(own, stop, Instant::now()) => {}
        }
    }

    /// Writes it down, too. The entry comes first, so that no end is seen before its cause.
    fn signal(&self, running: &Running, signal: Signal, why: Why) {
        self.pod.enter(&self.spec.name, running.pid(), What::Signalled(signal.as_raw(), why));
        // One that has ended in this moment is seen to have ended in the next.
        running.signal(signal);
    }
}

async fn next_round(rounds: &mut Stop, round: u32) {
    if rounds.wait_for(|stop| stop.is_some_and(|stop| stop.round > round)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn doubled(first: Duration, step: u32) -> Duration {
    first * 2_u32.saturating_pow(step).min(BACK_OFF_MAX)
}

/// Ends at the deadline, which may come nearer meanwhile, and not before `earliest`.
async fn patience(own: Option<Termination>, stop: &Stop, earliest: Instant) {
    let mut stop = stop.clone();
    loop {
        let pods = stop.borrow_and_update().map(|termination| termination.deadline);
        let deadline = [own.map(|own| own.deadline), pods].into_iter().flatten().min().unwrap_or(earliest);
        tokio::select! {
            () = sleep_until(deadline.max(earliest)) => return,
            changed = stop.changed() => if changed.is_err() { std::future::pending().await },
        }
    }
}
