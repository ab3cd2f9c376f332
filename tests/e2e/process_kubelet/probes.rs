//! Probes and hooks: what the kubelet asks of a container or does beside it.

use std::{net::Ipv4Addr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use super::launch::Running;

/// Whom a probe asks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: Ipv4Addr,
    pub(crate) container: Container,
    pub(crate) running: Running,
    pub(crate) http: reqwest::Client,
}

/// For probes and hooks over HTTP.
pub(crate) fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    client.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// How a probe is to be carried out, with the defaults of Kubernetes.
#[derive(Debug, Clone, Copy)]
struct Course {
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Course {
    fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let times = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|times| *times > 0).unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: times(probe.success_threshold, 1),
            failures: times(probe.failure_threshold, 3),
        }
    }
}

/// Asks for ever, and tells each verdict: `Ok` after enough successes, `Err` after enough failures, in a row.
async fn verdicts(probe: &Probe, target: &Target, mut verdict: impl FnMut(Result<(), String>) -> bool) {
    let course = Course::of(probe);
    tokio::time::sleep(course.initial_delay).await;
    let mut ticks = tokio::time::interval(course.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut successes, mut failures) = (0, 0);
    loop {
        ticks.tick().await;
        let goes_on = match once(probe, target, course.timeout).await {
            Ok(()) => {
                (successes, failures) = (successes + 1, 0);
                successes < course.successes || verdict(Ok(()))
            }
            Err(trouble) => {
                (successes, failures) = (0, failures + 1);
                failures < course.failures || verdict(Err(trouble))
            }
        };
        if !goes_on {
            return;
        }
    }
}

/// Tells of readiness as long as it is polled.
pub(crate) async fn readiness(probe: &Probe, target: &Target, mut tell: impl FnMut(Result<(), String>)) {
    verdicts(probe, target, |verdict| {
        tell(verdict);
        true
    })
    .await;
}

/// Ends when the probe has failed.
pub(crate) async fn until_unhealthy(probe: &Probe, target: &Target) -> String {
    let mut said = String::new();
    verdicts(probe, target, |verdict| verdict.map_err(|trouble| said = trouble).is_ok()).await;
    said
}

/// Ends with the first verdict.
pub(crate) async fn startup(probe: &Probe, target: &Target) -> Result<(), String> {
    let mut said = Ok(());
    verdicts(probe, target, |verdict| {
        said = verdict;
        false
    })
    .await;
    said
}

async fn once(probe: &Probe, target: &Target, timeout: Duration) -> Result<(), String> {
    if let Some(action) = &probe.http_get {
        get(action, target, timeout).await
    } else if let Some(action) = &probe.tcp_socket {
        connect(action, target, timeout).await
    } else if let Some(action) = &probe.exec {
        target.running.run(&command(action), timeout).await
    } else {
        Err("this kubelet knows no gRPC probe".to_owned())
    }
}

fn command(action: &ExecAction) -> Vec<String> {
    action.command.clone().unwrap_or_default()
}

/// Does what a hook says. Whoever calls bounds its time; `at_most` is for what it starts.
pub(crate) async fn hook(hook: &LifecycleHandler, target: &Target, at_most: Duration) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        target.running.run(&command(action), at_most).await
    } else if let Some(action) = &hook.http_get {
        get(action, target, at_most).await
    } else if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or_default())).await;
        Ok(())
    } else {
        Err("this kubelet knows no such hook".to_owned())
    }
}

/// A number, or the name of one of the container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("there is no port {port:?}"))
}

async fn get(action: &HTTPGetAction, target: &Target, timeout: Duration) -> Result<(), String> {
    if action.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
        return Err("this kubelet asks over HTTP only".to_owned());
    }
    let host = action.host.clone().unwrap_or_else(|| target.address.to_string());
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("http://{host}:{}{path}", port(&action.port, &target.container)?);
    let mut request = target.http.get(&url).timeout(timeout).header("user-agent", "kube-probe/1.36");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let status = request.send().await.map_err(|error| format!("Get \"{url}\": {error}"))?.status().as_u16();
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {status}")) }
}

async fn connect(action: &TCPSocketAction, target: &Target, timeout: Duration) -> Result<(), String> {
    let host = action.host.clone().unwrap_or_else(|| target.address.to_string());
    let port = port(&action.port, &target.container)?;
    match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
        Err(_elapsed) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}
