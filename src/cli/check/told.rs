//! What is told of a pod: sentences about how far it is, what it waits for, and what to do.

use crate::cluster::{
    hindrance::{Failure, Hindrance},
    trial::{Sight, State},
};
use crate::pods::contract::AGENT_CONTAINER;

/// All that is to be said of it now, the earliest first.
pub(super) fn lines(sight: &Sight) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(sight.node.as_ref().map(|node| format!("it has a node: {node}")));
    for container in &sight.containers {
        let name = &container.name;
        match &container.state {
            State::Waits => {}
            State::Runs { .. } if name == AGENT_CONTAINER => {
                lines.push("container agent runs; what follows on standard output is the job's log".to_owned());
            }
            State::Runs { is_started: true } => lines.push(format!("container {name} runs")),
            State::Runs { is_started: false } => lines.push(format!("container {name} runs, and is not up yet")),
            State::Ended { code, reason } => {
                lines.push(format!("container {name} has ended: {}", with_code(*code, reason)));
            }
        }
    }
    match &sight.hindrance {
        Some(Hindrance::Unscheduled { message, .. }) => {
            lines.push(format!("it waits for a node: {message}; {}", remedy("Unschedulable")));
        }
        Some(Hindrance::Failing(Failure { word, message })) => lines.push(format!("{word}: {message}")),
        Some(Hindrance::Starting { .. }) | None => {}
    }
    lines
}

/// What to do about a word of [`Hindrance`].
pub(super) fn remedy(word: &str) -> &'static str {
    match word {
        "Unschedulable" => {
            "make room for it, or let nodes have what the definition's nodeSelector, tolerations and requests ask for"
        }
        "ImageNotPulled" => {
            "build and push it (pod-library/images/build makes those of the pod library), name another one in spec.overrides.image \
             of the pool, or give the definition its imagePullSecrets"
        }
        "ContainerNotStarted" => "create what it names in the pool's namespace, or mend the definition",
        "Crashing" => "see the end of its log, and mend the definition",
        _ => "see kubectl describe pod",
    }
}

/// How a job ended that did not pass.
pub(super) fn end(code: i32, reason: &str) -> String {
    let more = if reason == "OOMKilled" { "; raise the memory limit of container agent" } else { "" };
    format!("the job ended with {}{more}", with_code(code, reason))
}

/// What a pod waits for whose time is over.
pub(super) fn waits_for(sight: &Sight) -> String {
    if let Some(line) =
        lines(sight).pop().filter(|_| !matches!(sight.hindrance, Some(Hindrance::Starting { .. }) | None))
    {
        return line;
    }
    let is_up = |state: &State| matches!(state, State::Ended { .. } | State::Runs { is_started: true });
    match sight.containers.iter().find(|container| !is_up(&container.state)) {
        Some(container) if matches!(container.state, State::Runs { .. }) && container.name != AGENT_CONTAINER => {
            format!(
                "container {} did not come up: its startup probe has not passed; see the end of its log",
                container.name
            )
        }
        Some(container) if matches!(container.state, State::Waits) => format!(
            "container {} was not started; volumes, images and networks are what a node waits for, and `kubectl describe pod` names it",
            container.name
        ),
        None if sight.node.is_none() => "it has no node, and no scheduler has said why".to_owned(),
        None if sight.containers.is_empty() => {
            "its node has not begun with it; see whether that node is ready".to_owned()
        }
        Some(_) | None => "the job has not ended".to_owned(),
    }
}

fn with_code(code: i32, reason: &str) -> String {
    let is_news = !matches!(reason, "" | "Error" | "Completed");
    format!("exit code {code}{}", if is_news { format!(" ({reason})") } else { String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::trial::Seen;

    fn seen(name: &str, state: State) -> Seen {
        Seen { name: name.to_owned(), state, restarts: 0 }
    }

    fn sight(containers: Vec<Seen>) -> Sight {
        let hindrance = Some(Hindrance::Starting { since: None, message: String::new() });
        Sight { node: Some("n".to_owned()), hindrance, containers, over: None }
    }

    const STARTED: State = State::Runs { is_started: true };
    const NOT_UP: State = State::Runs { is_started: false };

    #[test]
    fn each_step_of_a_pod_is_told() {
        let ended = State::Ended { code: 0, reason: "Completed".to_owned() };
        let told = lines(&sight(vec![
            seen("program", ended),
            seen("dockerd", NOT_UP),
            seen("redis", STARTED),
            seen("agent", State::Waits),
        ]));
        let expected = [
            "it has a node: n",
            "container program has ended: exit code 0",
            "container dockerd runs, and is not up yet",
            "container redis runs",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_hinders_a_pod_is_told_with_what_to_do() {
        let unscheduled = Hindrance::Unscheduled { since: None, message: "0/3 nodes".to_owned() };
        let waiting = Sight { node: None, hindrance: Some(unscheduled), containers: Vec::new(), over: None };
        assert!(lines(&waiting)[0].starts_with("it waits for a node: 0/3 nodes; make room"));
        assert_eq!(waits_for(&waiting), lines(&waiting)[0]);
        let failure = Failure { word: "ImageNotPulled", message: "container agent: ErrImagePull".to_owned() };
        let failing = Sight { hindrance: Some(Hindrance::Failing(failure)), ..sight(Vec::new()) };
        assert_eq!(lines(&failing)[1], "ImageNotPulled: container agent: ErrImagePull");
    }

    #[test]
    fn a_deadline_names_the_container_that_it_waited_for() {
        let of = |dockerd: State, agent: State| waits_for(&sight(vec![seen("dockerd", dockerd), seen("agent", agent)]));
        assert!(of(NOT_UP, State::Waits).starts_with("container dockerd did not come up"));
        assert!(of(STARTED, State::Waits).starts_with("container agent was not started"));
        assert_eq!(of(STARTED, NOT_UP), "the job has not ended");
        assert_eq!(of(STARTED, STARTED), "the job has not ended");
    }

    #[test]
    fn a_job_that_ran_out_of_memory_is_told_so() {
        assert_eq!(end(3, "Error"), "the job ended with exit code 3");
        assert!(end(137, "OOMKilled").starts_with("the job ended with exit code 137 (OOMKilled); raise"));
    }
}
