//! One wrong manifest for each rule of the definitions, with the sentence that must come back: for trials on a real API server.

use serde_json::{Value, json};

use crate::rules;

/// A manifest that is to be refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Which rule.
    pub name: &'static str,
    /// The object.
    pub manifest: Value,
    /// The object that stands there before and is to be replaced; `None` when the manifest is to be created.
    pub before: Option<Value>,
    /// Where the problem is, as the API server names it.
    pub path: &'static str,
    /// What the refusal must hold: our own sentence, or the API server's where the schema language suffices.
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

/// A pool that is accepted and uses every field, close to its bounds where it has any.
pub fn full_manifest(name: &str) -> Value {
    let schedule = |days: &str, from: &str, to: &str, zone: &str| json!({ "days": days, "from": from, "to": to, "timeZone": zone, "min": 100 });
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "AgentPool",
        "metadata": { "name": name, "annotations": { "kitepool.dev/pause": "down", "kitepool.dev/resolved": "2026-01-31" } },
        "spec": {
            "queue": "team/Linux_large.v2:x86-64",
            "tags": ["os=linux", "gpu=", "note=two words", "url=https://example.org/?a=b"],
            "token": { "file": "/mnt/buildkite/token" },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "agent", "image": "agent:1" }] } },
            "overrides": {
                "image": "registry.example.org:5000/team/agent:1.2@sha256:0123",
                "resources": { "requests": { "cpu": 2, "memory": "1.5Gi" }, "limits": { "memory": "3Gi" } },
                "env": [
                    { "name": "A", "value": "a" },
                    { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k", "optional": true } } },
                ],
                "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "c" } }],
                "nodeSelector": { "disk": "ssd" },
                "tolerations": [{ "key": "ci", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5 }],
                "serviceAccountName": "agents.big",
                "namePrefix": "big_2.x-",
                "podPatch": { "metadata": { "labels": { "c": "d" } }, "spec": { "priorityClassName": "ci" } },
            },
            "adopt": "old.agents-2",
            "agentsPerPod": 100,
            "longestJob": "6days 23hours 59minutes 60seconds",
            "mode": "Observe",
            "order": -5,
            "otherAgents": "Count",
            "scaling": {
                "min": 10_000,
                "max": 10_000,
                "spare": { "percent": 1_000 },
                "waitingWeight": 0.125,
                "scaleUp": { "cooldown": "1 h", "step": { "percent": 1_000, "agents": 10_000, "per": "60min" } },
                "scaleDown": { "cooldown": "24h", "window": "1d", "step": { "percent": 0, "agents": 1, "per": "1s" }, "minAge": "0s" },
                "hintTtl": "59m60s",
                "staleAfter": "10 secs",
                "schedules": [
                    schedule("Mon-Fri", "08:00", "19:00", "Europe/London"),
                    schedule("Fri-Mon, Wed", "22:30", "06:00", "America/Argentina/ComodRivadavia"),
                    schedule("daily", "00:00", "23:59", "Etc/GMT+12"),
                ],
            },
        },
    })
}

/// A hint that is accepted.
pub fn valid_hint(name: &str) -> Value {
    let job = json!({ "id": "018f6b1c-0000", "queue": "linux", "rules": ["os=linux"], "runnableAt": "2026-01-31T12:00:00.123Z" });
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "JobHint",
        "metadata": { "name": name },
        "spec": { "source": "test", "jobs": [job] },
    })
}

/// All of them.
pub fn refusals() -> Vec<Refusal> {
    [
        name_refusals(),
        source_refusals(),
        pod_refusals(),
        override_refusals(),
        scaling_refusals(),
        schedule_refusals(),
        hint_refusals(),
    ]
    .concat()
}

/// The manifest of a pool with one value set, its parents made if need be; `Null` takes the value away.
fn pool(name: &'static str, pointer: &str, value: Value, path: &'static str, sentence: &'static str) -> Refusal {
    Refusal { name, manifest: changed(valid_manifest("wrong"), pointer, value), before: None, path, sentence }
}

