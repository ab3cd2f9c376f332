//! The cases: in what state an agent is, what befalls it, and what came of it.

use std::time::Duration;

use kitepool_world::{
    Fault, Route,
    buildkite::{JobId, JobState, PickUp, Settings, Spread},
};

use crate::{
    stage::{Column, Slow, Stage},
    words::fate,
};

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The shortest that the wire has.
pub(crate) const PING: Duration = secs(1);
pub(crate) const HEARTBEAT: Duration = secs(2);
/// What an agent needs to show what it does after something befell it.
pub(crate) const A_WHILE: Duration = millis(300);
/// How long a slow call takes.
pub(crate) const SLOW: Duration = secs(2);
/// How long the API is away.
pub(crate) const AWAY: Duration = secs(6);
/// Longer than any case.
const LONG: Duration = secs(100);

/// In what state it is when something befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Its registration is not answered yet.
    Registering,
    Idle,
    /// A job was given to it, and it does not know: its pings fail.
    Assigned,
    /// Its call to accept a job of so many seconds is under way.
    Accepting(u64),
    /// Its job runs for so many more seconds.
    Running(u64),
    /// Its job is over, and it cannot say so: that call fails.
    Finishing,
    Paused,
    /// One of two workers has a job for so many seconds.
    OneOfTwo(u64),
}

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Term,
    /// The second a tenth of a second after the first, or at once where the first alone would end it sooner.
    TermTerm,
    Kill,
    /// All its calls are answered so, and a job comes up meanwhile if it has none; then all is well again.
    Away(Fault),
    /// All its calls are refused with 401 from now on.
    Refused,
    /// Its heartbeats are refused with 401 from now on.
    HeartbeatRefused,
    /// Its next call to accept a job is answered 500.
    AcceptFails,
    /// Its next call to accept a job gets no answer: the connection breaks.
    AcceptDropped,
    /// Its call that the job is over is refused with 422; then SIGTERM.
    FinishRefused,
    /// Its job is cancelled on the server.
    Cancelled,
    /// The server tells it to disconnect.
    Stopped,
    /// The server pauses it, and a job comes up.
    PausedThenJob,
    /// The server lets it go on, and a job comes up.
    ResumedThenJob,
    /// It comes to its end by itself.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) at: At,
    pub(crate) then: Then,
}

/// What came of a case, in words that both columns share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The exit code, or that it stays.
    pub(crate) process: String,
    pub(crate) agent: String,
    pub(crate) jobs: String,
    /// What `/status.json` said before, a while after, and at the end.
    pub(crate) told: String,
}

/// A case that was played.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) outcome: Outcome,
    /// From the last thing that befell it until the process was gone.
    pub(crate) exit_after: Option<Duration>,
    pub(crate) report: String,
}

/// All of them, in the order of the table.
pub(crate) fn cases() -> Vec<Case> {
    let case = |at, then| Case { at, then };
    let mut cases = Vec::new();
    for at in [At::Idle, At::Assigned, At::Accepting(1), At::Running(3), At::Paused] {
        cases.extend([Then::Term, Then::TermTerm, Then::Kill].map(|then| case(at, then)));
    }
    // A job that is not over by when the agent gives up.
    cases.push(case(At::Accepting(30), Then::TermTerm));
    let away = |fault: Fault| Then::Away(fault);
    let failing = Fault { status: Some(500), ..Fault::default() };
    let busy = Fault { status: Some(429), ..Fault::default() };
    let dropped = Fault { drop: true, ..Fault::default() };
    cases.extend([
        case(At::Registering, Then::Term),
        case(At::Registering, Then::Kill),
        case(At::Finishing, Then::Term),
        case(At::OneOfTwo(3), Then::Term),
        case(At::Idle, away(failing)),
        case(At::Idle, away(busy)),
        case(At::Idle, away(dropped)),
        case(At::Idle, Then::Refused),
        case(At::Running(2), away(failing)),
        case(At::Running(2), away(busy)),
        case(At::Running(2), away(dropped)),
        case(At::Running(60), Then::Refused),
        case(At::Idle, Then::HeartbeatRefused),
        case(At::Running(60), Then::HeartbeatRefused),
        case(At::Idle, Then::AcceptFails),
        case(At::Idle, Then::AcceptDropped),
        case(At::Running(1), Then::FinishRefused),
        case(At::Running(60), Then::Cancelled),
        case(At::Idle, Then::Stopped),
        case(At::Running(2), Then::Stopped),
        case(At::Idle, Then::PausedThenJob),
        case(At::Running(2), Then::PausedThenJob),
        case(At::Paused, Then::ResumedThenJob),
        case(At::Running(1), Then::Nothing),
    ]);
    cases
}

