//! From the agent rules that jobs ask for to a pool for each kind of agent.
//!
//! Where a pod is made for one job, rules such as `image=` choose what it is made of. Under long polling they are what they always
//! were to Buildkite: tags that an agent must carry, or the job waits for ever.

use std::collections::{BTreeMap, BTreeSet};

use kitepool_api::{parse_strict, validate};
use serde_json::{Map, Value, json};

/// A job without a queue goes to the cluster's default one, whose usual name this is.
const DEFAULT_QUEUE: &str = "default";

/// The longest name of a pool that is made up here; a pool's may have 52 characters.
const NAME_MAX: usize = 48;

/// Jobs that ask for the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many.
    pub jobs: usize,
    /// Of which pipelines.
    pub pipelines: BTreeSet<String>,
}

/// What jobs ask for, and who does.
pub type Shapes = BTreeMap<BTreeSet<String>, Shape>;

/// What the pools that are made have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// The definition of those whose jobs name none.
    pub definition: String,
    /// The Secret of the agent token.
    pub secret: String,
}

/// The rules of an export: builds with their jobs as Buildkite's REST API gives them (pages one after the other), or its lists of jobs.
pub fn shapes(export: &str) -> Result<Shapes, serde_json::Error> {
    let mut shapes = Shapes::new();
    for page in serde_json::Deserializer::from_str(export).into_iter::<Value>() {
        take_in(&page?, "", &mut shapes);
    }
    Ok(shapes)
}

/// Lists, pages, builds and jobs, whichever it is.
fn take_in(value: &Value, pipeline: &str, shapes: &mut Shapes) {
    if let Some(entries) = value.as_array() {
        for entry in entries {
            take_in(entry, pipeline, shapes);
        }
        return;
    }
    let pipeline = value.pointer("/pipeline/slug").and_then(Value::as_str).unwrap_or(pipeline);
    for inner in ["items", "jobs"] {
        if let Some(entries) = value.get(inner).filter(|entries| entries.is_array()) {
            take_in(entries, pipeline, shapes);
        }
    }
    // Waits, blocks and triggers need no agent.
    let is_command = value.get("type").and_then(Value::as_str) == Some("script");
    if let Some(rules) = value.get("agent_query_rules").and_then(Value::as_array).filter(|_| is_command) {
        let mut rules: BTreeSet<String> = rules.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if !rules.iter().any(|rule| rule.starts_with("queue=")) {
            rules.insert(format!("queue={DEFAULT_QUEUE}"));
        }
        let shape = shapes.entry(rules).or_default();
        shape.jobs += 1;
        if !pipeline.is_empty() {
            shape.pipelines.insert(pipeline.to_owned());
        }
    }
}

/// YAML with a pool for each shape, most wanted first; above each who asks for it, and what a person has to decide.
pub fn pools(shapes: &Shapes, common: &Common) -> String {
    let mut by_jobs: Vec<_> = shapes.iter().collect();
    by_jobs.sort_by_key(|(rules, shape)| (std::cmp::Reverse(shape.jobs), *rules));
    let mut names = BTreeSet::new();
    let documents = by_jobs.into_iter().map(|(rules, shape)| document(rules, shape, common, &mut names));
    documents.collect::<Vec<_>>().join("---\n")
}

fn document(rules: &BTreeSet<String>, shape: &Shape, common: &Common, names: &mut BTreeSet<String>) -> String {
    let asked = rules.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let pipelines = shape.pipelines.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let of = if pipelines.is_empty() { String::new() } else { format!(" of {pipelines}") };
    let mut lines = vec![format!("{} jobs{of} ask for {asked}", shape.jobs)];
    let (pool, doubts) = pool(rules, common, names);
    lines.extend(doubts);
    if let Err(problems) = serde_json::from_value(pool.clone())
        .map_err(|_| Vec::new())
        .and_then(parse_strict)
        .and_then(|pool| validate(&pool))
    {
        lines.extend(problems.iter().map(|problem| format!("TO MEND: {problem}")));
    }
    // What comes from an export must not get out of its comment.
    let comment: Vec<String> = lines.iter().map(|line| format!("# {}\n", line.replace(['\n', '\r'], " "))).collect();
    format!("{}{}\n", comment.concat(), serde_saphyr::to_string(&pool).unwrap_or_default().trim_end())
}

fn pool(rules: &BTreeSet<String>, common: &Common, names: &mut BTreeSet<String>) -> (Value, Vec<String>) {
    let (mut queue, mut definition) = (DEFAULT_QUEUE, common.definition.as_str());
    let (mut tags, mut doubts, mut words) = (Vec::new(), Vec::new(), Vec::new());
    let (mut overrides, mut requests) = (Map::new(), Map::new());
    for rule in rules {
        let Some((key, value)) = rule.split_once('=') else {
            doubts.push(format!("TO DECIDE: the rule {rule} names no tag"));
            continue;
        };
        if key == "queue" {
            queue = value;
            continue;
        }
        if value.contains('*') {
            doubts.push(format!("TO DECIDE: {rule} takes any of several values; give these agents one of them"));
            continue;
        }
        match key {
            "pod-template" | "pod-definition" => definition = value,
            "image" => drop(overrides.insert("image".to_owned(), json!(value))),
            "cpu" | "memory" => drop(requests.insert(key.to_owned(), json!(value))),
            _ => {}
        }
        words.push(value);
        tags.push(rule.as_str());
    }
    if !requests.is_empty() {
        overrides.insert("resources".to_owned(), json!({ "requests": requests }));
    }
    let mut spec = json!({
        "queue": queue,
        "tags": tags,
        "token": { "secretRef": { "name": common.secret } },
        "podTemplateRef": { "name": definition },
    });
    if let Some(spec) = spec.as_object_mut().filter(|_| !overrides.is_empty()) {
        spec.insert("overrides".to_owned(), Value::Object(overrides));
    }
    let name = free_name(queue, &words, names);
    let pool = json!({ "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool", "metadata": { "name": name }, "spec": spec });
    (pool, doubts)
}

