//! One case: a namespace with all that an installation has in it, and a deadline.

use std::{
    any::Any,
    io::Write as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    chart,
    control_plane::{self, Access},
    controller::{Controller, Launch, tail},
    deployments::template,
    history::History,
    kill_points::{Alive, KillPlan, Side, Victims},
    pools::DEFINITION,
    proxy::Proxy,
    records::{self, Records},
    simulated_agents::SimulatedAgents,
    simulated_buildkite::{SimulatedBuildkite, TOKEN},
};
use crate::simulated_kubelet::{Habits, SimulatedKubelet};

/// What a case works with. All of it ends with the case.
pub(crate) struct Case {
    pub(crate) namespace: String,
    pub(crate) admin: Client,
    pub(crate) access: Access,
    pub(crate) buildkite: SimulatedBuildkite,
    pub(crate) kubelet: SimulatedKubelet,
    pub(crate) history: History,
    pub(crate) agents: SimulatedAgents,
    folder: PathBuf,
    token: String,
}

/// A controller and the proxy that it talks through.
pub(crate) struct Replica {
    pub(crate) controller: Controller,
    pub(crate) proxy: Proxy,
    launch: Launch,
    alive: Alive,
}

/// Runs one case on the shared cluster. `name` is short: it becomes part of the namespace's name.
pub(crate) async fn case(name: &str, deadline: Duration, body: impl AsyncFnOnce(&Case)) {
    let access = tokio::task::spawn_blocking(|| control_plane::shared().clone()).await.expect("a cluster");
    case_on(access, name, deadline, body).await;
}

/// Runs one case on a cluster of its own.
pub(crate) async fn case_on(access: Access, name: &str, deadline: Duration, body: impl AsyncFnOnce(&Case)) {
    let began = Instant::now();
    let case = Case::prepare(access, name).await;
    let ended = AssertUnwindSafe(tokio::time::timeout(deadline, Box::pin(body(&case)))).catch_unwind().await;
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(_elapsed)) => Some(late(name, deadline)),
        Err(panic) => Some(panic),
    };
    let violations = case.violations();
    if failure.is_some() || !violations.is_empty() {
        case.explain(&violations).await;
    }
    case.clear_away().await;
    note_time(name, began.elapsed());
    if let Some(failure) = failure {
        std::panic::resume_unwind(failure);
    }
    assert!(violations.is_empty(), "{violations}");
}

fn late(name: &str, deadline: Duration) -> Box<dyn Any + Send> {
    Box::new(format!("{name}: not over after {deadline:?}"))
}

/// For the list that `tests/e2e/run` prints at the end.
fn note_time(name: &str, took: Duration) {
    if let Some(path) = std::env::var_os("KITEPOOL_E2E_TIMES") {
        let mut times = std::fs::File::options().append(true).open(path).expect("the list of times");
        writeln!(times, "{:6.1} {name}", took.as_secs_f64()).expect("a line");
    }
}

impl Case {
    async fn prepare(access: Access, name: &str) -> Self {
        let admin = access.client().await;
        let namespace = free_namespace(&admin, name).await;
        chart::install(&admin, &namespace).await;
        let folder = control_plane::logs().join(name);
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        let buildkite = SimulatedBuildkite::start().await;
        let case = Self {
            token: chart::token(&admin, &namespace).await,
            agents: SimulatedAgents::start(access.client().await, &namespace, buildkite.registry()),
            buildkite,
            kubelet: SimulatedKubelet::start(access.client().await, &namespace, Habits::default()),
            history: History::start(access.client().await, &namespace),
            admin,
            access,
            folder,
            namespace,
        };
        case.keep_secret("buildkite-agent-token", "token", TOKEN).await;
        case.define(DEFINITION, template("agent", "first")).await;
        case
    }

    /// Starts a controller with the flags that it has in every case.
    pub(crate) async fn controller(&self) -> Replica {
        self.replica("a", &[]).await
    }

    /// Starts one that has a name of its own in the lease, and more flags.
    pub(crate) async fn replica(&self, identity: &str, more: &[&str]) -> Replica {
        let proxy = Proxy::start(&self.access).await;
        let launch = self.launch(identity, &proxy, more);
        Replica::start(launch, proxy)
    }

    /// Starts one that asks another Buildkite than the case's own.
    pub(crate) async fn replica_against(&self, endpoint: &str) -> Replica {
        self.replica_for(endpoint, true).await
    }

    /// The same, with more flags.
    pub(crate) async fn replica_against_with(&self, endpoint: &str, more: &[&str]) -> Replica {
        let proxy = Proxy::start(&self.access).await;
        let launch = Launch { endpoint: endpoint.to_owned(), ..self.launch("a", &proxy, more) };
        Replica::start(launch, proxy)
    }

    /// The same, for longer than a record lasts if nothing is to be taken down.
    pub(crate) async fn replica_for(&self, endpoint: &str, recorded: bool) -> Replica {
        let proxy = Proxy::start(&self.access).await;
        let launch = Launch { endpoint: endpoint.to_owned(), recorded, ..self.launch("a", &proxy, &[]) };
        Replica::start(launch, proxy)
    }

