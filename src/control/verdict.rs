//! What a person should know of a pool in this tick: its conditions, and one sentence about the decision.

use kitepool_api::Problem;
use kitepool_policy::{
    breaker,
    decision::{Decision, Reason, StepName},
    spec::PoolName,
};

use serde_json::Value;

use super::{
    conditions::{Condition, ConditionType},
    pool::PlanResult,
    readings::Seen,
    snapshot::GenerationFacts,
};

/// Conditions and sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// All conditions, in their order.
    pub conditions: Vec<Condition>,
    /// Why the decision is as it is.
    pub decided: String,
}

/// Of a pool that is valid.
pub fn of(
    plan: &PlanResult,
    seen: &Seen,
    decision: Option<&Decision>,
    companions: &[PoolName],
    refusal: Option<&str>,
    generations: &[GenerationFacts],
    before: Option<&Value>,
) -> Verdict {
    let wanted = plan.as_ref().ok().map(|planned| planned.name.as_str());
    let wanted = generations.iter().find(|facts| Some(facts.seen.name.as_str()) == wanted);
    let mut conditions = vec![ready(plan, seen, decision, refusal, wanted), load_fresh(seen, decision)];
    conditions.extend(decision.map(at_limit));
    conditions.extend(decision.map(unsatisfiable));
    conditions.extend(decision.map(|decision| pods_failing(decision, wanted, before)));
    conditions.push(agents_unknown(generations, before));
    conditions.push(queue_shared(companions));
    conditions.extend(decision.map(contested));
    let decided = decision
        .and_then(|decision| decision.report.deciding())
        .map_or_else(|| "nothing was decided".to_owned(), |entry| entry.reason.to_string());
    Verdict { conditions, decided }
}

/// Of a pool that is not valid.
pub fn invalid(problems: &[Problem]) -> Condition {
    let message = format!("{}. Nothing is changed until this is mended", sentences(problems));
    Condition::new(ConditionType::Ready, false, "Invalid", message)
}

fn ready(
    plan: &PlanResult,
    seen: &Seen,
    decision: Option<&Decision>,
    refusal: Option<&str>,
    wanted: Option<&GenerationFacts>,
) -> Condition {
    let not = |reason, message: String| Condition::new(ConditionType::Ready, false, reason, message);
    if let Err(problems) = plan {
        return not("DefinitionBroken", format!("{}. What runs is kept as it is", sentences(problems)));
    }
    if let Some(problem) = &seen.token_problem {
        return not("NoToken", problem.clone());
    }
    if decision.is_none() {
        return not(
            "Refused",
            "the decision would have broken an invariant and was refused; see the controller's log".to_owned(),
        );
    }
    if let Some(refusal) = refusal {
        return not("WriteRefused", format!("{refusal}. It is tried again every few seconds"));
    }
    if let Some(message) = wanted.and_then(pods_refused) {
        return not("PodsRefused", message);
    }
    Condition::new(ConditionType::Ready, true, "Deciding", "the pool is valid and follows its queue")
}

fn load_fresh(seen: &Seen, decision: Option<&Decision>) -> Condition {
    let trust = decision.and_then(|decision| decision.report.entry(StepName::Trust)).map(|entry| &entry.reason);
    match trust {
        Some(Reason::Unchanged) => {
            Condition::new(ConditionType::LoadFresh, true, "Fresh", "Buildkite's numbers are fresh")
        }
        // The policy's own sentence holds an age, which ticks; the poller's says what went wrong.
        Some(reason) => {
            let why = seen.trouble.clone().unwrap_or_else(|| stale(reason).to_owned());
            let word = seen.reading.trouble.map_or_else(|| reason.category(), trouble_word);
            Condition::new(
                ConditionType::LoadFresh,
                false,
                word,
                format!("{why}. Nothing shrinks until a good reading comes; events still grow the pool"),
            )
        }
        None => Condition::new(ConditionType::LoadFresh, false, "Refused", "the decision was refused, see Ready"),
    }
}

/// Why the wanted generation gets no pods, if it gets none.
fn pods_refused(wanted: &GenerationFacts) -> Option<String> {
    let why = nameless(wanted.pods_refused.as_deref()?);
    Some(format!("Deployment {} gets no pods: {why}. Kubernetes tries again", wanted.seen.name))
}

/// The message without the name that was drawn for a pod and is another one at each attempt: a sentence must not tick.
fn nameless(message: &str) -> &str {
    message
        .strip_prefix("pods \"")
        .and_then(|rest| rest.split_once("\" is forbidden: "))
        .map_or(message, |(_, why)| why)
}

const fn stale(reason: &Reason) -> &'static str {
    if matches!(reason, Reason::ReadingStale { .. }) {
        "the last good reading is older than scaling.staleAfter"
    } else if matches!(reason, Reason::ReadingFromFuture { .. }) {
        "the last good reading lies in the future, so this machine's clock stepped back"
    } else {
        "Buildkite was not read yet"
    }
}

