//! All that is known of how a pod went, in the order of time: for a person who has to explain why it was this one.

use std::path::Path;

use http::Method;
use jiff::Timestamp;

use super::{agents::Agents, case::Replica, told};
use crate::process_kubelet::ledger::is_signal;

/// What is told of a pod's generation begins so long before its signal.
const BEFORE: jiff::SignedDuration = jiff::SignedDuration::from_secs(40);
/// And ends so long after it.
const AFTER: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// The jobs that it was given, what was written on it, the scales of its Deployment, what the controller said, and what its
/// kubelet did.
pub(crate) fn account(agents: &Agents<'_>, replica: &Replica, log: &Path, pod: &str) -> String {
    let entries = agents.kubelet.ledger().of(pod);
    let Some(signal) = entries.iter().find(|entry| is_signal(entry)) else {
        return format!("{pod} got no signal");
    };
    let (from, to) = (signal.at - BEFORE, signal.at + AFTER);
    let generation = pod.rsplitn(3, '-').nth(2).unwrap_or(pod);
    let mut lines: Vec<(Timestamp, String)> =
        entries.iter().map(|entry| (entry.at, format!("kubelet: {entry}"))).collect();
    for (number, job) in agents.records().iter().enumerate() {
        for attempt in job.attempts.iter().filter(|attempt| attempt.hostname.as_deref() == Some(pod)) {
            lines.push((attempt.assigned_at, format!("job {number} was given to it")));
            let moments = [("accepted", job.accepted_at), ("started", job.started_at), ("finished", job.finished_at)];
            lines.extend(moments.iter().filter_map(|(what, at)| Some(((*at)?, format!("job {number} was {what}")))));
        }
    }
    for record in replica.proxy.records() {
        let is_scale = record.is_scale() && record.path.contains(&format!("/{generation}/"));
        let is_on_pod = record.method == Method::PATCH && record.path.contains(&format!("/pods/{generation}-"));
        if is_scale || is_on_pod {
            lines.push((record.at, format!("{} {} {:?}", record.path, record.body, record.status)));
        }
    }
    for line in told::told(log) {
        let is_meant = line["generation"] == generation
            || line["pod"] == pod
            || matches!(line["level"].as_str(), Some("WARN" | "ERROR"));
        if let Some(at) = told::at(&line).filter(|_| is_meant) {
            lines.push((at, format!("controller: {line}")));
        }
    }
    lines.retain(|(at, _)| (from..to).contains(at));
    lines.sort_by_key(|(at, _)| *at);
    let lines: Vec<String> = lines.into_iter().map(|(at, line)| format!("  {at} {line}")).collect();
    format!("how {pod} went:\n{}", lines.join("\n"))
}