impl Case {
    fn settings(self) -> Settings {
        // Where the API is away, or an answer is, nobody is to be missed and no job given to another for that.
        let is_away = matches!(self.then, Then::Away(_) | Then::AcceptDropped);
        Settings {
            pick_up: PickUp::Polling { interval: PING },
            heartbeat: HEARTBEAT,
            noticing: Spread::Exactly(if is_away { LONG } else { secs(6) }),
            accept_within: if is_away { LONG } else { secs(5) },
            ..Settings::default()
        }
    }

    const fn slow(self) -> Slow {
        match self.at {
            At::Registering => Slow { registering: Some(SLOW), ..Slow::NONE },
            At::Accepting(_) => Slow { accepting: Some(SLOW), ..Slow::NONE },
            At::Idle | At::Assigned | At::Running(_) | At::Finishing | At::Paused | At::OneOfTwo(_) => Slow::NONE,
        }
    }

    /// Whether a process that is still there some seconds after all jobs are settled is there for good.
    const fn stays(self) -> bool {
        matches!(
            self.then,
            Then::Away(_)
                | Then::AcceptFails
                | Then::AcceptDropped
                | Then::Cancelled
                | Then::PausedThenJob
                | Then::ResumedThenJob
                | Then::Nothing
        )
    }

    pub(crate) async fn play(self, column: Column) -> Played {
        let stage = &mut Stage::new(column, self.settings(), self.slow()).await;
        let mut jobs = self.bring(stage).await;
        let mut told = vec![stage.status().await];
        let mut befell = stage.now();
        jobs.extend(self.befall(stage, &jobs, &mut told, &mut befell).await);
        self.settle(stage, &jobs).await;
        told.push(stage.status().await);
        told.dedup();
        let departed = stage.world.with(|buildkite| buildkite.departed());
        let exit = stage.exit();
        let outcome = Outcome {
            process: exit.map_or_else(|| "stays".to_owned(), |exit| format!("exit {}", exit.code)),
            agent: match (departed.disconnected, departed.lost) {
                (0, 0) if self.at == At::Registering => "never connected".to_owned(),
                (0, 0) => "connected".to_owned(),
                (_, 0) => "disconnected".to_owned(),
                (0, _) => "lost".to_owned(),
                (_, _) => "disconnected and lost".to_owned(),
            },
            jobs: jobs.iter().map(|job| fate(&stage.record(*job))).collect::<Vec<_>>().join("; "),
            told: told.join(" → "),
        };
        let exit_after = exit.map(|exit| Duration::try_from(exit.at.duration_since(befell)).unwrap_or_default());
        Played { outcome, exit_after, report: stage.report() }
    }

    /// Brings the agent into its state; the jobs that there are then.
    async fn bring(self, stage: &mut Stage) -> Vec<JobId> {
        stage.start(if matches!(self.at, At::OneOfTwo(_)) { 2 } else { 1 });
        if self.at == At::Registering {
            // Long enough for a real one to handle signals as it does by then; registration takes longer still.
            stage.pass(SLOW / 2).await;
            return Vec::new();
        }
        stage.until_up(if matches!(self.at, At::OneOfTwo(_)) { 2 } else { 1 }).await;
        match self.at {
            At::Registering | At::Idle => Vec::new(),
            At::Assigned => {
                stage.set_faults(&[Route::Ping], Some(status_of(500)));
                vec![stage.submit(secs(1))]
            }
            At::Accepting(seconds) => {
                let job = stage.submit(secs(seconds));
                until_told(stage, job).await;
                stage.pass(SLOW / 4).await;
                vec![job]
            }
            At::Running(seconds) | At::OneOfTwo(seconds) => {
                let job = stage.submit(secs(seconds) + A_WHILE);
                until_state(stage, job, JobState::Running).await;
                stage.pass(A_WHILE).await;
                vec![job]
            }
            At::Finishing => {
                stage.set_faults(&[Route::Finish], Some(status_of(500)));
                let job = stage.submit(millis(500));
                until_state(stage, job, JobState::Running).await;
                stage.pass(secs(1)).await;
                vec![job]
            }
            At::Paused => {
                let agent = stage.agent();
                stage.world.with(|buildkite| buildkite.set_agent_paused(&agent, true, buildkite.now()));
                // Two of its pings later it knows.
                stage.pass(PING * 2).await;
                Vec::new()
            }
        }
    }