const fn trouble_word(trouble: kitepool_policy::observation::Trouble) -> &'static str {
    use kitepool_policy::observation::Trouble;
    match trouble {
        Trouble::NotRead => "NotRead",
        Trouble::NoToken => "NoToken",
        Trouble::Refused => "Refused",
        Trouble::OtherIdentity => "OtherIdentity",
        Trouble::RateLimited => "RateLimited",
        Trouble::Unreachable => "Unreachable",
        Trouble::ServerError => "ServerError",
        Trouble::Malformed => "Malformed",
    }
}

fn at_limit(decision: &Decision) -> Condition {
    let limit = decision.report.entry(StepName::Limits).map(|entry| &entry.reason);
    match limit {
        Some(
            reason
            @ (Reason::AtMin { .. } | Reason::AtMax { .. } | Reason::PausedUp { .. } | Reason::PausedDown { .. }),
        ) => Condition::new(ConditionType::AtLimit, true, reason.category(), reason.to_string()),
        // A step holds a pool for some seconds; that is its ordinary way, not a state to look at.
        _ => Condition::new(ConditionType::AtLimit, false, "WithinLimits", "no limit holds the pool"),
    }
}

fn unsatisfiable(decision: &Decision) -> Condition {
    let kind = ConditionType::Unsatisfiable;
    let Some(found) = decision.memory.unsatisfiable else {
        return Condition::new(
            kind,
            false,
            "Served",
            "no job waits beside idle agents for longer than they take to ask",
        );
    };
    // The policy's own sentence holds what runs at the moment, which is no part of this.
    let message = format!(
        "{} jobs stay queued though agents are idle, and none starts; no pool of the queue grows for them until one does. \
         Compare their agent rules with spec.tags, see in Buildkite whether the queue is paused, agents are paused, or a \
         concurrency limit holds the jobs; cancel those that shall never run",
        found.jobs
    );
    Condition::new(kind, true, "NoAgentTakesThem", message)
}

fn pods_failing(decision: &Decision, wanted: Option<&GenerationFacts>, before: Option<&Value>) -> Condition {
    let kind = ConditionType::PodsFailing;
    let failing = decision.memory.failing.as_ref().zip(wanted);
    let Some((name, failure)) = failing
        .filter(|(known, facts)| known.holds(facts.seen.pods.failing))
        .and_then(|(_, facts)| Some((&facts.seen.name, facts.failure.as_ref()?)))
    else {
        return Condition::new(
            kind,
            false,
            "ComingUp",
            "pods of the wanted definition become ready, or none is needed",
        );
    };
    let beginning = format!("Deployment {name}:");
    let message = format!(
        "{beginning} {}. No pod has become ready since, so the pool has no more than {} beyond the ready ones; it grows on as \
         soon as one does. See `kubectl describe pods --namespace {} --selector {}={name}`",
        failure.message,
        breaker::PROBES,
        decision.pool.namespace,
        kitepool_api::GENERATION_LABEL,
    );
    Condition::new(kind, true, failure.word, message).or_as_before(before, &beginning)
}

fn agents_unknown(generations: &[GenerationFacts], before: Option<&Value>) -> Condition {
    let kind = ConditionType::AgentsUnknown;
    let found = generations.iter().find_map(|facts| Some((&facts.seen.name, facts.silence.as_ref()?)));
    let Some((generation, (pod, silence))) = found else {
        return Condition::new(
            kind,
            false,
            "Answering",
            "agents say what they do when they are asked, or have yet to be",
        );
    };
    let beginning = format!("Deployment {generation}:");
    let message = format!(
        "{beginning} pod {pod}, for one, has not said for ten minutes whether its agents are busy. {}. What does not say so is never \
         taken away, so the pool may not shrink",
        silence.advice()
    );
    // Which pod is the first changes as they come and go.
    Condition::new(kind, true, silence.reason(), message).or_as_before(before, &beginning)
}

fn queue_shared(companions: &[PoolName]) -> Condition {
    if companions.is_empty() {
        return Condition::new(ConditionType::QueueShared, false, "Alone", "no other pool serves this queue");
    }
    let names = companions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let message = format!("{names} serve this queue as well; they are filled by spec.order, then by name");
    Condition::new(ConditionType::QueueShared, true, "Shared", message)
}