    /// Starts one without the flags of every case but the lease's, for those that set them otherwise.
    pub(crate) async fn bare_replica(&self, identity: &str, flags: &[&str]) -> Replica {
        let proxy = Proxy::start(&self.access).await;
        let launch = Launch { bare: true, ..self.launch(identity, &proxy, flags) };
        Replica::start(launch, proxy)
    }

    /// Starts one for very many pools: without the flags of every case, and nothing is taken down.
    pub(crate) async fn unrecorded_replica(&self, identity: &str, flags: &[&str]) -> Replica {
        let proxy = Proxy::start(&self.access).await;
        let launch = Launch { bare: true, recorded: false, ..self.launch(identity, &proxy, flags) };
        Replica::start(launch, proxy)
    }

    /// How a controller is started here, for those that want to change something of it.
    pub(crate) fn launch(&self, identity: &str, proxy: &Proxy, more: &[&str]) -> Launch {
        Launch {
            kubeconfig: self.kubeconfig(identity, &format!("http://{}", proxy.address)),
            namespace: self.namespace.clone(),
            endpoint: self.buildkite.endpoint(),
            identity: format!("{}-{identity}", self.namespace),
            more: more.iter().map(ToString::to_string).collect(),
            bare: false,
            recorded: true,
            log: self.log(identity),
        }
    }

    /// Where this case's logs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log(&self, identity: &str) -> PathBuf {
        self.folder.join(format!("{identity}.log"))
    }

    /// A kubeconfig of an administrator.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        let path = self.folder.join("admin.kubeconfig");
        self.access.write(&path);
        path
    }

    /// A kubeconfig with the token of the chart's account.
    pub(crate) fn kubeconfig(&self, identity: &str, server: &str) -> PathBuf {
        let path = self.folder.join(format!("{identity}.kubeconfig"));
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e", "namespace": self.namespace } }],
            "clusters": [{ "name": "e2e", "cluster": { "server": server } }],
            "users": [{ "name": "e2e", "user": { "token": self.token } }],
        });
        std::fs::write(&path, kubeconfig.to_string()).expect("a file");
        path
    }

    /// What a person needs to understand a failure.
    async fn explain(&self, violations: &str) {
        println!("--- {}: logs are in {}", self.namespace, self.folder.display());
        for entry in std::fs::read_dir(&self.folder).expect("the folder").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                println!("--- {}\n{}", entry.path().display(), tail(&entry.path()));
            }
        }
        if let Ok(pools) = self.pools().list(&ListParams::default()).await {
            for pool in pools {
                println!("--- pool {:?}: {}", pool.metadata.name, pool.data);
            }
        }
        println!("--- violations: {violations}");
    }

    /// What the controllers have recorded so far.
    pub(crate) fn records(&self) -> Records {
        records::read(&self.folder)
    }

    /// What was out of bounds, in the cluster or in the records, as text; empty when nothing was. For the end of a case, when
    /// its controllers are gone.
    fn violations(&self) -> String {
        let records = self.records();
        println!("{records}");
        let outside = self.history.violations();
        let mut found: Vec<String> = (!outside.is_empty()).then_some(outside).into_iter().collect();
        found.extend(records.violations());
        found.join("\n")
    }

    async fn clear_away(&self) {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        // The kubelet has ended by the time at which the pods go, so nobody would let them go otherwise.
        let at_once = DeleteParams::default().grace_period(0);
        drop(self.pods().delete_collection(&at_once, &ListParams::default()).await);
        drop(namespaces.delete(&self.namespace, &DeleteParams::default()).await);
    }
}

impl Replica {
    fn start(launch: Launch, proxy: Proxy) -> Self {
        let controller = Controller::start(&launch);
        let alive = Alive::new(Some(controller.pid()).into());
        Self { controller, proxy, launch, alive }
    }

    /// Starts the killed controller again, as the kubelet restarts a container: in the same pod, so under the same name.
    pub(crate) fn start_again(&mut self) {
        // Nobody else may kill what is waited for here: its number may belong to another process the next moment.
        *self.alive.lock().expect("no panic while it is held") = None;
        self.controller.kill();
        self.controller = Controller::start(&self.launch);
        *self.alive.lock().expect("no panic while it is held") = Some(self.controller.pid());
    }

    /// Starts it again with other flags, as an upgrade does.
    pub(crate) fn start_again_with(&mut self, more: &[&str]) {
        self.launch.more = more.iter().map(ToString::to_string).collect();
        self.start_again();
    }

    /// Kills the controller at these writes, each life at the first one that comes up.
    pub(crate) fn kill_at(&self, side: Side, victims: Victims) {
        self.proxy.kill(KillPlan::new(side, victims, Alive::clone(&self.alive)));
    }
}

impl Drop for Replica {
    /// Leaves what it asked of the API server beside its log.
    fn drop(&mut self) {
        let records: Vec<String> = self.proxy.records().iter().map(ToString::to_string).collect();
        drop(std::fs::write(self.launch.log.with_extension("requests"), records.join("\n")));
    }
}

/// Names are not used twice, since a namespace takes its time to go.
async fn free_namespace(admin: &Client, name: &str) -> String {
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let wanted = Namespace {
        metadata: ObjectMeta { generate_name: Some(format!("e2e-{name}-")), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let made = namespaces.create(&PostParams::default(), &wanted).await.expect("a namespace");
    made.metadata.name.expect("a name")
}
