//! `kitepool check --live`: one pod of a pool with one job of its own making, removed again.

mod follow;
mod told;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;

use self::follow::{Follow, Outcome};
use super::{
    duration,
    plan::{self, Found, Given, refused},
};
use crate::{
    clock::Clock,
    cluster::{
        client,
        error::Error,
        library::Library,
        trial::{Sight, State, Trial},
    },
    control::pool::owner,
    pods::{
        check::{self, GRACE, Job},
        contract::AGENT_CONTAINER,
        references::{Kind, needed},
    },
    shutdown,
};

/// A deletion that the API server does not take so often is left to the person, with the command for it.
const DELETE_ATTEMPTS: u32 = 3;

/// From one look at the pod, or one attempt, to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Beyond its grace period a kubelet needs a moment to say that a pod is gone.
const GOES_WITHIN: Duration = GRACE.saturating_add(Duration::from_secs(30));

/// The flags of `kitepool check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pool.
    pool: String,

    /// Make a pod in the cluster. There is no other check, and without this word nothing is made.
    #[arg(long, required = true)]
    live: bool,

    /// What the job runs. Left out: it says who it is, writes where builds are, and asks Docker for its version where there is one.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// Run a container of this image, and build an image on it that is not kept. It needs a shell: `busybox:1.37`, for example.
    #[arg(long, value_name = "IMAGE", conflicts_with = "command")]
    docker_image: Option<String>,

    /// How long all of it may take, nodes that have to be added and images that have to be pulled included.
    #[arg(long, value_parser = duration, default_value = "15m", value_name = "DURATION")]
    deadline: Duration,

    #[command(flatten)]
    given: Given,

    /// The namespace. Left out: that of the kubeconfig's context.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Ends with success only where the job passed.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = client::config().await?;
    let library = Library::new(config.clone(), arguments.namespace)?;
    let found = plan::of_pool(&library, &arguments.pool, arguments.given).await?;
    look_for_what_it_needs(&library, &arguments.pool, &found).await?;
    let clock = Clock::machine();
    let job = Job {
        // Nobody else makes a pod of this pool's check in this very millisecond; who does is refused.
        name: format!("{}-check-{:x}", arguments.pool, clock.now().as_millisecond()),
        command: arguments.command,
        image: arguments.docker_image,
        longest: arguments.deadline,
    };
    let made = check::pod(found.planned.template(), &owner(&found.view), &found.valid.queue, &job);
    let made = made.map_err(|problem| refused(&arguments.pool, &[problem]))?;
    if !made.left_out.is_empty() {
        tell(&format!("flags of `start` that this job is run without: {}", made.left_out.join(" ")));
    }
    let place =
        Place { trial: Trial::new(config, library.namespace())?, namespace: library.namespace(), name: &job.name };
    let stop = shutdown::on_signal().context("signals cannot be received")?;
    let deadline = clock.mono() + job.longest;
    let uid = place.create(&made.pod).await?;
    tell(&format!("pod {} is made; it is removed at the end, and on Ctrl-C", job.name));
    let mut follow = Follow::new(&place.trial, &job.name, &clock, deadline);
    let outcome = follow.until_the_end(&stop).await;
    match (&outcome, follow.last()) {
        (Outcome::Failed(_), Some(sight)) => place.tell_of_others(sight).await,
        (Outcome::Stopped(_), _) => {
            tell(&format!("a second Ctrl-C leaves the pod, for you to remove: {}", place.deletion()));
        }
        (Outcome::Passed | Outcome::Failed(_), _) => {}
    }
    let is_removed = place.remove(&uid).await;
    match outcome {
        Outcome::Passed => tell("the job passed"),
        Outcome::Failed(why) | Outcome::Stopped(why) => {
            tell(&format!("not passed: {why}"));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(if is_removed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What this program has to say goes to standard error, the job's log to standard output.
fn tell(line: &str) {
    eprintln!("kitepool: {line}");
}

/// A pod that lacks a Secret waits without a word of it in its status, so it is looked for before there is a pod.
async fn look_for_what_it_needs(library: &Library, pool: &str, found: &Found) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for reference in needed(found.planned.template(), "template") {
        let name = &reference.name;
        let (kind, exists) = match reference.kind {
            Kind::Secret => ("Secret", library.has_secret(name).await),
            Kind::ServiceAccount => ("ServiceAccount", library.has_account(name).await),
        };
        match exists {
            Ok(true) => {}
            Ok(false) => missing.push(reference.missing()),
            // The kubelet is asked next.
            Err(Error::Forbidden { .. }) => {
                tell(&format!("you may not see whether {kind} {name} exists, which the pod needs"));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot see whether {kind} {name} exists")),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(refused(pool, &missing)) }
}

/// Where the pod is.
struct Place<'a> {
    trial: Trial,
    namespace: &'a str,
    name: &'a str,
}

impl Place<'_> {
    fn deletion(&self) -> String {
        format!("kubectl delete pod --namespace {} {}", self.namespace, self.name)
    }

    /// Not cut short by a signal: a pod whose creation is on its way could not be removed.
    async fn create(&self, pod: &serde_json::Value) -> anyhow::Result<String> {
        let error = match self.trial.create(pod).await {
            Ok(uid) => return Ok(uid),
            Err(error) => error,
        };
        let namespace = self.namespace;
        match error {
            Error::Forbidden { message } if message.contains(" cannot ") => anyhow::bail!(
                "the pod cannot be made, since this command has your own rights: {message}. It takes the verbs create, get and \
                 delete of pods, and get of pods/log, in namespace {namespace}"
            ),
            Error::Forbidden { .. }
            | Error::Unauthorized { .. }
            | Error::Invalid { .. }
            | Error::Conflict { .. }
            | Error::NotFound => Err(error).context("the pod cannot be made"),
            // No answer is no refusal.
            Error::Fenced(_) | Error::Deadline { .. } | Error::BudgetSpent | Error::Transport(_) => {
                self.remove("").await;
                Err(error).context("the pod cannot be made")
            }
        }
    }

    /// Whether it is gone, or surely on its way.
    async fn remove(&self, uid: &str) -> bool {
        let uid = Some(uid).filter(|uid| !uid.is_empty());
        let mut attempt = 1;
        while let Err(error) = self.trial.delete(self.name, uid).await {
            // Somebody else's pod of the same name.
            if matches!(error, Error::Conflict { .. }) {
                return true;
            }
            if attempt == DELETE_ATTEMPTS {
                tell(&format!(
                    "the pod could not be removed: {}; do it with: {}",
                    client::chain(&error),
                    self.deletion()
                ));
                return false;
            }
            attempt += 1;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let gone = async {
            while !matches!(self.trial.look(self.name).await, Ok(None)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(GOES_WITHIN, gone).await.is_err() {
            tell(&format!(
                "the pod was asked to go and is still there; see: kubectl get pod --namespace {} {}",
                self.namespace, self.name
            ));
        } else {
            tell("the pod is removed");
        }
        true
    }

    /// The job may have failed for what stands in another container's log, such as that of a daemon.
    async fn tell_of_others(&self, sight: &Sight) {
        let others = sight.containers.iter().filter(|container| container.name != AGENT_CONTAINER);
        for container in others {
            let previous = container.restarts > 0 && !matches!(container.state, State::Runs { .. });
            let has_log = previous || !matches!(container.state, State::Waits | State::Ended { code: 0, .. });
            if !has_log {
                continue;
            }
            match self.trial.tail(self.name, &container.name, previous).await {
                Ok(log) if log.trim().is_empty() => {}
                Ok(log) => tell(&format!("the end of the log of container {}:\n{}", container.name, log.trim_end())),
                Err(error) => {
                    tell(&format!("the log of container {} cannot be read: {}", container.name, client::chain(&error)));
                }
            }
        }
    }
}