fn contested(decision: &Decision) -> Condition {
    if decision.memory.contested_since.is_none() {
        return Condition::new(ConditionType::Contested, false, "Alone", "nobody else scales this pool");
    }
    let message = format!(
        "somebody else changed replicas three times within ten minutes (the Events say who), so the pool does not shrink. Take \
         away what scales it, then run `kubectl annotate agentpool {} --namespace {} --overwrite {}=\"$(date)\"`",
        decision.pool.name,
        decision.pool.namespace,
        kitepool_api::RESOLVED_ANNOTATION,
    );
    Condition::new(ConditionType::Contested, true, "ScaledByOthers", message)
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kitepool_policy::{
        decision::Report,
        memory::{Failing, Memory, Unsatisfiable},
        observation::{Generation, PodCounts},
        units::{Jobs, Pods},
    };

    use super::*;
    use crate::{agents::Silence, cluster::hindrance::Failure, control::conditions::merge};

    fn decision(memory: Memory) -> Decision {
        let pool = PoolName { namespace: "ci".to_owned(), name: "linux".to_owned() };
        let report = Report { entries: Vec::new() };
        let (intents, signs, foreign, unrecorded, spared) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Decision { pool, target: Pods(1), intents, signs, foreign, unrecorded, spared, memory, report }
    }

    fn facts(failing: u32, message: &str) -> GenerationFacts {
        let pods = PodCounts { unready: Pods(failing), failing: Pods(failing), ..PodCounts::default() };
        let name = "linux-6c4f9d".to_owned();
        GenerationFacts {
            seen: Generation {
                name,
                adopted: false,
                replicas: Pods(failing),
                scaled_by_us: false,
                settled: true,
                pods,
                agents: Vec::new(),
            },
            uid: String::new(),
            foreign_scaler: None,
            pods_refused: None,
            inputs: None,
            silence: None,
            pods: std::sync::Arc::new([]),
            failure: (failing > 0).then(|| Failure { word: "ImageNotPulled", message: message.to_owned() }),
        }
    }

    #[test]
    fn failing_pods_are_told_of_in_the_kubelets_words_and_once() {
        let failing = |tolerated| {
            let generation = "linux-6c4f9d".to_owned();
            let failing = Failing { generation, ready: Pods(0), tolerated: Pods(tolerated) };
            decision(Memory { failing: Some(failing), ..Memory::default() })
        };
        let told = pods_failing(&failing(0), Some(&facts(2, "container agent: ErrImagePull: not found")), None);
        assert_eq!((told.is_true, told.reason, told.is_warning()), (true, "ImageNotPulled", true));
        assert!(told.message.starts_with("Deployment linux-6c4f9d: container agent: ErrImagePull: not found. No pod"));

        let stands = merge(None, std::slice::from_ref(&told), 1, Timestamp::UNIX_EPOCH);
        let again =
            pods_failing(&failing(0), Some(&facts(3, "container agent: ImagePullBackOff: back-off")), Some(&stands));
        assert_eq!(again, told, "the kubelet puts it in other words at every attempt");

        assert!(!pods_failing(&failing(2), Some(&facts(2, "x")), None).is_true, "tolerated");
        assert!(!pods_failing(&decision(Memory::default()), Some(&facts(0, "")), None).is_true);
        assert!(!pods_failing(&failing(0), None, None).is_true, "another generation is wanted, and is not there yet");
    }

    #[test]
    fn agents_that_say_nothing_are_told_of_with_the_reason_and_not_again_for_another_pod() {
        let silent = |pod: &str, silence| GenerationFacts { silence: Some((pod.to_owned(), silence)), ..facts(0, "") };
        let told = agents_unknown(&[silent("a", Silence::Refused)], None);
        assert_eq!((told.is_true, told.reason, told.is_warning()), (true, "PortClosed", true));
        for words in ["linux-6c4f9d", "pod a,", "BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "never taken"] {
            assert!(told.message.contains(words), "{}", told.message);
        }
        let stands = merge(None, std::slice::from_ref(&told), 1, Timestamp::UNIX_EPOCH);
        assert_eq!(agents_unknown(&[silent("b", Silence::Refused)], Some(&stands)), told);
        assert_eq!(agents_unknown(&[silent("b", Silence::TimedOut)], Some(&stands)).reason, "NoAnswer");
        assert!(!agents_unknown(&[facts(0, "")], Some(&stands)).is_true);
    }

    #[test]
    fn pods_that_cannot_be_made_are_told_of_in_the_same_words_at_every_attempt() {
        let told = |message: &str| {
            pods_refused(&GenerationFacts { pods_refused: Some(message.to_owned()), ..facts(0, "") }).unwrap()
        };
        let why = "error looking up service account ci/agents: serviceaccount \"agents\" not found";
        let first = told(&format!("pods \"linux-6c4f9d-abcde\" is forbidden: {why}"));
        assert_eq!(first, format!("Deployment linux-6c4f9d gets no pods: {why}. Kubernetes tries again"));
        assert_eq!(told(&format!("pods \"linux-6c4f9d-fghij\" is forbidden: {why}")), first);
        assert_eq!(pods_refused(&facts(1, "")), None);
    }

    #[test]
    fn jobs_that_no_agent_takes_are_told_of_with_what_to_look_at() {
        let found = Unsatisfiable { jobs: Jobs(4), since: Timestamp::UNIX_EPOCH };
        let told = unsatisfiable(&decision(Memory { unsatisfiable: Some(found), ..Memory::default() }));
        assert!(told.is_true && told.is_warning());
        for words in ["4 jobs", "spec.tags", "paused", "concurrency limit"] {
            assert!(told.message.contains(words), "{}", told.message);
        }
        assert!(!unsatisfiable(&decision(Memory::default())).is_true);
    }
}