/// A name that says what the pool is for, and that no other has.
fn free_name(queue: &str, words: &[&str], names: &mut BTreeSet<String>) -> String {
    // Of an image what people call it: without its registry and version.
    let short = |word: &&str| {
        let last = word.rsplit('/').next().unwrap_or(word);
        last.split([':', '@']).next().unwrap_or(last).to_owned()
    };
    let all = std::iter::once(queue.to_owned()).chain(words.iter().map(short)).collect::<Vec<_>>().join("-");
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let cut: String = all.chars().map(legal).take(NAME_MAX).collect();
    let base = cut.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let base = if base.is_empty() { "pool".to_owned() } else { base };
    // As many as there are names, and one more, cannot all be taken.
    let numbered = (2..names.len() + 3).map(|number| format!("{base}-{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(base);
    names.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use kitepool_api::read_pools;

    use super::*;

    fn common() -> Common {
        Common { definition: "basic".to_owned(), secret: "buildkite-agent-token".to_owned() }
    }

    fn job(rules: &[&str]) -> Value {
        json!({ "type": "script", "agent_query_rules": rules })
    }

    #[test]
    fn pages_of_builds_and_lists_of_jobs_are_counted_by_what_they_ask_for() {
        let build =
            |pipeline: &str, jobs: Vec<Value>| json!({ "id": "x", "pipeline": { "slug": pipeline }, "jobs": jobs });
        let first = json!([
            build("web", vec![job(&["queue=dynamic", "image=node:22"]), json!({ "type": "waiter" }), job(&[])]),
            build(
                "api",
                vec![
                    job(&["image=node:22", "queue=dynamic"]),
                    json!({ "type": "manual", "agent_query_rules": ["a=b"] })
                ]
            ),
        ]);
        let second = json!({ "items": [job(&["queue=dynamic"])] });
        let shapes = shapes(&format!("{first}\n{second}")).unwrap();
        let told: Vec<(Vec<&str>, usize, Vec<&str>)> = shapes
            .iter()
            .map(|(rules, shape)| {
                let rules = rules.iter().map(String::as_str).collect();
                (rules, shape.jobs, shape.pipelines.iter().map(String::as_str).collect())
            })
            .collect();
        let expected = [
            (vec!["image=node:22", "queue=dynamic"], 2, vec!["api", "web"]),
            (vec!["queue=default"], 1, vec!["web"]),
            (vec!["queue=dynamic"], 1, vec![]),
        ];
        assert_eq!(told, expected);
        assert!(super::shapes("[").is_err());
    }

    #[test]
    fn a_pool_carries_every_rule_as_a_tag_and_is_made_of_what_the_rules_chose() {
        let rules =
            ["queue=dynamic", "image=ghcr.io/a/Node:22", "cpu=500m", "memory=2Gi", "pod-template=elastic-ci-stack"];
        let shapes = shapes(&json!([job(&rules)]).to_string()).unwrap();
        let yaml = pools(&shapes, &common());
        let pool = read_pools(&yaml).unwrap().remove(0);
        let valid = validate(&pool).unwrap();
        assert_eq!(valid.queue, "dynamic");
        let tags: Vec<&str> = valid.spec.tags.iter().map(String::as_str).collect();
        assert_eq!(tags, ["cpu=500m", "image=ghcr.io/a/Node:22", "memory=2Gi", "pod-template=elastic-ci-stack"]);
        assert_eq!(valid.template, kitepool_api::TemplateSource::Reference("elastic-ci-stack".to_owned()));
        let expected =
            json!({ "image": "ghcr.io/a/Node:22", "resources": { "requests": { "cpu": "500m", "memory": "2Gi" } } });
        assert_eq!(json!(valid.overrides), expected);
        assert_eq!(valid.spec.name.name, "dynamic-500m-node-2gi-elastic-ci-stack");
    }

    #[test]
    fn what_a_person_has_to_decide_is_said_and_nothing_is_left_out_in_silence() {
        let jobs = json!([
            job(&["queue=a", "gpu=*"]),
            job(&["queue=a", "cpu=lots\n#"]),
            job(&["queue=a", "nonsense"]),
            job(&["queue=a", "x=1"]),
            job(&["queue=a", "y=1"])
        ]);
        let yaml = pools(&shapes(&jobs.to_string()).unwrap(), &common());
        for words in [
            "# TO DECIDE: gpu=* takes any",
            "# TO DECIDE: the rule nonsense names no tag",
            "# TO MEND: spec.overrides.resources.requests.cpu: this is no amount",
            "name: a-1\n",
            "name: a-1-2\n",
        ] {
            assert!(yaml.contains(words), "{words:?} is not in\n{yaml}");
        }
        assert!(yaml.lines().all(|line| !line.starts_with("# #")), "{yaml}");
    }
}
