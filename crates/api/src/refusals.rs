//! One wrong manifest for each rule of the definitions, with the sentence that must come back: for trials on a real API server.

use serde_json::{Value, json};

/// A manifest that is to be refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Which rule.
    pub name: &'static str,
    /// The object.
    pub manifest: Value,
    /// What the refusal must hold.
    pub sentence: &'static str,
}

/// A pool that is accepted.
pub fn valid_manifest(name: &str) -> Value {
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "AgentPool",
        "metadata": { "name": name },
        "spec": {
            "queue": "linux",
            "token": { "secretRef": { "name": "buildkite-agent-token" } },
            "podTemplateRef": { "name": "basic" },
        },
    })
}

/// All of them.
pub fn refusals() -> Vec<Refusal> {
    let schedule = |field: &str, value: &str| {
        let mut schedule = json!({ "days": "Mon-Fri", "from": "08:00", "to": "19:00", "timeZone": "UTC", "min": 1 });
        if let Some(slot) = schedule.get_mut(field) {
            *slot = json!(value);
        }
        json!([schedule])
    };
    let mut all: Vec<Refusal> = [
        ("queue", "/spec/queue", json!("no good"), "spec.queue is no queue key"),
        ("queue empty", "/spec/queue", json!(""), "spec.queue"),
        ("tag without value", "/spec/tags", json!(["gpu"]), "must be written key=value"),
        ("tag with a comma", "/spec/tags", json!(["a=b,c=d"]), "must be written key=value"),
        ("tag with the queue", "/spec/tags", json!(["queue=x"]), "the queue stands in spec.queue"),
        ("tag twice", "/spec/tags", json!(["a=b", "a=b"]), "a tag stands twice"),
        ("no token", "/spec/token", json!({}), "exactly one of spec.token.secretRef and spec.token.file"),
        ("two tokens", "/spec/token/file", json!("/token"), "exactly one of spec.token.secretRef and spec.token.file"),
        ("relative token file", "/spec/token", json!({ "file": "token" }), "must be an absolute path"),
        ("two definitions", "/spec/template", json!({ "spec": {} }), "exactly one of spec.podTemplateRef and spec.template"),
        ("agents per pod", "/spec/agentsPerPod", json!(0), "spec.agentsPerPod"),
        ("longest job", "/spec/longestJob", json!("four hours"), "this is no duration"),
        ("mode", "/spec/mode", json!("Sometimes"), "spec.mode"),
        ("other agents", "/spec/otherAgents", json!("Maybe"), "spec.otherAgents"),
        ("min above max", "/spec/scaling", json!({ "min": 5, "max": 4 }), "spec.scaling.min is above spec.scaling.max"),
        ("negative min", "/spec/scaling", json!({ "min": -1 }), "spec.scaling.min"),
        ("huge max", "/spec/scaling", json!({ "max": 10_001 }), "spec.scaling.max"),
        ("two spares", "/spec/scaling", json!({ "spare": { "agents": 1, "percent": 1 } }), "holds both agents and percent"),
        ("waiting weight", "/spec/scaling", json!({ "waitingWeight": 2 }), "spec.scaling.waitingWeight"),
        ("step", "/spec/scaling", json!({ "scaleUp": { "step": { "percent": 0, "agents": 0 } } }), "this step could never move"),
        ("window", "/spec/scaling", json!({ "scaleDown": { "window": "5 fortnights" } }), "this is no duration"),
        ("schedule days", "/spec/scaling", json!({ "schedules": schedule("days", "Monday") }), "days of a schedule cannot be read"),
        ("schedule from", "/spec/scaling", json!({ "schedules": schedule("from", "8am") }), "from of a schedule is no time of day"),
        ("schedule to", "/spec/scaling", json!({ "schedules": schedule("to", "24:00") }), "to of a schedule is no time of day"),
        ("schedule without length", "/spec/scaling", json!({ "schedules": schedule("to", "08:00") }), "from and to of a schedule are the same"),
        ("no definition", "/spec/podTemplateRef", Value::Null, "exactly one of spec.podTemplateRef and spec.template"),
    ]
    .into_iter()
    .map(|(name, pointer, value, sentence)| Refusal { name, manifest: changed(valid_manifest("wrong"), pointer, value), sentence })
    .collect();
    all.push(Refusal {
        name: "long name",
        manifest: valid_manifest(&"x".repeat(53)),
        sentence: "metadata.name is longer than 52 characters",
    });
    all.push(Refusal {
        name: "hint without jobs",
        manifest: hint(&json!([])),
        sentence: "spec.jobs",
    });
    all.push(Refusal {
        name: "hint with an odd instant",
        manifest: hint(&json!([{ "id": "a", "queue": "q", "runnableAt": "yesterday" }])),
        sentence: "spec.jobs[0].runnableAt",
    });
    all
}

