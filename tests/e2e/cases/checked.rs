//! `kitepool check --live`: one pod on the real API server, in which the real agent's bootstrap runs one job, and which is gone
//! afterwards, whatever became of the job.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Case,
    agents::{Agents, FIRST_IMAGE, QUEUE, binary},
    eventually, library,
    pools::{DEFINITION, pool, with},
    processes::process_case,
};

const DEADLINE: Duration = Duration::from_mins(5);
/// One check, on a machine with other cases beside it.
const CHECK: Duration = Duration::from_mins(1);

/// The command on its way.
struct Check {
    child: Child,
    /// Its standard output.
    job: PathBuf,
    /// Its standard error.
    said: PathBuf,
}

impl Check {
    /// As an administrator of the cluster runs it.
    fn start(case: &Case, more: &[&str]) -> Self {
        Self::start_as(case, &case.admin_kubeconfig(), more)
    }

    fn start_as(case: &Case, kubeconfig: &Path, more: &[&str]) -> Self {
        let (job, said) = (case.folder().join("check.out"), case.folder().join("check.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_kitepool"));
        command.args(["check", "--live", QUEUE, "--namespace", &case.namespace]).args(more);
        command.env_clear().env("KUBECONFIG", kubeconfig).stdout(File::create(&job).expect("a file"));
        command.stderr(File::create(&said).expect("a file"));
        Self { child: command.spawn().expect("it can be run"), job, said }
    }

    /// What it said on standard error so far.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    async fn passes_on(&self, what: &str) {
        eventually(&format!("the job is heard to say {what:?}"), CHECK, async || {
            let job = std::fs::read_to_string(&self.job).unwrap_or_default();
            if job.contains(what) { Ok(()) } else { Err(job) }
        })
        .await;
    }

    async fn ends(mut self) -> (ExitStatus, String) {
        let status = eventually("the check ends", CHECK * 2, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.said()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        (status, self.said())
    }
}

/// One check from its beginning to its end, after which there is no pod.
async fn check(case: &Case, more: &[&str]) -> (Option<i32>, String) {
    let (status, said) = Check::start(case, more).ends().await;
    println!("{}: kitepool check {more:?} ended with {status}:\n{said}", case.namespace);
    let pods = case.pods().list(&ListParams::default()).await.expect("a list").items;
    assert!(pods.is_empty(), "no pod is left: {pods:#?}");
    (status.code(), said)
}

/// A kubeconfig of somebody who may see what a check begins with, and make no pods.
async fn of_somebody(case: &Case) -> PathBuf {
    let role: Role = serde_json::from_value(json!({
        "metadata": { "name": "sees" },
        "rules": [
            { "apiGroups": ["kitepool.dev"], "resources": ["agentpools"], "verbs": ["get"] },
            { "apiGroups": [""], "resources": ["podtemplates"], "verbs": ["get"] },
            { "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"] },
        ],
    }))
    .expect("a role");
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "sees" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sees" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody" }],
    }))
    .expect("a binding");
    let (roles, bindings): (Api<Role>, Api<RoleBinding>) =
        (Api::namespaced(case.admin.clone(), &case.namespace), Api::namespaced(case.admin.clone(), &case.namespace));
    roles.create(&PostParams::default(), &role).await.expect("a role of ours");
    bindings.create(&PostParams::default(), &binding).await.expect("a binding of ours");
    let admin = std::fs::read_to_string(case.admin_kubeconfig()).expect("a file");
    let mut kubeconfig: Value = serde_saphyr::from_str(&admin).expect("a kubeconfig");
    kubeconfig["users"][0]["user"]["as"] = json!("somebody");
    let path = case.folder().join("somebody.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("a file");
    path
}

