//! Who goes: the choice, the sign, the second question, and what is said when others went.

use jiff::Timestamp;
use kitepool_policy::{
    check,
    check::Invariant,
    decide,
    decision::{Decision, SignChange, StepName},
    memory::{Lowered, Round},
    observation::{AgentPod, AgentState, QueueObservation, Rank, Sign},
    spec::{Limits, Mode},
    units::{Agents, AgentsPerPod, Pods},
    violations,
    violations::{History, Tick},
};

use crate::build::{at, category, entry, load, pool, queue, read_again, scale, secs, step};

/// Six pods `a-ready-000` to `-005`, so many of their agents busy by everybody's word, nothing in their way.
fn six(running: u32) -> QueueObservation {
    let mut queue = queue(load(0, running, 6 - running), vec![pool(6)]);
    let down = &mut queue.pools[0].spec.scale_down;
    (down.window, down.cooldown, down.step, down.min_age) = (secs(0), secs(0), step(100, 1, 10), secs(60));
    for number in 0..running {
        let pod = pod(&mut queue, 5 - number);
        (pod.state, pod.sign) = (AgentState::Busy(Agents(1)), Sign::Busy);
    }
    queue
}

fn pod(queue: &mut QueueObservation, number: u32) -> &mut AgentPod {
    let name = format!("a-ready-{number:03}");
    queue.pools[0].generations[0].agents.iter_mut().find(|pod| pod.name == name).unwrap()
}

fn decided(queue: &QueueObservation, now: Timestamp) -> Decision {
    let mut decisions = decide(queue, now);
    assert_eq!(check(queue, &decisions, now), []);
    decisions.remove(0)
}

/// Records the decision's memory and puts up its signs.
fn go_on(queue: &mut QueueObservation, decision: &Decision) {
    queue.pools[0].memory = decision.memory.clone();
    for SignChange { uid, sign, .. } in &decision.signs {
        let agents = &mut queue.pools[0].generations[0].agents;
        agents.iter_mut().find(|pod| pod.uid == *uid).unwrap().sign = *sign;
    }
}

/// Everybody was asked at this instant.
fn ask(queue: &mut QueueObservation, now: Timestamp) {
    for pod in &mut queue.pools[0].generations[0].agents {
        pod.asked_at = Some(now);
    }
}

/// Up to where all that are chosen bear the sign: chosen at 20, asked since.
fn marked(running: u32) -> QueueObservation {
    let mut queue = six(running);
    let chosen = decided(&queue, at(20));
    go_on(&mut queue, &chosen);
    let signed = decided(&queue, at(21));
    go_on(&mut queue, &signed);
    ask(&mut queue, at(22));
    queue
}

fn chosen(decision: &Decision) -> Vec<&str> {
    let victims = decision.memory.rounds.values().flat_map(|round| &round.victims);
    victims.map(|victim| victim.name.trim_start_matches("a-")).collect()
}

fn signs(decision: &Decision) -> Vec<(&str, Sign)> {
    decision.signs.iter().map(|change| (change.pod.trim_start_matches("a-"), change.sign)).collect()
}

fn shrink(decision: &Decision) -> &'static str {
    category(decision, StepName::Shrink)
}

#[test]
fn pods_are_chosen_then_marked_then_asked_again_then_taken() {
    let mut queue = six(4);
    let first = decided(&queue, at(20));
    assert_eq!((chosen(&first), shrink(&first)), (vec!["ready-000", "ready-001"], "Choosing"));
    assert!(
        first.intents.is_empty() && first.signs.is_empty(),
        "the choice is recorded before anything is written on pods"
    );
    go_on(&mut queue, &first);

    let second = decided(&queue, at(21));
    assert_eq!(signs(&second), [("ready-000", Sign::Leaving), ("ready-001", Sign::Leaving)]);
    go_on(&mut queue, &second);

    ask(&mut queue, at(29));
    assert_eq!(shrink(&decided(&queue, at(29))), "AskingAgain", "a ping has not passed");
    ask(&mut queue, at(30));
    let last = decided(&queue, at(31));
    assert_eq!(last.intents, [scale("a", 6, 4)]);
    let lowered = Some(Lowered { from: Pods(6), to: Pods(4) });
    assert_eq!(last.memory.rounds["a"].lowered, lowered);
    assert_eq!(shrink(&decided(&queue, at(41))), "AskingAgain", "an answer is good for ten seconds");
}

