//! The one pod of `kitepool check --live`: a pod of the pool in everything but that it runs a job of its own making, by the agent's
//! own bootstrap, and is no agent of Buildkite's.
//!
//! An agent that registers would take other people's jobs. So nothing registers: in the place of `buildkite-agent start` stands a
//! `buildkite-agent bootstrap` that runs `agent.sh`, and that one runs the job by a second bootstrap, with the definition's hooks.

use std::time::Duration;

use kitepool_api::{BUSY_LABEL, GENERATION_LABEL, MANAGED_BY_LABEL, POOL_LABEL, Problem, QUEUE_LABEL, label_value};
use serde_json::{Map, Value, json};

use super::{contract::AGENT_CONTAINER, generation::Owner, template};

/// On the pod, with the pool's name. No selector of Kitepool's matches it.
pub const CHECK_LABEL: &str = "kitepool.dev/check";

/// From the request to go until the kill: enough for a daemon beside the job to stop in order.
pub const GRACE: Duration = Duration::from_secs(30);

/// Where nobody is left to delete the pod, its kubelet ends it so long after the check should have.
const LEFT_ALONE: Duration = Duration::from_mins(1);

const AGENT_SCRIPT: &str = include_str!("agent.sh");
const JOB_SCRIPT: &str = include_str!("job.sh");

/// What shells are given to run. The scripts stand in the environment, since the log repeats each command.
const RUN_AGENT: &str = "--command=eval \"$KITEPOOL_CHECK_AGENT\"";
const RUN_JOB: &str = "eval \"$KITEPOOL_CHECK_JOB\"";

/// How `start` stands in a script.
const START: &str = "buildkite-agent start";

/// What stands in the place of `start`. Everything by flags, since the environment of this process is the definition's alone; no hooks,
/// no checkout, no terminal: those are the job's.
const BOOTSTRAP: [&str; 14] = [
    "bootstrap",
    "--phases=command",
    "--hooks-path=/nonexistent",
    "--build-path=/",
    "--local-hooks-enabled=false",
    "--pty=false",
    "--job=kitepool-check",
    "--repository=none",
    "--commit=HEAD",
    "--branch=none",
    "--agent=kitepool-check",
    "--organization=kitepool",
    "--pipeline=kitepool-check",
    "--pipeline-provider=none",
];

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The pod's name, and the job's id.
    pub name: String,
    /// Its command, where it is not the one of our own.
    pub command: Option<String>,
    /// An image that it is to run and to build on.
    pub image: Option<String>,
    /// How long it may take, from the pod's creation on.
    pub longest: Duration,
}

/// The pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// To be created.
    pub pod: Value,
    /// Flags of `start` that its command line has, and that the job is therefore run without.
    pub left_out: Vec<String>,
}

/// Makes the pod of a pool's pod template, as the controller renders it.
pub fn pod(template: &Value, owner: &Owner, queue: &str, job: &Job) -> Result<Made, Problem> {
    let no_agent = || Problem::new("spec.containers", "no container is named `agent`", "name that container `agent`");
    let mut spec = template.get("spec").and_then(Value::as_object).cloned().ok_or_else(no_agent)?;
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten();
    let mut containers = containers.filter_map(Value::as_object_mut);
    let is_agent =
        |container: &&mut Map<String, Value>| container.get("name").and_then(Value::as_str) == Some(AGENT_CONTAINER);
    let agent = containers.find(is_agent).ok_or_else(no_agent)?;
    // There is no agent to ask, and a job that has ended is not to be run again.
    for key in ["startupProbe", "readinessProbe", "livenessProbe", "restartPolicy"] {
        agent.remove(key);
    }
    let left_out = take_the_place_of_start(agent)?;
    set_environment(agent, queue, job);
    let longest = job.longest.saturating_add(LEFT_ALONE).as_secs();
    spec.insert("restartPolicy".to_owned(), json!("Never"));
    spec.insert("terminationGracePeriodSeconds".to_owned(), json!(GRACE.as_secs()));
    spec.insert("activeDeadlineSeconds".to_owned(), json!(longest));
    Ok(Made {
        pod: json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata(template, owner, job), "spec": spec }),
        left_out,
    })
}

