//! `kitepool controller`: flags, each also from the environment, made into what the loop needs.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::Context as _;

use super::{duration, first, webhook};
use crate::{
    control::run::{self, Config, ProbeWay},
    shutdown,
    telemetry::{self, LogFormat},
};

/// Buildkite asks for ten seconds and refuses below one; above five minutes every reading would be stale when it is used.
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL_MAX: Duration = Duration::from_mins(5);
/// An answer that takes longer is of no use to a decision.
const POLL_DEADLINE_MAX: Duration = Duration::from_mins(1);

/// The flags of `kitepool controller`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A namespace to look after; may be given several times, or with commas in the environment.
    /// Left out: the namespace that the controller runs in.
    #[arg(long = "namespace", env = "KITEPOOL_NAMESPACE", value_delimiter = ',', value_name = "NAMESPACE")]
    namespaces: Vec<String>,

    /// Buildkite's agent API. When given it is also given to the agents.
    #[arg(long, env = "KITEPOOL_BUILDKITE_ENDPOINT", value_name = "URL")]
    buildkite_endpoint: Option<String>,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "KITEPOOL_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// How often each token's metrics are asked for; Buildkite may ask for more patience.
    #[arg(long, env = "KITEPOOL_POLL_INTERVAL", default_value = "10s", value_name = "DURATION", value_parser = duration)]
    poll_interval: Duration,

    /// How long Buildkite may take to answer.
    #[arg(long, env = "KITEPOOL_POLL_DEADLINE", default_value = "10s", value_name = "DURATION", value_parser = duration)]
    poll_deadline: Duration,

    /// Requests to Buildkite per minute, all tokens together.
    #[arg(long, env = "KITEPOOL_BUILDKITE_BUDGET", default_value = "120", value_name = "REQUESTS")]
    buildkite_budget: NonZeroU32,

    /// Writes to the API server per second, the lease apart. A quarter may come at once: two for each of fifty pools that a
    /// burst of jobs raises.
    #[arg(long, env = "KITEPOOL_WRITE_BUDGET", default_value = "400", value_name = "WRITES")]
    write_budget: NonZeroU32,

    /// Where `spec.token.file` of a pool may lie. Whoever may write a pool must not be able to have any other file of the
    /// controller sent to Buildkite.
    #[arg(long, env = "KITEPOOL_TOKEN_FOLDER", default_value = "/mnt", value_name = "FOLDER")]
    token_folder: String,

    /// Decide and explain, write nothing at all but the lease; and the hints of a webhook, where one is asked for.
    #[arg(long, env = "KITEPOOL_DRY_RUN")]
    dry_run: bool,

    /// The lease that makes one replica the leader.
    #[arg(long, env = "KITEPOOL_LEASE_NAME", default_value = "kitepool", value_name = "NAME")]
    lease_name: String,

    /// The lease's namespace. Left out: the namespace that the controller runs in.
    #[arg(long, env = "KITEPOOL_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Who we are in the lease. Left out: the pod's name.
    #[arg(long, env = "KITEPOOL_IDENTITY", value_name = "NAME")]
    identity: Option<String>,

    /// The kubelet's name for the pod, from the environment.
    #[arg(long, env = "HOSTNAME", hide = true, default_value = "")]
    hostname: String,

    /// Where to take down what each tick saw and decided, a line of JSON for each queue: what a report of a strange decision
    /// should bring along. It holds no token, and with the FILE.1 beside it never more than 128 MiB.
    #[arg(long, env = "KITEPOOL_RECORD", value_name = "FILE")]
    record: Option<PathBuf>,

    /// How agents are asked whether they are busy: by their pods' addresses, or through the API server (which needs the right
    /// to `get` on `pods/proxy`). `auto` takes the first inside of the cluster and the second elsewhere.
    #[arg(long, env = "KITEPOOL_PROBE", value_enum, default_value = "auto", value_name = "WAY")]
    probe: Probe,

    #[command(flatten)]
    first: first::FirstProcess,

    #[command(flatten)]
    webhook: webhook::Arguments,

    /// How a log line is written.
    #[arg(long, env = "KITEPOOL_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,

    /// What is logged, as a filter such as `info,kitepool=debug`. The Kubernetes client says again, for each attempt, what
    /// the controller says once.
    #[arg(long, env = "KITEPOOL_LOG", default_value = telemetry::DEFAULT_FILTER, value_name = "FILTER")]
    log: String,
}