#[test]
fn a_chosen_one_that_found_work_is_let_go_and_the_others_go() {
    let mut queue = marked(4);
    pod(&mut queue, 0).state = AgentState::Busy(Agents(1));
    let let_go = decided(&queue, at(23));
    assert_eq!((chosen(&let_go), signs(&let_go)), (vec!["ready-001"], vec![("ready-000", Sign::Busy)]));
    go_on(&mut queue, &let_go);
    ask(&mut queue, at(30));
    assert_eq!(decided(&queue, at(30)).intents, [scale("a", 6, 5)]);
}

#[test]
fn a_round_begins_anew_with_more_in_its_first_moments_and_not_later() {
    let mut queue = six(5);
    let first = decided(&queue, at(20));
    assert_eq!(chosen(&first), ["ready-000"]);
    go_on(&mut queue, &first);
    (pod(&mut queue, 1).state, pod(&mut queue, 1).sign) = (AgentState::Idle, Sign::Plain);
    read_again(&mut queue, load(0, 4, 2), at(18));
    let anew = decided(&queue, at(22));
    let round = &anew.memory.rounds["a"];
    assert_eq!((chosen(&anew), round.since), (vec!["ready-000", "ready-001"], at(22)));
    assert_eq!(chosen(&decided(&queue, at(23))), ["ready-000"]);
}

#[test]
fn one_that_does_not_answer_any_more_is_let_go() {
    let mut queue = marked(4);
    pod(&mut queue, 0).state = AgentState::Unknown;
    let let_go = decided(&queue, at(23));
    assert_eq!((chosen(&let_go), signs(&let_go)), (vec!["ready-001"], vec![("ready-000", Sign::Plain)]));
}

#[test]
fn demand_that_returns_lets_go_of_as_many_as_it_needs() {
    let mut queue = marked(4);
    read_again(&mut queue, load(1, 4, 2), at(25));
    let less = decided(&queue, at(25));
    assert_eq!((chosen(&less), signs(&less)), (vec!["ready-000"], vec![("ready-001", Sign::Plain)]));
    read_again(&mut queue, load(3, 4, 2), at(26));
    let none = decided(&queue, at(26));
    assert!(none.memory.rounds.is_empty());
    assert_eq!(signs(&none), [("ready-000", Sign::Plain), ("ready-001", Sign::Plain)]);
}

#[test]
fn nobody_is_taken_while_another_pod_bears_the_sign() {
    let mut queue = marked(4);
    ask(&mut queue, at(30));
    pod(&mut queue, 3).sign = Sign::Leaving;
    let waits = decided(&queue, at(30));
    assert_eq!((shrink(&waits), signs(&waits)), ("Choosing", vec![("ready-003", Sign::Busy)]));
}

#[test]
fn nobody_is_taken_while_a_sign_is_on_its_way_on_a_chosen_one_or_another() {
    for number in [0, 3] {
        let mut queue = marked(4);
        ask(&mut queue, at(30));
        pod(&mut queue, number).sign = Sign::Moving;
        assert_eq!(shrink(&decided(&queue, at(30))), "Choosing", "{number}");
    }
}

#[test]
fn those_without_a_process_go_first_and_without_a_second_question() {
    let mut queue = six(4);
    let generation = &mut queue.pools[0].generations[0];
    (generation.pods.ready, generation.pods.unready) = (Pods(5), Pods(1));
    let pod = pod(&mut queue, 1);
    (pod.state, pod.rank) = (AgentState::Starting, Rank::Unready);
    let first = decided(&queue, at(20));
    assert_eq!(chosen(&first), ["ready-001", "ready-000"]);
    queue.reading.last_good.as_mut().unwrap().load.idle = Agents(0);
    let first = decided(&queue, at(20));
    assert_eq!(chosen(&first), ["ready-001"], "nobody else is idle");
    go_on(&mut queue, &first);
    let second = decided(&queue, at(21));
    go_on(&mut queue, &second);
    assert_eq!(decided(&queue, at(22)).intents, [scale("a", 6, 5)]);
}