    /// Does to it what befalls it; the jobs that come with it. What is told meanwhile is noted.
    async fn befall(
        self,
        stage: &mut Stage,
        jobs: &[JobId],
        told: &mut Vec<String>,
        befell: &mut jiff::Timestamp,
    ) -> Vec<JobId> {
        let mut more = Vec::new();
        match self.then {
            Then::Term => stage.term(),
            Then::TermTerm => {
                stage.term();
                if matches!(self.at, At::Accepting(_) | At::Running(_)) {
                    stage.pass(millis(100)).await;
                }
                stage.term();
            }
            Then::Kill => stage.kill(),
            Then::Away(fault) => {
                stage.set_faults(&Route::OF_AGENTS, Some(fault));
                if jobs.is_empty() {
                    more.push(stage.submit(secs(1)));
                }
                stage.pass(AWAY.saturating_sub(A_WHILE)).await;
                told.push(stage.status().await);
                stage.pass(A_WHILE).await;
                stage.set_faults(&Route::OF_AGENTS, None);
            }
            Then::Refused => stage.set_faults(&Route::OF_AGENTS, Some(status_of(401))),
            Then::HeartbeatRefused => stage.set_faults(&[Route::Heartbeat], Some(status_of(401))),
            Then::AcceptFails => more.push(accept_once(stage, status_of(500)).await),
            Then::AcceptDropped => more.push(accept_once(stage, Fault { drop: true, ..Fault::default() }).await),
            Then::FinishRefused => {
                stage.set_faults(&[Route::Finish], Some(status_of(422)));
                stage.pass(secs(2)).await;
                told.push(stage.status().await);
                stage.term();
            }
            Then::Cancelled => {
                let job = jobs[0];
                stage.world.with(|buildkite| buildkite.cancel(job, buildkite.now()));
            }
            Then::Stopped => {
                let agent = stage.agent();
                stage.world.with(|buildkite| buildkite.stop_agent(&agent, false, buildkite.now()));
            }
            Then::PausedThenJob | Then::ResumedThenJob => {
                let (agent, pauses) = (stage.agent(), self.then == Then::PausedThenJob);
                stage.world.with(|buildkite| buildkite.set_agent_paused(&agent, pauses, buildkite.now()));
                more.push(stage.submit(secs(1)));
            }
            Then::Nothing => {}
        }
        *befell = stage.now();
        // What is told right at an end is chance.
        if matches!(self.then, Then::Term | Then::TermTerm) && matches!(self.at, At::Running(_) | At::OneOfTwo(_)) {
            stage.pass(A_WHILE).await;
            told.push(stage.status().await);
        }
        if self.at == At::Finishing {
            // After the second attempt and before the third, so that it is the third for every draw of chance.
            stage.pass(secs(3)).await;
            stage.set_faults(&[Route::Finish], None);
        }
        more
    }

    /// Waits until nothing more is to come.
    async fn settle(self, stage: &mut Stage, jobs: &[JobId]) {
        let is_settled = |stage: &mut Stage| {
            let mut records = jobs.iter().map(|job| stage.record(*job));
            records.all(|record| record.end.is_some() || record.state == "scheduled")
        };
        if self.stays() {
            stage.comes_to(secs(25), is_settled).await;
            stage.pass(secs(3)).await;
            return;
        }
        stage
            .comes_to(secs(30), |stage| {
                let is_gone = stage.exit().is_some() && stage.world.with(|buildkite| buildkite.agents()) == 0;
                is_gone && is_settled(stage)
            })
            .await;
    }
}

pub(crate) fn status_of(status: u16) -> Fault {
    Fault { status: Some(status), ..Fault::default() }
}

pub(crate) async fn until_state(stage: &mut Stage, job: JobId, wanted: JobState) {
    let holds = |stage: &mut Stage| stage.world.with(|buildkite| buildkite.job(job).unwrap().state) == wanted;
    stage.until("a job's state", holds).await;
}

pub(crate) async fn until_told(stage: &mut Stage, job: JobId) {
    let holds = |stage: &mut Stage| stage.record(job).attempts.iter().any(|attempt| attempt.delivered_at.is_some());
    stage.until("it is told of its job", holds).await;
}

/// A job comes up, and the first call to accept it meets this.
async fn accept_once(stage: &mut Stage, fault: Fault) -> JobId {
    stage.set_faults(&[Route::Accept], Some(fault));
    let job = stage.submit(secs(1));
    until_told(stage, job).await;
    stage.pass(millis(100)).await;
    stage.set_faults(&[Route::Accept], None);
    job
}