/// The definition's labels stay, since network policies and webhooks go by them; not those by which the controller counts. The pool
/// owns the pod: it goes with the pool, and no set of pods that happens to select it takes it for one of its own.
fn metadata(template: &Value, owner: &Owner, job: &Job) -> Value {
    let ours = [POOL_LABEL, GENERATION_LABEL, QUEUE_LABEL, MANAGED_BY_LABEL, BUSY_LABEL];
    let of = |key: &str| -> Map<String, Value> {
        template.pointer(&format!("/metadata/{key}")).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut labels = of("labels");
    labels.retain(|label, _| !ours.contains(&label.as_str()));
    labels.insert(CHECK_LABEL.to_owned(), json!(label_value(&owner.name)));
    json!({
        "name": job.name,
        "namespace": owner.namespace,
        "labels": labels,
        "annotations": of("annotations"),
        "ownerReferences": [owner.reference()],
    })
}

fn set_environment(agent: &mut Map<String, Value>, queue: &str, job: &Job) {
    let ours = [
        ("KITEPOOL_CHECK_NAME", job.name.as_str()),
        ("KITEPOOL_CHECK_QUEUE", queue),
        ("KITEPOOL_CHECK_COMMAND", job.command.as_deref().unwrap_or(RUN_JOB)),
        ("KITEPOOL_CHECK_IMAGE", job.image.as_deref().unwrap_or_default()),
        ("KITEPOOL_CHECK_AGENT", AGENT_SCRIPT),
        ("KITEPOOL_CHECK_JOB", JOB_SCRIPT),
    ];
    let theirs = agent.remove("env");
    let theirs = theirs.as_ref().and_then(Value::as_array).into_iter().flatten().cloned();
    let is_theirs = |variable: &Value| {
        let name = template::text(variable, "name");
        !ours.iter().any(|(our, _)| name == Some(our))
    };
    let mut all: Vec<Value> = theirs.filter(is_theirs).collect();
    all.extend(ours.iter().map(|(name, value)| json!({ "name": name, "value": literal(value) })));
    agent.insert("env".to_owned(), Value::Array(all));
}

/// Kubernetes replaces `$(NAME)` in what a container is given, and takes `$$` for `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Answers with the flags that stood behind `start`.
fn take_the_place_of_start(agent: &mut Map<String, Value>) -> Result<Vec<String>, Problem> {
    let words = |key: &str| -> Vec<String> {
        let list = agent.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (mut command, mut args) = (words("command"), words("args"));
    let left_out = if command.is_empty() && args.is_empty() {
        // What the image would run is `start`, or its pods would be no agents.
        args = bootstrap();
        Vec::new()
    } else if let Some(left_out) = replaced(&mut args) {
        left_out
    } else if let Some(mut left_out) = replaced(&mut command) {
        left_out.append(&mut args);
        left_out
    } else if let Some(left_out) = command.iter_mut().chain(&mut args).find_map(replaced_in_script) {
        left_out
    } else {
        let path = format!("spec.containers[{AGENT_CONTAINER}].command");
        let found = "nowhere does it say `buildkite-agent start`, in the place of which a job of our own could be run";
        return Err(Problem::new(path, found, "write `start` as a word of `args`"));
    };
    for (key, words) in [("command", command), ("args", args)] {
        if words.is_empty() {
            agent.remove(key);
        } else {
            agent.insert(key.to_owned(), json!(words));
        }
    }
    Ok(left_out)
}

fn bootstrap() -> Vec<String> {
    BOOTSTRAP.into_iter().chain([RUN_AGENT]).map(literal).collect()
}

fn replaced(words: &mut Vec<String>) -> Option<Vec<String>> {
    let start = words.iter().position(|word| word == "start")?;
    let left_out = words.split_off(start).into_iter().skip(1).collect();
    words.extend(bootstrap());
    Some(left_out)
}

/// It is the last thing that the script does, by the contract; so what follows are its flags.
fn replaced_in_script(script: &mut String) -> Option<Vec<String>> {
    let (before, after) = script.rsplit_once(START)?;
    let is_flag = |word: &str| word != "\\" && !word.starts_with('#');
    let left_out = after.split_whitespace().take_while(|word| is_flag(word)).map(str::to_owned).collect();
    let quoted: Vec<String> = bootstrap().iter().map(|word| format!("'{word}'")).collect();
    *script = format!("{before}buildkite-agent {}", quoted.join(" "));
    Some(left_out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn owner() -> Owner {
        Owner { namespace: "ci".to_owned(), name: "linux".to_owned(), uid: "u".to_owned() }
    }

    fn job() -> Job {
        Job { name: "linux-check-1".to_owned(), command: None, image: None, longest: Duration::from_mins(15) }
    }

    fn made(template: &Value, job: &Job) -> Made {
        pod(template, &owner(), "big", job).unwrap()
    }

    /// The agent's container, made of one with these fields.
    fn agent(more: &Value) -> (Value, Vec<String>) {
        let mut container = json!({ "name": "agent" });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = made(&json!({ "spec": { "containers": [{ "name": "other" }, container] } }), &job());
        (made.pod["spec"]["containers"][1].clone(), made.left_out)
    }

    fn variable(agent: &Value, name: &str) -> Vec<String> {
        let env = agent["env"].as_array().unwrap();
        env.iter().filter(|one| one["name"] == name).map(|one| one["value"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn no_label_by_which_the_controller_counts_is_on_the_pod_and_the_others_stay() {
        let template = json!({
            "metadata": {
                "labels": {
                    "team": "a", "kitepool.dev/buildkit-client": "true", "kitepool.dev/pool": "linux",
                    "kitepool.dev/generation": "linux-1", "kitepool.dev/queue": "big", "kitepool.dev/busy": "true",
                    "app.kubernetes.io/managed-by": "kitepool",
                },
                "annotations": { "vault": "yes" },
            },
            "spec": { "containers": [{ "name": "agent" }] },
        });
        let metadata = made(&template, &job()).pod["metadata"].clone();
        let expected = json!({ "team": "a", "kitepool.dev/buildkit-client": "true", "kitepool.dev/check": "linux" });
        assert_eq!(metadata["labels"], expected);
        assert_eq!(metadata["annotations"], json!({ "vault": "yes" }));
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("linux-check-1"), &json!("ci")));
        let owner = &metadata["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"], &owner["controller"]),
            (&json!("AgentPool"), &json!("linux"), &json!(true))
        );
    }

    #[test]
    fn the_pod_runs_once_goes_soon_and_ends_by_itself() {
        let template = json!({ "spec": {
            "terminationGracePeriodSeconds": 14400, "serviceAccountName": "agents", "volumes": [{ "name": "x" }],
            "containers": [{ "name": "agent", "startupProbe": {}, "readinessProbe": {}, "livenessProbe": {},
                "lifecycle": { "postStart": {} }, "resources": { "limits": { "memory": "1Gi" } } }],
            "initContainers": [{ "name": "dockerd", "restartPolicy": "Always", "startupProbe": { "exec": {} } }],
        } });
        let spec = made(&template, &job()).pod["spec"].clone();
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["activeDeadlineSeconds"], 960);
        for key in ["serviceAccountName", "volumes", "initContainers"] {
            assert_eq!(spec[key], template["spec"][key], "{key} is the definition's");
        }
        let agent = spec["containers"][0].as_object().unwrap();
        let mut left: Vec<&str> = agent.keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["args", "env", "lifecycle", "name", "resources"]);
    }

    #[test]
    fn the_bootstrap_takes_the_place_of_start_wherever_that_stands() {
        let bootstrap = bootstrap();
        for (container, command, left_out) in [
            (json!({}), json!(null), &[][..]),
            (json!({ "args": ["start"] }), json!(null), &[]),
            (json!({ "command": ["entry"], "args": ["start", "--debug"] }), json!(["entry"]), &["--debug"]),
        ] {
            let (agent, left) = agent(&container);
            assert_eq!((&agent["command"], &agent["args"]), (&command, &json!(bootstrap)), "{container}");
            assert_eq!(left, left_out);
        }
        let (agent, left) = agent(&json!({ "command": ["tini", "buildkite-agent", "start"], "args": ["--debug"] }));
        let words: Vec<&str> =
            ["tini", "buildkite-agent"].into_iter().chain(bootstrap.iter().map(String::as_str)).collect();
        assert_eq!(
            (&agent["command"], &agent["args"], left),
            (&json!(words), &json!(null), vec!["--debug".to_owned()])
        );
    }

    #[test]
    fn a_script_keeps_what_it_does_before_the_agent() {
        let script = "prepare \"$HOME\"\nexec buildkite-agent start --debug \\\n  --x # the end";
        let (agent, left) = agent(&json!({ "command": ["sh", "-c", script] }));
        let text = agent["command"][2].as_str().unwrap();
        assert!(text.starts_with("prepare \"$HOME\"\nexec buildkite-agent 'bootstrap' '--phases=command'"), "{text}");
        assert!(text.ends_with("'--command=eval \"$$KITEPOOL_CHECK_AGENT\"'"), "{text}");
        assert_eq!(left, ["--debug"]);
    }

    #[test]
    fn a_command_that_names_no_start_is_told_with_what_to_do() {
        let template = json!({ "spec": { "containers": [{ "name": "agent", "command": ["/run-the-agent"] }] } });
        let problem = pod(&template, &owner(), "big", &job()).unwrap_err().to_string();
        assert!(problem.contains("containers[agent].command") && problem.contains("`start`"), "{problem}");
    }

    #[test]
    fn what_the_job_is_stands_in_the_environment_as_it_was_given() {
        let template = json!({ "spec": { "containers": [{ "name": "agent", "env": [
            { "name": "BUILDKITE_BUILD_PATH", "value": "/b" }, { "name": "KITEPOOL_CHECK_COMMAND", "value": "another" },
        ] }] } });
        let given = Job { command: Some("echo $(id) $HOME".to_owned()), image: Some("busybox".to_owned()), ..job() };
        let agent = made(&template, &given).pod["spec"]["containers"][0].clone();
        assert_eq!(variable(&agent, "BUILDKITE_BUILD_PATH"), ["/b"]);
        assert_eq!(variable(&agent, "KITEPOOL_CHECK_COMMAND"), ["echo $$(id) $$HOME"]);
        assert_eq!(variable(&agent, "KITEPOOL_CHECK_IMAGE"), ["busybox"]);
        assert_eq!(variable(&agent, "KITEPOOL_CHECK_QUEUE"), ["big"]);
        let own = made(&template, &job()).pod["spec"]["containers"][0].clone();
        assert_eq!(variable(&own, "KITEPOOL_CHECK_COMMAND"), ["eval \"$$KITEPOOL_CHECK_JOB\""]);
    }

    #[test]
    fn every_definition_of_the_library_can_be_checked() {
        for entry in super::super::library::entries() {
            let template = super::super::library::template(entry.name).unwrap();
            let made = made(&template, &job());
            assert!(made.left_out.is_empty(), "{}: {:?}", entry.name, made.left_out);
        }
    }

    /// What the job of our own asks a docker that only writes down how it was called, and how the job ends.
    fn asked_of_docker(environment: &[(&str, &str)]) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let docker = folder.path().join("docker");
        std::fs::write(&docker, "#!/bin/sh\necho \"$*\" >>\"${0%/*}/calls\"\n").unwrap();
        std::fs::set_permissions(&docker, PermissionsExt::from_mode(0o755)).unwrap();
        let mut job = std::process::Command::new("/bin/sh");
        job.args(["-c", JOB_SCRIPT]).current_dir(&folder).env_clear().envs(environment.iter().copied());
        job.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display())).env("BUILDKITE_JOB_ID", "linux-check-1");
        let ended = job.output().unwrap();
        (std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default(), ended.status.success())
    }

    #[test]
    fn the_job_of_our_own_asks_of_docker_what_there_is_and_what_it_was_told() {
        let (daemon, builder) = (("DOCKER_HOST", "unix:///d"), ("BUILDX_BUILDER", "kitepool"));
        let image = ("KITEPOOL_CHECK_IMAGE", "busybox:1");
        let versions = "version\ncompose version\nbuildx version\n";
        let run = "run --rm busybox:1\n";
        let build = "build --tag linux-check-1 -\nimage rm linux-check-1\n";
        let buildkit = "buildx inspect --bootstrap\n";
        let on_buildkit = "buildx inspect --bootstrap\nbuildx build -\n";
        for (environment, expected) in [
            (&[daemon][..], versions.to_owned()),
            (&[daemon, image], format!("{versions}{run}{build}")),
            (&[daemon, builder, image], format!("{versions}{run}{on_buildkit}")),
            (&[builder], buildkit.to_owned()),
            (&[builder, image], on_buildkit.to_owned()),
        ] {
            assert_eq!(asked_of_docker(environment), (expected, true), "{environment:?}");
        }
        assert_eq!(asked_of_docker(&[image]), (String::new(), false), "an image, and nothing that could run it");
    }
}