#[test]
fn a_pod_that_is_not_ready_and_may_be_busy_keeps_all_others_from_going() {
    for state in [AgentState::Busy(Agents(1)), AgentState::Unknown] {
        let mut queue = six(3);
        let generation = &mut queue.pools[0].generations[0];
        (generation.pods.ready, generation.pods.unready) = (Pods(5), Pods(1));
        let flapping = pod(&mut queue, 3);
        (flapping.state, flapping.rank) = (state, Rank::Unready);
        let waits = decided(&queue, at(20));
        assert_eq!((shrink(&waits), waits.memory.rounds.len()), ("UnreadyStays", 0), "{state:?}");
    }
}

#[test]
fn the_longest_idle_go_first_then_the_emptiest_node() {
    let mut queue = six(0);
    queue.pools[0].spec.limits = Limits::new(Pods(3), Pods(9)).unwrap();
    for number in 0..6 {
        let pod = pod(&mut queue, number);
        pod.node = Some(if number < 4 { "crowded" } else { "empty" }.to_owned());
        pod.since = at(if number == 2 { -4_000 } else { -600 + i64::from(number) });
    }
    assert_eq!(chosen(&decided(&queue, at(20))), ["ready-002", "ready-004", "ready-005"]);
}

#[test]
fn those_that_fell_idle_last_stay_since_the_next_job_is_given_to_them() {
    let mut queue = six(0);
    queue.pools[0].spec.limits = Limits::new(Pods(4), Pods(9)).unwrap();
    for number in 0..6 {
        let pod = pod(&mut queue, number);
        pod.node = Some(if number < 2 { "crowded" } else { "empty" }.to_owned());
        pod.since = at(-20 - 10 * i64::from(number));
    }
    assert_eq!(chosen(&decided(&queue, at(20))), ["ready-005", "ready-004"]);
    let round = decided(&queue, at(20)).memory;
    queue.pools[0].memory = round;
    // Demand for one more returns before they are marked: the one that was idle for longest still goes.
    queue.pools[0].spec.limits = Limits::new(Pods(5), Pods(9)).unwrap();
    assert_eq!(chosen(&decided(&queue, at(22))), ["ready-005"]);
}

#[test]
fn where_nobody_says_what_he_does_nobody_goes_and_it_is_said() {
    let mut queue = six(0);
    for pod in &mut queue.pools[0].generations[0].agents {
        pod.state = AgentState::Unknown;
    }
    let decision = decided(&queue, at(20));
    assert_eq!((shrink(&decision), decision.target), ("AgentsUnknown", Pods(6)));
    assert!(entry(&decision, StepName::Shrink).reason.to_string().starts_with("6 pods could go, but 6 do not say"));
}

#[test]
fn a_pod_of_several_agents_goes_when_all_of_them_are_idle() {
    let mut queue = six(0);
    queue.pools[0].spec.agents_per_pod = AgentsPerPod::new(2).unwrap();
    read_again(&mut queue, load(0, 3, 9), at(0));
    for number in 0..3 {
        pod(&mut queue, number).state = AgentState::Busy(Agents(1));
    }
    // Three jobs would fit into two pods, and three hold one each.
    assert_eq!(chosen(&decided(&queue, at(20))), ["ready-003", "ready-004", "ready-005"]);
}

#[test]
fn agents_that_began_since_the_reading_and_jobs_on_their_way_out_are_known() {
    let mut queue = six(3);
    read_again(&mut queue, load(4, 1, 5), at(0));
    let decision = decided(&queue, at(5));
    assert_eq!(entry(&decision, StepName::Demand).output, 5, "two of the four that waited have begun");
    pod(&mut queue, 5).is_draining = true;
    let pods = &mut queue.pools[0].generations[0].pods;
    (pods.ready, pods.draining) = (Pods(5), Pods(1));
    assert_eq!(entry(&decided(&queue, at(5)), StepName::Demand).output, 4, "one is finished on its way out");
}

#[test]
fn an_assigned_job_counts_although_its_agent_still_says_that_it_is_idle() {
    let mut queue = six(2);
    read_again(&mut queue, load(0, 3, 3), at(0));
    assert_eq!(entry(&decided(&queue, at(5)), StepName::Demand).output, 3);
}