fn name_refusals() -> Vec<Refusal> {
    let long_tag = format!("a={}", "x".repeat(254));
    let many_tags: Vec<String> = (0..33).map(|n| format!("tag{n}=x")).collect();
    let long_name = Refusal {
        name: "long name",
        manifest: valid_manifest(&"x".repeat(53)),
        before: None,
        path: "metadata.name",
        sentence: rules::POOL_NAME.sentence,
    };
    vec![
        long_name,
        pool("queue", "/spec/queue", json!("no good"), "spec.queue", rules::QUEUE.sentence),
        pool("empty queue", "/spec/queue", json!(""), "spec.queue", rules::QUEUE.sentence),
        pool("queue from a hyphen", "/spec/queue", json!("-q"), "spec.queue", rules::QUEUE.sentence),
        pool("long queue", "/spec/queue", json!("x".repeat(256)), "spec.queue", "may not be more than 255"),
        pool("no queue", "/spec/queue", Value::Null, "spec.queue", "Required value"),
        pool("tag without =", "/spec/tags", json!(["a=b", "gpu"]), "spec.tags[1]", rules::TAG_FORM.sentence),
        pool("tag without key", "/spec/tags", json!(["=b"]), "spec.tags[0]", rules::TAG_FORM.sentence),
        pool("tag with a comma", "/spec/tags", json!(["a=b,c=d"]), "spec.tags[0]", rules::TAG_FORM.sentence),
        pool("tag with spaces", "/spec/tags", json!(["a= b"]), "spec.tags[0]", rules::TAG_FORM.sentence),
        pool("tag with a line break", "/spec/tags", json!(["a=b\nc"]), "spec.tags[0]", rules::TAG_FORM.sentence),
        pool("tag with the queue", "/spec/tags", json!(["queue=x"]), "spec.tags[0]", rules::TAG_QUEUE.sentence),
        pool("tag twice", "/spec/tags", json!(["a=b", "c=d", "a=b"]), "spec.tags", rules::TAGS_UNIQUE.sentence),
        pool("long tag", "/spec/tags", json!([long_tag]), "spec.tags[0]", "may not be more than 255"),
        pool("many tags", "/spec/tags", json!(many_tags), "spec.tags", "must have at most 32 items"),
    ]
}

fn source_refusals() -> Vec<Refusal> {
    vec![
        pool("no token", "/spec/token", json!({}), "spec.token", rules::TOKEN_CHOICE.sentence),
        pool("two tokens", "/spec/token/file", json!("/token"), "spec.token", rules::TOKEN_CHOICE.sentence),
        pool(
            "relative token",
            "/spec/token",
            json!({ "file": "token" }),
            "spec.token.file",
            rules::TOKEN_FILE.sentence,
        ),
        pool("empty token", "/spec/token", json!({ "file": "" }), "spec.token.file", rules::TOKEN_FILE.sentence),
        pool(
            "secret",
            "/spec/token/secretRef/name",
            json!("../x"),
            "spec.token.secretRef.name",
            rules::OBJECT_NAME.sentence,
        ),
        pool(
            "secret key",
            "/spec/token/secretRef/key",
            json!("a/b"),
            "spec.token.secretRef.key",
            rules::SECRET_KEY.sentence,
        ),
        pool("no definition", "/spec/podTemplateRef", Value::Null, "spec", rules::DEFINITION_CHOICE.sentence),
        pool(
            "two definitions",
            "/spec/template",
            json!({ "spec": { "containers": [] } }),
            "spec",
            rules::DEFINITION_CHOICE.sentence,
        ),
        pool(
            "definition",
            "/spec/podTemplateRef/name",
            json!("Basic"),
            "spec.podTemplateRef.name",
            rules::OBJECT_NAME.sentence,
        ),
        pool("adopt", "/spec/adopt", json!("agents-"), "spec.adopt", rules::OBJECT_NAME.sentence),
    ]
}

fn pod_refusals() -> Vec<Refusal> {
    vec![
        pool("no agents in a pod", "/spec/agentsPerPod", json!(0), "spec.agentsPerPod", "greater than or equal to 1"),
        pool(
            "many agents in a pod",
            "/spec/agentsPerPod",
            json!(101),
            "spec.agentsPerPod",
            "less than or equal to 100",
        ),
        pool(
            "longest job",
            "/spec/longestJob",
            json!("four hours"),
            "spec.longestJob",
            rules::LONGEST_JOB.grammar.sentence,
        ),
        pool("fraction", "/spec/longestJob", json!("1.5h"), "spec.longestJob", rules::LONGEST_JOB.grammar.sentence),
        pool("no unit", "/spec/longestJob", json!("90"), "spec.longestJob", rules::LONGEST_JOB.grammar.sentence),
        pool("zero job", "/spec/longestJob", json!("0h 0s"), "spec.longestJob", rules::LONGEST_JOB.range.sentence),
        pool(
            "endless job",
            "/spec/longestJob",
            json!("6days 24 h 1s"),
            "spec.longestJob",
            rules::LONGEST_JOB.range.sentence,
        ),
        pool("mode", "/spec/mode", json!("Sometimes"), "spec.mode", "supported values: \"Active\", \"Observe\""),
        pool(
            "other agents",
            "/spec/otherAgents",
            json!("Maybe"),
            "spec.otherAgents",
            "supported values: \"Ignore\", \"Count\"",
        ),
    ]
}

