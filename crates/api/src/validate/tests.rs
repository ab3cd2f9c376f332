//! The conversion against the table of refusals, and what no definition can say.

use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::{full_manifest, parse, parse_strict, refusals, valid_manifest};

fn validated(manifest: Value) -> Result<ValidPool, Vec<Problem>> {
    let object: DynamicObject = serde_json::from_value(manifest).unwrap();
    parse(object).and_then(|pool| validate(&pool))
}

fn problems(manifest: Value) -> Vec<Problem> {
    validated(manifest).err().unwrap_or_default()
}

fn with_spec(field: &str, value: Value) -> Value {
    let mut manifest = valid_manifest("linux");
    manifest["spec"][field] = value;
    manifest
}

#[test]
fn the_smallest_manifest_is_valid_and_means_what_the_design_says() {
    let valid = validated(valid_manifest("linux")).unwrap();
    let step = |percent, agents| {
        let percent = spec::Percent::new(percent).unwrap();
        spec::Step::new(percent, kitepool_policy::units::Agents(agents), Duration::from_secs(10)).unwrap()
    };
    let pods = kitepool_policy::units::Pods;
    let expected = ValidPool {
        spec: PoolSpec {
            name: PoolName { namespace: "default".to_owned(), name: "linux".to_owned() },
            tags: BTreeSet::new(),
            agents_per_pod: AgentsPerPod::ONE,
            mode: spec::Mode::Active,
            pause: Pause::None,
            order: 0,
            limits: spec::Limits::new(pods(0), pods(100)).unwrap(),
            spare: spec::Spare::Agents(kitepool_policy::units::Agents(1)),
            waiting_weight: spec::Fraction::ZERO,
            scale_up: spec::ScaleUp { cooldown: Duration::ZERO, step: step(100, 10) },
            scale_down: spec::ScaleDown {
                cooldown: Duration::from_mins(1),
                window: Duration::from_mins(5),
                step: step(50, 1),
                min_age: Duration::from_mins(2),
            },
            hint_ttl: Duration::from_mins(2),
            stale_after: Duration::from_secs(90),
            schedules: Vec::new(),
        },
        queue: "linux".to_owned(),
        token: TokenSource::Secret { name: "buildkite-agent-token".to_owned(), key: "token".to_owned() },
        template: TemplateSource::Reference("basic".to_owned()),
        overrides: PodOverrides::default(),
        adopt: None,
        longest_job: Duration::from_hours(4),
        other_agents: OtherAgents::Ignore,
    };
    assert_eq!(valid, expected);
}

#[test]
fn every_field_is_taken_over() {
    let object: DynamicObject = serde_json::from_value(full_manifest("full")).unwrap();
    let pool = parse_strict(object).unwrap();
    let valid = validate(&pool).unwrap();
    assert_eq!(valid.queue, "team/Linux_large.v2:x86-64");
    assert_eq!(valid.token, TokenSource::File("/mnt/buildkite/token".to_owned()));
    assert_eq!(valid.adopt.as_deref(), Some("old.agents-2"));
    assert_eq!(valid.longest_job, Duration::from_hours(168));
    assert_eq!(valid.other_agents, OtherAgents::Count);
    assert_eq!(valid.overrides.pod_patch.map(|patch| patch.0["spec"]["priorityClassName"].clone()), Some(json!("ci")));
    let spec = valid.spec;
    assert_eq!(spec.tags.len(), 4);
    assert_eq!((spec.mode, spec.pause, spec.order), (spec::Mode::Observe, Pause::Down, -5));
    assert_eq!((spec.limits.min().0, spec.limits.max().0), (10_000, 10_000));
    assert_eq!(spec.spare, spec::Spare::Percent(spec::Percent::new(1_000).unwrap()));
    assert_eq!(spec.waiting_weight.thousandths(), 125);
    assert_eq!((spec.scale_up.cooldown, spec.scale_up.step.per()), (Duration::from_hours(1), Duration::from_hours(1)));
    assert_eq!(
        (spec.scale_down.cooldown, spec.scale_down.window),
        (Duration::from_hours(24), Duration::from_hours(24))
    );
    assert_eq!((spec.hint_ttl, spec.stale_after), (Duration::from_hours(1), Duration::from_secs(10)));
    assert_eq!(spec.schedules.iter().map(|schedule| schedule.days.len()).collect::<Vec<_>>(), [5, 5, 7]);
    // What is written and what is read are the same, so that nothing in between lost a field.
    assert_eq!(serde_json::to_value(&pool.spec).unwrap(), full_manifest("full")["spec"]);
}