/// The same pods, two of which are on their way after replicas were lowered.
fn gone(queue: &mut QueueObservation, numbers: [u32; 2]) {
    for number in numbers {
        pod(queue, number).is_draining = true;
    }
    let generation = &mut queue.pools[0].generations[0];
    generation.replicas = Pods(4);
    (generation.pods.ready, generation.pods.draining) = (Pods(4), Pods(2));
}

#[test]
fn a_chosen_one_that_stands_while_another_went_is_told_of_once_and_loses_its_sign() {
    let mut queue = marked(4);
    ask(&mut queue, at(30));
    let taken = decided(&queue, at(30));
    let before = Tick { now: at(30), queue: queue.clone(), decisions: vec![taken.clone()], truth: None };
    go_on(&mut queue, &taken);
    for (who, told) in [([0, 1], vec![]), ([0, 5], vec!["a-ready-001".to_owned()])] {
        let mut queue = queue.clone();
        gone(&mut queue, who);
        let decision = decided(&queue, at(33));
        let spared: Vec<String> = decision.spared.iter().flat_map(|spared| spared.pods.clone()).collect();
        assert_eq!(spared, told);
        let loses = told.iter().map(|_| ("ready-001", Sign::Plain)).collect::<Vec<_>>();
        assert_eq!(signs(&decision), loses);
        assert!(decision.memory.rounds.is_empty());

        let tick = |decision: &Decision| Tick {
            now: at(33),
            queue: queue.clone(),
            decisions: vec![decision.clone()],
            truth: None,
        };
        let history = |decision: &Decision| History { ticks: vec![before.clone(), tick(decision)] };
        assert_eq!(violations(&history(&decision)), []);
        let silent = Decision { spared: Vec::new(), ..decision.clone() };
        let found: Vec<Invariant> = violations(&history(&silent)).iter().map(|found| found.invariant).collect();
        assert_eq!(found, if told.is_empty() { vec![] } else { vec![Invariant::Attribution] });

        go_on(&mut queue, &decision);
        assert!(decided(&queue, at(34)).spared.is_empty());
    }
}

/// A write that does not land is decided again, and who found work in between stays.
#[test]
fn a_write_that_did_not_land_is_made_again_for_those_who_are_still_idle() {
    let mut queue = marked(4);
    ask(&mut queue, at(30));
    let taken = decided(&queue, at(30));
    go_on(&mut queue, &taken);
    let waits = decided(&queue, at(31));
    assert_eq!((shrink(&waits), chosen(&waits).len()), ("ReadingPredatesChange", 2), "it may have landed after all");
    read_again(&mut queue, load(0, 4, 2), at(41));
    ask(&mut queue, at(41));
    assert_eq!(decided(&queue, at(41)).intents, [scale("a", 6, 4)]);
    pod(&mut queue, 0).state = AgentState::Busy(Agents(1));
    let let_go = decided(&queue, at(41));
    assert_eq!(signs(&let_go), [], "nothing of a chosen one's changes while the write may be under way");
    go_on(&mut queue, &let_go);
    let signed = decided(&queue, at(42));
    assert_eq!((signs(&signed), shrink(&signed)), (vec![("ready-000", Sign::Busy)], "Choosing"));
    go_on(&mut queue, &signed);
    assert_eq!(decided(&queue, at(43)).intents, [scale("a", 6, 5)]);
}

#[test]
fn a_chosen_one_keeps_its_sign_from_the_moment_replicas_are_about_to_be_lowered_until_they_have_come_to_rest() {
    let mut queue = marked(4);
    ask(&mut queue, at(30));
    let taken = decided(&queue, at(30));
    go_on(&mut queue, &taken);
    // Whether the write is under way, or has landed and nobody has gone yet, or demand is back.
    for (replicas, running) in [(6, 3), (4, 3), (4, 9)] {
        let mut queue = queue.clone();
        queue.pools[0].generations[0].replicas = Pods(replicas);
        read_again(&mut queue, load(0, running, 2), at(31));
        pod(&mut queue, 0).state = AgentState::Busy(Agents(1));
        let found: Vec<(String, Sign)> =
            signs(&decided(&queue, at(31))).into_iter().map(|(name, sign)| (name.to_owned(), sign)).collect();
        assert_eq!(found, [], "{replicas} replicas, {running} running");
    }
}