fn override_refusals() -> Vec<Refusal> {
    // The path is that of the field, below overrides.
    let overrides = |name, pointer: &str, value: Value, path: &'static str, sentence| {
        pool(name, &format!("/spec/overrides/{pointer}"), value, path, sentence)
    };
    let many: Vec<Value> = (0..101).map(|n| json!({ "name": format!("V{n}") })).collect();
    let cpu = "spec.overrides.resources.requests.cpu";
    vec![
        overrides("image", "image", json!("two words"), "spec.overrides.image", rules::IMAGE.sentence),
        overrides("empty image", "image", json!(""), "spec.overrides.image", rules::IMAGE.sentence),
        overrides("amount", "resources/requests/cpu", json!("two"), cpu, rules::AMOUNT.sentence),
        overrides("negative amount", "resources/requests/cpu", json!(-1), cpu, rules::AMOUNT.sentence),
        overrides(
            "variable twice",
            "env",
            json!([{ "name": "A" }, { "name": "A" }]),
            "spec.overrides.env[1]",
            "Duplicate value",
        ),
        overrides("many variables", "env", json!(many), "spec.overrides.env", "must have at most 100 items"),
        overrides(
            "account",
            "serviceAccountName",
            json!("Agents"),
            "spec.overrides.serviceAccountName",
            rules::OBJECT_NAME.sentence,
        ),
        overrides("prefix", "namePrefix", json!("-x"), "spec.overrides.namePrefix", rules::NAME_PREFIX.sentence),
        overrides("patch", "podPatch", json!("x"), "spec.overrides.podPatch", "must be of type object"),
    ]
}

fn scaling_refusals() -> Vec<Refusal> {
    // The path is that of the field, below spec.
    let scaling = |name, path: &'static str, value: Value, sentence| {
        let pointer = format!("/{}", path.replace('.', "/"));
        pool(name, &pointer, value, path, sentence)
    };
    let min_above_max = pool(
        "min above max",
        "/spec/scaling",
        json!({ "min": 5, "max": 4 }),
        "spec.scaling.min",
        rules::MIN_MAX.sentence,
    );
    vec![
        min_above_max,
        scaling("min above the default max", "spec.scaling.min", json!(101), rules::MIN_MAX.sentence),
        scaling("negative min", "spec.scaling.min", json!(-1), "greater than or equal to 0"),
        scaling("huge max", "spec.scaling.max", json!(10_001), "less than or equal to 10000"),
        scaling("two spares", "spec.scaling.spare", json!({ "agents": 1, "percent": 1 }), rules::SPARE_CHOICE.sentence),
        scaling("huge spare", "spec.scaling.spare", json!({ "agents": 10_001 }), "less than or equal to 10000"),
        scaling("huge share", "spec.scaling.spare", json!({ "percent": 1_001 }), "less than or equal to 1000"),
        scaling("waiting weight", "spec.scaling.waitingWeight", json!(1.5), "less than or equal to 1"),
        scaling("up cooldown", "spec.scaling.scaleUp.cooldown", json!("61m"), rules::UP_COOLDOWN.range.sentence),
        scaling("up step", "spec.scaling.scaleUp.step", json!({ "percent": 0 }), rules::STEP_MOVES.sentence),
        scaling("down step", "spec.scaling.scaleDown.step", json!({ "per": "30s" }), rules::STEP_MOVES.sentence),
        scaling("huge step", "spec.scaling.scaleDown.step", json!({ "percent": 1_001 }), "less than or equal to 1000"),
        pool(
            "no period",
            "/spec/scaling/scaleUp/step",
            json!({ "agents": 1, "per": "0s" }),
            "spec.scaling.scaleUp.step.per",
            rules::STEP_PER.range.sentence,
        ),
        scaling("down cooldown", "spec.scaling.scaleDown.cooldown", json!("1d 1s"), rules::DOWN.range.sentence),
        scaling("window", "spec.scaling.scaleDown.window", json!("25h"), rules::DOWN.range.sentence),
        scaling(
            "window of fortnights",
            "spec.scaling.scaleDown.window",
            json!("5 fortnights"),
            rules::DOWN.grammar.sentence,
        ),
        scaling("min age", "spec.scaling.scaleDown.minAge", json!("2w"), rules::DOWN.range.sentence),
        scaling("hint ttl", "spec.scaling.hintTtl", json!("9s"), rules::HINT_TTL.range.sentence),
        scaling("stale after", "spec.scaling.staleAfter", json!("9 secs"), rules::STALE_AFTER.range.sentence),
        scaling("never stale", "spec.scaling.staleAfter", json!("1h 1s"), rules::STALE_AFTER.range.sentence),
    ]
}