fn hint(jobs: &Value) -> Value {
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "JobHint",
        "metadata": { "name": "wrong" },
        "spec": { "source": "test", "jobs": jobs },
    })
}

/// The manifest with one value set, its parents made if need be; `Null` takes the value away.
fn changed(mut manifest: Value, pointer: &str, value: Value) -> Value {
    let mut place = &mut manifest;
    let mut names = pointer.split('/').skip(1).peekable();
    while let Some(name) = names.next() {
        let Some(object) = place.as_object_mut() else { break };
        if names.peek().is_none() && value.is_null() {
            object.remove(name);
            break;
        }
        place = object.entry(name).or_insert_with(|| json!({}));
        if names.peek().is_none() {
            *place = value;
            break;
        }
    }
    manifest
}

#[cfg(test)]
mod tests {
    use kube::core::DynamicObject;

    use super::*;
    use crate::{parse, validate};

    fn problems(manifest: Value) -> Vec<crate::Problem> {
        let object: DynamicObject = serde_json::from_value(manifest).unwrap();
        parse(object).and_then(|pool| validate(&pool).map(drop)).err().unwrap_or_default()
    }

    #[test]
    fn the_valid_manifest_is_valid() {
        assert_eq!(problems(valid_manifest("linux")), []);
    }

    #[test]
    fn whatever_the_definition_refuses_the_conversion_refuses_too() {
        for refusal in refusals().into_iter().filter(|refusal| refusal.manifest["kind"] == "AgentPool") {
            let problems = problems(refusal.manifest);
            assert_eq!(problems.len(), 1, "{}: {problems:?}", refusal.name);
            assert!(!problems[0].path.is_empty() && !problems[0].remedy.is_empty());
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let manifest = json!({
            "apiVersion": "kitepool.dev/v1alpha1",
            "kind": "AgentPool",
            "metadata": { "name": "x", "annotations": { "kitepool.dev/pause": "sideways" } },
            "spec": {
                "queue": "no good",
                "tags": ["a", "queue=b"],
                "token": {},
                "agentsPerPod": 0,
                "longestJob": "soon",
                "scaling": {
                    "min": 2, "max": 1, "waitingWeight": -1, "staleAfter": "1s",
                    "scaleUp": { "step": {} },
                    "schedules": [{ "days": "x", "from": "8", "to": "25:00", "timeZone": "Nowhere", "min": -1 }],
                },
            },
        });
        let paths: Vec<String> = problems(manifest).into_iter().map(|problem| problem.path).collect();
        for expected in [
            "metadata.annotations[kitepool.dev/pause]", "spec.queue", "spec.tags[0]", "spec.tags[1]", "spec.token", "spec",
            "spec.longestJob", "spec.agentsPerPod", "spec.scaling.min", "spec.scaling.waitingWeight", "spec.scaling.staleAfter",
            "spec.scaling.scaleUp.step", "spec.scaling.schedules[0].days", "spec.scaling.schedules[0].from",
            "spec.scaling.schedules[0].to", "spec.scaling.schedules[0].timeZone", "spec.scaling.schedules[0].min",
        ] {
            assert!(paths.iter().any(|path| path == expected), "{expected} is not in {paths:?}");
        }
        assert_eq!(paths.len(), 17);
    }

    #[test]
    fn a_wrong_shape_is_a_problem_with_its_path() {
        let mut manifest = valid_manifest("x");
        manifest["spec"]["scaling"] = json!({ "scaleUp": { "cooldown": 5 } });
        let problems = problems(manifest);
        assert_eq!(problems[0].path, "spec.scaling.scaleUp.cooldown", "{problems:?}");
    }

    #[test]
    fn a_file_with_an_unknown_field_is_refused() {
        let mut manifest = valid_manifest("x");
        manifest["spec"]["scaling"] = json!({ "maxx": 5 });
        let object: DynamicObject = serde_json::from_value(manifest).unwrap();
        assert_eq!(crate::parse_strict(object).unwrap_err()[0].path, "spec.scaling.maxx");
    }
}