/// The way to agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Probe {
    Auto,
    Direct,
    Proxy,
}

/// Runs the controller until a signal comes.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::install(arguments.log_format, &arguments.log)?;
    let kubernetes = crate::cluster::client::config().await?;
    let config = validate(arguments, &kubernetes.default_namespace, crate::cluster::client::is_inside(&kubernetes))?;
    if config.first.is_none() {
        tracing::info!(
            "no --first-image: nothing is added to agents' pods that keeps a second SIGTERM from their jobs"
        );
    }
    let stop = shutdown::on_signal().context("signals cannot be received")?;
    run::run(config, kubernetes, None, stop).await
}

/// All contradictions at once.
fn validate(arguments: Arguments, own_namespace: &str, is_inside: bool) -> anyhow::Result<Config> {
    let mut problems = Vec::new();
    let namespaces = namespaces(&arguments.namespaces, own_namespace, &mut problems);
    check_pace(&arguments, &mut problems);
    let endpoint = arguments.buildkite_endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    if let Some(endpoint) = &endpoint
        && !(endpoint.starts_with("https://") || endpoint.starts_with("http://"))
    {
        problems.push(format!(
            "--buildkite-endpoint {endpoint:?}: no address; give something like https://agent.buildkite.com/v3"
        ));
    }
    if !arguments.token_folder.starts_with('/') || arguments.token_folder.contains("..") {
        problems.push(format!(
            "--token-folder {:?}: no absolute path; begin it with / and leave out `..`",
            arguments.token_folder
        ));
    }
    let identity = arguments.identity.unwrap_or(arguments.hostname);
    if identity.is_empty() {
        problems.push(
            "--identity: HOSTNAME is not set, so the lease needs a name for us; give one that no other replica has"
                .to_owned(),
        );
    }
    let first = arguments.first.image().unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let webhook = arguments.webhook.validate(&namespaces, &mut problems);
    if !problems.is_empty() {
        anyhow::bail!("the flags do not make sense:\n  {}", problems.join("\n  "));
    }
    Ok(Config {
        lease_namespace: arguments.lease_namespace.unwrap_or_else(|| own_namespace.to_owned()),
        lease_name: arguments.lease_name,
        namespaces,
        endpoint,
        listen: arguments.listen,
        poll_interval: arguments.poll_interval,
        poll_deadline: arguments.poll_deadline,
        buildkite_budget: arguments.buildkite_budget,
        write_budget: arguments.write_budget,
        token_folder: arguments.token_folder,
        is_dry_run: arguments.dry_run,
        identity,
        record: arguments.record,
        webhook,
        probe: match arguments.probe {
            Probe::Direct => ProbeWay::Direct,
            Probe::Auto if is_inside => ProbeWay::Direct,
            Probe::Auto | Probe::Proxy => ProbeWay::Proxy,
        },
        first,
    })
}

/// The namespaces to look after, sorted; the own one where none is given.
fn namespaces(given: &[String], own: &str, problems: &mut Vec<String>) -> Vec<String> {
    let mut namespaces: Vec<String> = given.iter().map(|namespace| namespace.trim().to_owned()).collect();
    namespaces.retain(|namespace| !namespace.is_empty());
    if namespaces.is_empty() {
        namespaces.push(own.to_owned());
    }
    namespaces.sort();
    let count = namespaces.len();
    namespaces.dedup();
    if namespaces.len() < count {
        problems.push("--namespace: one is given twice; give each once".to_owned());
    }
    for namespace in &namespaces {
        if !is_dns_label(namespace) {
            problems.push(format!(
                "--namespace {namespace:?}: no namespace can be named so; use lower-case letters, digits and `-`"
            ));
        }
    }
    namespaces
}