/// Each by itself: exactly that problem, at that place, in those words where they are ours.
#[test]
fn whatever_the_definition_refuses_the_conversion_refuses_too() {
    for refusal in refusals().into_iter().filter(|refusal| refusal.manifest["kind"] == "AgentPool") {
        let problems = problems(refusal.manifest);
        let [problem] = problems.as_slice() else { panic!("{}: {problems:?}", refusal.name) };
        // The API server tells of a missing field by its own path, and of tags together.
        let place = match refusal.path {
            "spec.queue" if refusal.sentence == "Required value" => "spec",
            "spec.scaling.schedules[0].min" if refusal.sentence == "Required value" => "spec.scaling.schedules[0]",
            "spec.tags" if refusal.sentence == rules::TAGS_UNIQUE.sentence => "spec.tags[2]",
            path => path,
        };
        let under = problem.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        assert!(under, "{}: {} is not at {place}", refusal.name, problem.path);
        assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{}: {problem}", refusal.name);
        if refusal.sentence.contains("; ") {
            assert_eq!(format!("{}; {}", problem.what, problem.remedy), refusal.sentence, "{}", refusal.name);
        }
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let manifest = json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "AgentPool",
        "metadata": { "name": "X", "annotations": { "kitepool.dev/pause": "sideways" } },
        "spec": {
            "queue": "no good",
            "tags": ["a", "queue=b", "c=d", "c=d"],
            "token": {},
            "adopt": "/",
            "agentsPerPod": 0,
            "longestJob": "soon",
            "scaling": {
                "min": 2, "max": 1, "waitingWeight": -1, "staleAfter": "1s", "hintTtl": "2h",
                "spare": { "agents": -1 },
                "scaleUp": { "cooldown": "1d", "step": {} },
                "scaleDown": { "cooldown": "2d", "window": "2d", "minAge": "x", "step": { "percent": 2_000, "per": "1d" } },
                "schedules": [{ "days": "x", "from": "8", "to": "25:00", "timeZone": "Nowhere", "min": -1 }],
            },
        },
    });
    let problems = problems(manifest);
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "metadata.name",
        "metadata.annotations[kitepool.dev/pause]",
        "spec.queue",
        "spec.tags[0]",
        "spec.tags[1]",
        "spec.tags[3]",
        "spec.token",
        "spec",
        "spec.adopt",
        "spec.agentsPerPod",
        "spec.longestJob",
        "spec.scaling.min",
        "spec.scaling.spare.agents",
        "spec.scaling.waitingWeight",
        "spec.scaling.scaleUp.cooldown",
        "spec.scaling.scaleUp.step",
        "spec.scaling.scaleDown.cooldown",
        "spec.scaling.scaleDown.window",
        "spec.scaling.scaleDown.step.percent",
        "spec.scaling.scaleDown.step.per",
        "spec.scaling.scaleDown.minAge",
        "spec.scaling.hintTtl",
        "spec.scaling.staleAfter",
        "spec.scaling.schedules[0].days",
        "spec.scaling.schedules[0].from",
        "spec.scaling.schedules[0].to",
        "spec.scaling.schedules[0].timeZone",
        "spec.scaling.schedules[0].min",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn a_pause_that_is_not_understood_stops_the_pool_altogether() {
    let paused = |word: &str| {
        let mut manifest = valid_manifest("linux");
        manifest["metadata"]["annotations"] = json!({ "kitepool.dev/pause": word });
        validated(manifest)
    };
    assert_eq!(paused("all").unwrap().spec.pause, Pause::All);
    assert_eq!(paused("up").unwrap().spec.pause, Pause::Up);
    assert_eq!(paused("down").unwrap().spec.pause, Pause::Down);
    for word in ["", "true", "UP", "none"] {
        assert_eq!(paused(word).unwrap_err()[0].path, "metadata.annotations[kitepool.dev/pause]", "{word:?}");
    }
}

#[test]
fn an_unknown_time_zone_is_answered_with_the_nearest() {
    let schedule = json!({ "days": "daily", "from": "22:00", "to": "06:00", "timeZone": "Europe/Lodnon", "min": 1 });
    let problems = problems(with_spec("scaling", json!({ "schedules": [schedule] })));
    assert_eq!(problems.len(), 1);
    let expected = "spec.scaling.schedules[0].timeZone: \"Europe/Lodnon\" is no time zone; did you mean Europe/London?";
    assert_eq!(problems[0].to_string(), expected);
}

#[test]
fn what_no_kubernetes_takes_for_a_pod_template_is_a_problem_with_its_path() {
    let mut manifest = with_spec("template", json!({ "spec": { "containers": [{ "name": 1 }] } }));
    manifest["spec"].as_object_mut().unwrap().remove("podTemplateRef");
    assert_eq!(problems(manifest.clone())[0].path, "spec.template.spec.containers[0].name");
    // Of a PodTemplate the API server has dropped it; here nobody has, and it would be lost on the way into a Deployment.
    manifest["spec"]["template"] = json!({ "spec": { "containers": [], "nodeSelecter": {} } });
    let told = problems(manifest.clone());
    assert_eq!((told[0].path.as_str(), told[0].id), ("spec.template.spec.nodeSelecter", "unknown-field"));
    manifest["spec"]["template"] = json!({ "spec": { "containers": [], "hostnameOverride": "newer" } });
    let valid = validated(manifest.clone()).unwrap();
    assert_eq!(valid.template, TemplateSource::Inline(manifest["spec"]["template"].clone()));
}

#[test]
fn a_spare_of_nothing_is_no_spare_and_a_null_is_as_good_as_nothing() {
    for spare in [json!({}), json!({ "agents": 0 }), json!({ "agents": null, "percent": null })] {
        let valid = validated(with_spec("scaling", json!({ "spare": spare }))).unwrap();
        assert_eq!(valid.spec.spare, spec::Spare::Agents(kitepool_policy::units::Agents::ZERO));
    }
}

#[test]
fn a_weight_counts_in_thousandths() {
    for (weight, thousandths) in
        [(0.0, 0), (1.0, 1_000), (0.25, 250), (0.1, 100), (0.0004, 0), (0.0006, 1), (0.9999, 1_000)]
    {
        let valid = validated(with_spec("scaling", json!({ "waitingWeight": weight }))).unwrap();
        assert_eq!(valid.spec.waiting_weight.thousandths(), thousandths, "{weight}");
    }
}

#[test]
fn a_pool_without_a_name_is_told_so() {
    let mut manifest = valid_manifest("");
    assert_eq!(problems(manifest.clone())[0].path, "metadata.name");
    manifest["metadata"] = json!({});
    assert_eq!(problems(manifest)[0].path, "metadata.name");
}