/// A controller that ends after any write finds what it needs in the pool's status and on the pods.
#[test]
fn a_restart_between_any_two_writes_goes_on_from_there() {
    let story = |restarts_at: Option<usize>| {
        let mut queue = six(4);
        let mut taken = Vec::new();
        for (pass, second) in (20..60).enumerate() {
            read_again(&mut queue, load(0, 4, 2), at(second));
            ask(&mut queue, at(second));
            let mut decision = decided(&queue, at(second));
            if restarts_at == Some(pass) {
                // The memory is recorded, and nothing after it is done.
                decision.signs.clear();
                decision.intents.clear();
            }
            let written = serde_json::to_string(&decision.memory).unwrap();
            decision.memory = serde_json::from_str(&written).unwrap();
            go_on(&mut queue, &decision);
            taken.extend(decision.intents.clone());
            if !decision.intents.is_empty() {
                gone(&mut queue, [0, 1]);
            }
        }
        taken
    };
    for restarts_at in [None].into_iter().chain((0..40).map(Some)) {
        assert_eq!(story(restarts_at), [scale("a", 6, 4)], "{restarts_at:?}");
    }
}

#[test]
fn signs_follow_what_agents_say_and_busy_ones_come_first() {
    let mut queue = six(0);
    read_again(&mut queue, load(0, 6, 0), at(0));
    let set = |queue: &mut QueueObservation, number, state, sign, is_draining| {
        let pod = pod(queue, number);
        (pod.state, pod.sign, pod.is_draining) = (state, sign, is_draining);
    };
    let busy = AgentState::Busy(Agents(1));
    set(&mut queue, 0, AgentState::Idle, Sign::Busy, false);
    set(&mut queue, 1, AgentState::Unknown, Sign::Busy, false);
    set(&mut queue, 2, busy, Sign::Mixed, false);
    set(&mut queue, 3, busy, Sign::Plain, true);
    set(&mut queue, 4, AgentState::Idle, Sign::Leaving, true);
    set(&mut queue, 5, busy, Sign::Busy, false);
    let mut expected = vec![("ready-002", Sign::Busy), ("ready-003", Sign::Busy), ("ready-000", Sign::Plain)];
    assert_eq!(signs(&decided(&queue, at(5))), expected);
    // What may be on its way comes after what is not.
    set(&mut queue, 5, busy, Sign::Moving, false);
    expected.push(("ready-005", Sign::Busy));
    assert_eq!(signs(&decided(&queue, at(5))), expected);
    queue.pools[0].spec.mode = Mode::Observe;
    assert!(decided(&queue, at(5)).signs.is_empty());
}

#[test]
fn a_pool_that_only_observes_shows_the_end_of_it() {
    let mut queue = six(4);
    queue.pools[0].spec.mode = Mode::Observe;
    let decision = decided(&queue, at(20));
    assert_eq!((decision.intents, decision.memory.rounds.len()), (vec![scale("a", 6, 4)], 0));
}

#[test]
fn what_is_about_to_go_is_replaced_at_once_and_only_once() {
    let mut queue = six(6);
    let leaves = |queue: &mut QueueObservation, count: u32| {
        queue.pools[0].generations[0].pods.leaving = Pods(count);
        for number in 0..count {
            pod(queue, number).is_leaving = true;
        }
    };
    leaves(&mut queue, 2);
    let decision = decided(&queue, at(20));
    assert_eq!((decision.intents, decision.target), (vec![scale("a", 6, 8)], Pods(8)));
    assert_eq!(decision.report.entry(StepName::Limits).unwrap().reason.category(), "Replaces");
    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(7)).unwrap();
    assert_eq!(decided(&queue, at(20)).target, Pods(7), "within max");

    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(9)).unwrap();
    queue.pools[0].generations[0].replicas = Pods(8);
    queue.pools[0].generations[0].settled = false;
    queue.pools[0].memory.asked.clear();
    assert!(decided(&queue, at(20)).intents.is_empty());
}

#[test]
fn a_round_stays_small() {
    let mut queue = queue(load(0, 0, 100), vec![pool(100)]);
    let down = &mut queue.pools[0].spec.scale_down;
    (down.window, down.cooldown, down.step) = (secs(0), secs(0), step(100, 1, 10));
    let Round { victims, .. } = decided(&queue, at(20)).memory.rounds["a"].clone();
    assert_eq!(victims.len(), 50);
}