/// Whether interval, deadline and budget go together.
fn check_pace(arguments: &Arguments, problems: &mut Vec<String>) {
    if !(POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX).contains(&arguments.poll_interval) {
        problems.push(format!(
            "--poll-interval {}: out of bounds; give something between 1s and 5m",
            humantime::format_duration(arguments.poll_interval)
        ));
    }
    if !(POLL_INTERVAL_MIN..=POLL_DEADLINE_MAX).contains(&arguments.poll_deadline) {
        problems.push(format!(
            "--poll-deadline {}: out of bounds; give something between 1s and 1m",
            humantime::format_duration(arguments.poll_deadline)
        ));
    }
    let per_token = u32::try_from(arguments.poll_interval.as_secs()).unwrap_or(u32::MAX).max(1);
    if arguments.buildkite_budget.get() < 60_u32.div_ceil(per_token) {
        problems.push(format!(
            "--buildkite-budget {}: not enough to ask even one token each {}; raise it, or --poll-interval",
            arguments.buildkite_budget,
            humantime::format_duration(arguments.poll_interval)
        ));
    }
}

fn is_dns_label(name: &str) -> bool {
    const LABEL_BYTES_MAX: usize = 63;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= LABEL_BYTES_MAX
        && name.chars().all(legal)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn validated(flags: &[&str]) -> Result<Config, String> {
        let line =
            Line::try_parse_from(std::iter::once("x").chain(flags.iter().copied())).map_err(|e| e.to_string())?;
        validate(line.arguments, "here", true).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_own_namespace_is_the_default() {
        let config = validated(&["--identity", "a"]).unwrap();
        assert_eq!((config.namespaces, config.lease_namespace), (vec!["here".to_owned()], "here".to_owned()));
        let config = validated(&["--identity", "a", "--namespace", "b,a", "--namespace", "c"]).unwrap();
        assert_eq!(config.namespaces, ["a", "b", "c"]);
    }

    #[test]
    fn all_contradictions_are_told_at_once() {
        let flags = [
            "--identity",
            "a",
            "--namespace",
            "x,x",
            "--namespace",
            "Not_A_Namespace",
            "--poll-interval",
            "1h",
            "--buildkite-endpoint",
            "agent.buildkite.com",
        ];
        let text = validated(&flags).unwrap_err();
        for part in ["given twice", "Not_A_Namespace", "between 1s and 5m", "https://agent.buildkite.com/v3"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn the_webhook_s_flags_go_together_or_all_that_is_wrong_is_told() {
        let config = validated(&["--identity", "a", "--webhook-listen", "0.0.0.0:8443", "--webhook-secret-file", "/s"]);
        let webhook = config.unwrap().webhook.unwrap();
        assert_eq!((webhook.namespace.as_str(), webhook.secret_files.len()), ("here", 1));
        assert!(validated(&["--identity", "a"]).unwrap().webhook.is_none());
        let text = validated(&[
            "--identity",
            "a",
            "--namespace",
            "a,b",
            "--webhook-listen",
            "0.0.0.0:8443",
            "--webhook-tls-cert",
            "/tls.crt",
        ])
        .unwrap_err();
        for part in ["--webhook-secret-file: 0 of them", "one without the other", "--webhook-namespace: several"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let text = validated(&["--identity", "a", "--webhook-secret-file", "/s"]).unwrap_err();
        assert!(text.contains("give --webhook-listen too"), "{text}");
    }

    #[test]
    fn a_duration_is_refused_with_an_example() {
        let text = validated(&["--identity", "a", "--poll-interval", "10 parsecs"]).unwrap_err();
        assert!(text.contains("`10s`"), "{text}");
    }

    #[test]
    fn the_first_process_comes_from_an_image_or_not_at_all() {
        assert_eq!(validated(&["--identity", "a"]).unwrap().first, None);
        assert_eq!(validated(&["--identity", "a", "--first-image", ""]).unwrap().first, None);
        let flags = ["--identity", "a", "--first-image", "kitepool:1", "--first-pull-secret", "b,c"];
        let first = validated(&flags).unwrap().first.unwrap();
        assert_eq!((first.image.as_str(), first.pull_secrets), ("kitepool:1", vec!["b".to_owned(), "c".to_owned()]));
        assert!(validated(&["--identity", "a", "--first-image", "a b"]).unwrap_err().contains("--first-image"));
        assert!(validated(&["--identity", "a", "--first-pull-secret", "b"]).unwrap_err().contains("--first-image"));
    }

    #[test]
    fn a_budget_too_small_for_one_token_is_a_contradiction() {
        let text = validated(&["--identity", "a", "--poll-interval", "1s", "--buildkite-budget", "10"]).unwrap_err();
        assert!(text.contains("--buildkite-budget 10"), "{text}");
    }
}