fn schedule_refusals() -> Vec<Refusal> {
    let all = |changes: Value| {
        let mut schedule =
            json!({ "days": "Mon-Fri", "from": "08:00", "to": "19:00", "timeZone": "Europe/London", "min": 1 });
        for (field, value) in changes.as_object().into_iter().flatten() {
            schedule = changed(schedule, &format!("/{field}"), value.clone());
        }
        schedule
    };
    let schedule =
        |name, changes, path, sentence| pool(name, "/spec/scaling/schedules", json!([all(changes)]), path, sentence);
    let many: Vec<Value> = (0..17).map(|_| all(json!({}))).collect();
    vec![
        schedule("days", json!({ "days": "Monday" }), "spec.scaling.schedules[0].days", rules::DAYS.sentence),
        schedule("no days", json!({ "days": "" }), "spec.scaling.schedules[0].days", rules::DAYS.sentence),
        schedule("from", json!({ "from": "8am" }), "spec.scaling.schedules[0].from", rules::TIME.sentence),
        schedule("to", json!({ "to": "24:00" }), "spec.scaling.schedules[0].to", rules::TIME.sentence),
        schedule("no length", json!({ "to": "08:00" }), "spec.scaling.schedules[0].to", rules::FROM_TO.sentence),
        schedule(
            "zone",
            json!({ "timeZone": "here!" }),
            "spec.scaling.schedules[0].timeZone",
            rules::TIME_ZONE.sentence,
        ),
        schedule("negative floor", json!({ "min": -1 }), "spec.scaling.schedules[0].min", "greater than or equal to 0"),
        schedule("no floor", json!({ "min": null }), "spec.scaling.schedules[0].min", "Required value"),
        pool(
            "many schedules",
            "/spec/scaling/schedules",
            json!(many),
            "spec.scaling.schedules",
            "must have at most 16 items",
        ),
    ]
}

fn hint_refusals() -> Vec<Refusal> {
    let hint = |name, pointer: &str, value, path, sentence| {
        let manifest = changed(valid_hint("wrong"), pointer, value);
        Refusal { name, manifest, before: None, path, sentence }
    };
    let job = |id: &str| json!({ "id": id, "queue": "q", "runnableAt": "2026-01-31T12:00:00Z" });
    let with = |field: &str, value: Value| json!([changed(job("a"), &format!("/{field}"), value)]);
    let many: Vec<Value> = (0..101).map(|n| job(&n.to_string())).collect();
    let another = Refusal {
        before: Some(valid_hint("fixed")),
        ..hint("hint changed", "/spec/source", json!("another"), "", rules::HINT_FIXED.sentence)
    };
    vec![
        Refusal { manifest: changed(another.manifest, "/metadata/name", json!("fixed")), ..another },
        hint("hint without source", "/spec/source", json!(""), "spec.source", "at least 1 chars long"),
        hint("hint without jobs", "/spec/jobs", json!([]), "spec.jobs", "at least 1 items"),
        hint("hint with many jobs", "/spec/jobs", json!(many), "spec.jobs", "must have at most 100 items"),
        hint("hint with a job twice", "/spec/jobs", json!([job("a"), job("a")]), "spec.jobs[1]", "Duplicate value"),
        hint("job id", "/spec/jobs", json!([job("a b")]), "spec.jobs[0].id", rules::JOB_ID.sentence),
        hint(
            "job without queue",
            "/spec/jobs",
            with("queue", json!("")),
            "spec.jobs[0].queue",
            "at least 1 chars long",
        ),
        hint(
            "job with an odd instant",
            "/spec/jobs",
            with("runnableAt", json!("yesterday")),
            "spec.jobs[0].runnableAt",
            "date-time",
        ),
        hint(
            "job with many rules",
            "/spec/jobs",
            with("rules", json!(vec!["a=b"; 33])),
            "spec.jobs[0].rules",
            "at most 32 items",
        ),
    ]
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
