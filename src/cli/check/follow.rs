//! Looks at the pod until its job has ended, tells what is new, and passes the job's log on.

use std::{collections::BTreeSet, io, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{LOOK_EVERY, tell, told};
use crate::{
    clock::Clock,
    cluster::{
        client::chain,
        error::Error,
        hindrance::{Failure, Hindrance},
        trial::{Sight, State, Trial},
    },
    pods::contract::AGENT_CONTAINER,
};

/// What the kubelet fails at for so long, it goes on failing at: a registry or a volume that was away for a moment is back by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// The last lines of a job that has ended are on their way for no longer.
const LOG_REST: Duration = Duration::from_secs(10);

/// A log that ends has either ended with its container, which is known so much later at the latest, or broken off, as where something
/// on the way ends what is silent for minutes.
const ENDS_KNOWN_AFTER: Duration = Duration::from_secs(5);

/// From where a log that broke off goes on: a line may come twice, and none is lost.
const LOG_AGAIN_SECONDS: i64 = 8;

/// A message that changes with every look is told no more often.
const LINES_MAX: usize = 1_000;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The job passed.
    Passed,
    /// It did not, and this is why.
    Failed(String),
    /// A person did not want to wait.
    Stopped(String),
}

/// One pod that is followed.
pub(super) struct Follow<'a> {
    trial: &'a Trial,
    name: &'a str,
    clock: &'a Clock,
    deadline: Instant,
    last: Option<Sight>,
    told: BTreeSet<String>,
    /// What it fails at, as it was first told, and when it would have failed at it for too long.
    failing: Option<(Failure, Instant)>,
    log: Option<JoinHandle<Result<(), Error>>>,
    /// Cancelled when the job has ended.
    ended: CancellationToken,
}

impl<'a> Follow<'a> {
    pub(super) fn new(trial: &'a Trial, name: &'a str, clock: &'a Clock, deadline: Instant) -> Self {
        Self {
            trial,
            name,
            clock,
            deadline,
            last: None,
            told: BTreeSet::new(),
            failing: None,
            log: None,
            ended: CancellationToken::new(),
        }
    }

    /// What was seen last.
    pub(super) const fn last(&self) -> Option<&Sight> {
        self.last.as_ref()
    }

    /// Until the job has ended, or there is no use in waiting.
    pub(super) async fn until_the_end(&mut self, stop: &CancellationToken) -> Outcome {
        let deadline = self.deadline;
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Outcome::Stopped("you stopped it".to_owned()),
            outcome = self.look_until_it_ends() => outcome,
            () = sleep_until(deadline) => Outcome::Failed(format!(
                "the deadline is over: {}; raise --deadline if that was to be expected",
                self.last.as_ref().map_or_else(|| "the pod was never seen".to_owned(), told::waits_for)
            )),
        };
        self.end_log().await;
        outcome
    }

    async fn look_until_it_ends(&mut self) -> Outcome {
        loop {
            match self.trial.look(self.name).await {
                Ok(None) => return Outcome::Failed("somebody else deleted the pod".to_owned()),
                Ok(Some(sight)) => {
                    let outcome = self.see(&sight);
                    self.last = Some(sight);
                    if let Some(outcome) = outcome {
                        return outcome;
                    }
                }
                Err(error) => {
                    let text = chain(&error);
                    if error.refusal().is_some() {
                        return Outcome::Failed(format!("the pod cannot be seen: {text}"));
                    }
                    self.tell_once(format!("the pod cannot be seen at the moment: {text}"));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Answers once there is an end.
    fn see(&mut self, sight: &Sight) -> Option<Outcome> {
        for line in told::lines(sight) {
            self.tell_once(line);
        }
        match sight.agent().map(|agent| &agent.state) {
            Some(State::Ended { code, reason }) => {
                self.start_log();
                return Some(if *code == 0 { Outcome::Passed } else { Outcome::Failed(told::end(*code, reason)) });
            }
            Some(State::Runs { .. }) => self.start_log(),
            Some(State::Waits) | None => {}
        }
        if let Some(why) = &sight.over {
            return Some(Outcome::Failed(format!("the pod ended before its job did: {why}")));
        }
        self.fails_for_good(sight.hindrance.as_ref()).map(Outcome::Failed)
    }

    fn fails_for_good(&mut self, hindrance: Option<&Hindrance>) -> Option<String> {
        let Some(Hindrance::Failing(failure)) = hindrance else {
            self.failing = None;
            return None;
        };
        let now = self.clock.mono();
        // The first message says what is wrong, later ones how long the kubelet waits until it tries again.
        let known = self.failing.take().filter(|(known, _)| known.word == failure.word);
        let (first, given_up) = known.unwrap_or_else(|| (failure.clone(), now + PATIENCE));
        let Failure { word, message } = &first;
        let why = (now >= given_up).then(|| format!("{word}: {message}; {}", told::remedy(word)));
        self.failing = Some((first, given_up));
        why
    }

    fn tell_once(&mut self, line: String) {
        if self.told.len() < LINES_MAX && !self.told.contains(&line) {
            tell(&line);
            self.told.insert(line);
        }
    }

    fn start_log(&mut self) {
        if self.log.is_some() {
            return;
        }
        let (trial, name) = (self.trial.clone(), self.name.to_owned());
        self.log = Some(tokio::spawn(pass_log_on(trial, name, self.ended.clone())));
    }

    async fn end_log(&mut self) {
        let Some(mut log) = self.log.take() else { return };
        self.ended.cancel();
        let agent = self.last.as_ref().and_then(Sight::agent);
        let has_ended = agent.is_some_and(|agent| matches!(agent.state, State::Ended { .. }));
        // A log that goes on has no rest.
        let rest = if has_ended { LOG_REST } else { Duration::ZERO };
        match timeout(rest, &mut log).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tell(&format!("the job's log cannot be read: {}", chain(&error))),
            Ok(Err(_)) | Err(_) => log.abort(),
        }
    }
}

/// Until the job has ended and all that it said is passed on.
async fn pass_log_on(trial: Trial, name: String, ended: CancellationToken) -> Result<(), Error> {
    let mut since = None;
    loop {
        trial.copy_log(&name, AGENT_CONTAINER, since, &mut io::stdout()).await?;
        if timeout(ENDS_KNOWN_AFTER, ended.cancelled()).await.is_ok() {
            return Ok(());
        }
        if since.is_none() {
            tell("the job's log broke off and goes on here, maybe with some lines once more");
        }
        since = Some(LOG_AGAIN_SECONDS);
    }
}