fn pool_of_one() -> Value {
    with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 1 } } }))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_live_check_of_basic_tells_a_job_that_passes_from_one_that_does_not() {
    process_case("check-basic", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        case.create_pool(pool_of_one()).await;
        // Somebody else's, for which there is no agent: no controller runs here.
        let others = agents.submit(1, 0)[0];

        let _logs = case.serve_logs().await;
        let (code, said) = check(case, &[]).await;
        assert_eq!(code, Some(0), "{said}");
        let job = std::fs::read_to_string(case.folder().join("check.out")).expect("a file");
        assert!(job.contains("user: uid=1000") && job.contains("builds: /workspace/builds/linux-check-"), "{job}");
        assert!(!said.contains("broke off") && !said.contains("cannot be read"), "{said}");
        let command = "set -eu; test \"$(id -u)\" = 1000; test \"$BUILDKITE_AGENT_META_DATA_QUEUE\" = linux; touch here \"$HOME/x\"
            test -z \"${BUILDKITE_AGENT_TOKEN:-}\"; test -r /var/run/kitepool/token/token
            echo \"$PWD $(echo of) $BUILDKITE_JOB_ID\" >/markers/checked";
        let (code, said) = check(case, &["--command", command, "--first-image", FIRST_IMAGE]).await;
        assert_eq!(code, Some(0), "{said}");
        let mark = std::fs::read_to_string(case.folder().join("markers/checked")).expect("the command ran in the pod");
        assert!(mark.starts_with("/workspace/builds/") && mark.contains(" of linux-check-"), "{mark}");

        let (code, said) = check(case, &["--command", "exit 3"]).await;
        assert_eq!(code, Some(1));
        assert!(said.contains("not passed: the job ended with exit code 3"), "{said}");
        assert!(said.contains("the pod is removed"), "{said}");

        assert_eq!(agents.connections().len(), 0, "nothing registered at Buildkite");
        assert_eq!(agents.record(others).state, "scheduled", "nobody's job was taken");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_live_check_that_hangs_is_told_why_or_stopped_and_leaves_no_pod() {
    process_case("check-hangs", 1, DEADLINE, async |case| {
        let _agents = Agents::start(case, 1, |_| {}).await;
        case.create_pool(pool_of_one()).await;
        let somebody = of_somebody(case).await;

        let _logs = case.serve_logs().await;
        let stopped = Check::start(case, &["--command", "echo It has $((40 + 2)).; sleep 300"]);
        stopped.passes_on("It has 42.").await;
        let pid = Pid::from_child(&stopped.child);
        kill_process(pid, Signal::INT).expect("it runs");
        let (status, said) = stopped.ends().await;
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("you stopped it") && said.contains("the pod is removed"), "{said}");

        let (code, said) = check(case, &["--command", "sleep 300", "--deadline", "10s"]).await;
        assert_eq!(code, Some(1));
        assert!(said.contains("not passed: the deadline is over: the job has not ended"), "{said}");

        let (status, said) = Check::start_as(case, &somebody, &[]).ends().await;
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("you may not see whether Secret buildkite-agent-token exists"), "{said}");
        assert!(said.contains("cannot create resource") && said.contains("get of pods/log"), "{said}");

        case.change_pool(QUEUE, json!({ "spec": { "overrides": { "image": "elsewhere/no-such-image:1" } } })).await;
        let (code, said) = check(case, &[]).await;
        assert_eq!(code, Some(1));
        assert!(
            said.contains("not passed: ImageNotPulled: container agent: ErrImagePull")
                && said.contains("spec.overrides.image"),
            "{said}"
        );

        let absent = json!({ "spec": { "overrides": null, "token": { "secretRef": { "name": "absent" } } } });
        case.change_pool(QUEUE, absent).await;
        let (code, said) = check(case, &[]).await;
        assert_eq!(code, Some(1));
        assert!(said.contains("there is no Secret absent") && !said.contains("is made"), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_live_check_of_the_elastic_ci_stack_runs_its_hooks_beside_its_daemon() {
    process_case("check-dockerd", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut template = agents.definition_of(&library::elastic_ci_stack());
        library::furnish(case, &mut template, "elastic-ci-stack", binary());
        // The account that comes with a role, and the nodes that are kept for such pods.
        template["spec"]["serviceAccountName"] = json!("buildkite-agent");
        template["spec"]["nodeSelector"].as_object_mut().expect("a selector").remove("workloads");
        case.define(DEFINITION, template).await;
        case.create_pool(pool_of_one()).await;
        // What the environment hook made, read from the definition; and the daemon that came up before.
        let command = "set -eu; test \"$PLUGINS_ENABLED\" = 'secrets ecr docker-login'; test -d \"$DOCKER_CONFIG\"
            docker ps; docker version; echo \"$BUILDKITE_STACK_NAME\" >/markers/checked";
        let (code, said) = check(case, &["--command", command]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("container dockerd"), "{said}");
        let mark = std::fs::read_to_string(case.folder().join("markers/checked")).expect("the command ran in the pod");
        assert_eq!(mark, "kitepool\n");
        assert_eq!(agents.connections().len(), 0, "nothing registered at Buildkite");
        let _logs = case.serve_logs().await;
        assert_eq!(check(case, &[]).await.0, Some(0), "the job of its own");
        let job = std::fs::read_to_string(case.folder().join("check.out")).expect("a file");
        assert!(job.contains("20.10.24"), "it asks the simulated daemon for its version: {job}");
    })
    .await;
}
