//! The life of one pod on a node: volumes, init containers in their order, the others, the end.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::{Api, Client, ResourceExt as _};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    addresses::Address,
    board::{Board, Kind, State, View},
    container::Life,
    environment::Downward,
    ledger::{Entry, Ledger, What, Why},
    objects::Objects,
    settings::{Habits, Images},
    status,
    volumes::Volumes,
};

/// Where all nodes say they are.
const HOST: &str = "127.0.0.1";

/// From one attempt to mount a volume whose Secret is missing to the next.
const MOUNT_AGAIN: Duration = Duration::from_millis(500);

/// The grace period of a pod that says nothing.
const DEFAULT_GRACE: i64 = 30;

/// What the pods of one node share.
pub(crate) struct NodeContext {
    pub(crate) name: String,
    /// The first process of the node's machine.
    pub(crate) first: i32,
    pub(crate) folder: PathBuf,
    pub(crate) client: Client,
    pub(crate) http: reqwest::Client,
    pub(crate) images: Images,
    pub(crate) habits: Arc<Mutex<Habits>>,
    pub(crate) ledger: Ledger,
    pub(crate) back_off: Duration,
    pub(crate) volumes_every: Duration,
}

impl NodeContext {
    pub(crate) fn habits(&self) -> Habits {
        self.habits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// That containers are to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Termination {
    /// When patience is over.
    pub(crate) deadline: Instant,
    /// Another one begins the termination anew, signal included.
    pub(crate) round: u32,
    pub(crate) why: Why,
}

/// A pod on its node.
pub(crate) struct PodContext {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) downward: Downward,
    pub(crate) address: Address,
    pub(crate) objects: Objects,
    pub(crate) board: Board,
    pub(crate) folder: PathBuf,
    pub(crate) started: Timestamp,
    pub(crate) stop: watch::Sender<Option<Termination>>,
    pub(crate) volumes: tokio::sync::Mutex<Volumes>,
    is_deleted: watch::Sender<bool>,
    /// All has been done, and the phase is the last one.
    is_over: watch::Sender<bool>,
}

impl PodContext {
    /// `None`: there is no address left.
    pub(crate) fn new(node: Arc<NodeContext>, pod: Pod) -> Option<Self> {
        let address = Address::take()?;
        let spec = pod.spec.clone().unwrap_or_default();
        let uid = pod.uid().unwrap_or_default();
        let folder = node.folder.join("pods").join(&uid);
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        let group = group.and_then(|group| u32::try_from(group).ok());
        Some(Self {
            objects: Objects::new(node.client.clone(), pod.namespace().unwrap_or_default()),
            board: Board::new(views(&spec)),
            volumes: tokio::sync::Mutex::new(Volumes::new(folder.join("volumes"), group)),
            downward: Downward {
                node: node.name.clone(),
                address: address.0.to_string(),
                host_address: HOST.to_owned(),
                pod,
            },
            address,
            folder,
            started: now(),
            stop: watch::Sender::new(None),
            is_deleted: watch::Sender::new(false),
            is_over: watch::Sender::new(false),
            node,
        })
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.downward.pod
    }

    pub(crate) fn name(&self) -> String {
        self.pod().name_any()
    }

    pub(crate) fn spec(&self) -> PodSpec {
        self.pod().spec.clone().unwrap_or_default()
    }

    pub(crate) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.node.client.clone(), &self.pod().namespace().unwrap_or_default())
    }

    pub(crate) fn grace(&self) -> Duration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Waits until its containers are to end.
    pub(crate) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // The sender is ours, so this ends for no other reason.
        drop(stop.wait_for(Option::is_some).await);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    pub(crate) fn enter(&self, container: &str, pid: Option<i32>, what: What) {
        self.node.ledger.enter(Entry {
            at: now(),
            moment: Instant::now(),
            node: self.node.name.clone(),
            pod: self.name(),
            container: container.to_owned(),
            pid,
            what,
        });
    }

    /// The pod is deleted, with so much grace from now. The first time begins its end; after that a deadline can only come nearer.
    pub(crate) fn terminate(&self, grace: Duration) {
        // A kubelet gives a second even to what has none left.
        let deadline = Instant::now() + grace.max(Duration::from_secs(1));
        self.stop.send_modify(|stop| match stop {
            Some(termination) => termination.deadline = termination.deadline.min(deadline),
            None => *stop = Some(Termination { deadline, round: 0, why: Why::Deleted }),
        });
        self.is_deleted.send_replace(true);
    }

    /// Begins the end once more, as a kubelet or a runtime does that has forgotten what it did.
    pub(crate) fn terminate_again(&self) {
        let deadline = Instant::now() + self.grace();
        self.stop.send_modify(|stop| {
            if let Some(termination) = stop {
                *termination = Termination { deadline, round: termination.round + 1, why: Why::SignalledAgain };
            }
        });
    }
}

/// Each container as it is before anything has happened.
fn views(spec: &PodSpec) -> BTreeMap<String, View> {
    let has_init = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
    let view = |(kind, container): (Kind, &Container)| {
        let reason = if has_init && kind != Kind::Sidecar { "PodInitializing" } else { "ContainerCreating" };
        let view = View {
            kind,
            image: container.image.clone().unwrap_or_default(),
            state: State::Waiting { reason: reason.to_owned(), message: String::new() },
            last: None,
            restarts: 0,
            is_started: false,
            is_ready: false,
            is_over: false,
        };
        (container.name.clone(), view)
    };
    containers(spec).map(view).collect()
}

/// All containers in their order.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (Kind, &Container)> {
    let kind = |init: &Container| if is_sidecar(init) { Kind::Sidecar } else { Kind::Init };
    let init = spec.init_containers.iter().flatten().map(move |init| (kind(init), init));
    init.chain(spec.containers.iter().map(|main| (Kind::Main, main)))
}

fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// All of it, to the deletion of the object.
pub(crate) async fn live(pod: Arc<PodContext>) {
    let mut writer = status::Writer::new(Arc::clone(&pod));
    tokio::select! {
        () = course(&pod) => {}
        () = writer.keep() => {}
        () = keep_volumes(&pod) => {}
    }
    pod.is_over.send_replace(true);
    writer.write().await;
    let mut deleted = pod.is_deleted.subscribe();
    drop(deleted.wait_for(|is_deleted| *is_deleted).await);
    drop(std::fs::remove_dir_all(pod.folder.join("volumes")));
    status::finish(&pod).await;
}

async fn course(pod: &Arc<PodContext>) {
    let spec = pod.spec();
    if mount(pod).await {
        let mut lives = JoinSet::new();
        if initialize(pod, &spec, &mut lives).await {
            for main in &spec.containers {
                lives.spawn(Life::new(pod, main, Kind::Main, Vec::new()).live());
            }
        }
        pod.board.until(|views| views.values().all(|view| view.kind != Kind::Main || view.is_over)).await;
        let deadline = Instant::now() + pod.grace();
        pod.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(Termination { deadline, round: 0, why: Why::MainEnded });
            is_first
        });
        while lives.join_next().await.is_some() {}
    }
}

/// Waits for what the volumes are made of. Answers whether the pod may start.
async fn mount(pod: &PodContext) -> bool {
    loop {
        let attempt = async { pod.volumes.lock().await.make(&pod.downward, &pod.objects).await };
        tokio::select! {
            made = attempt => match made {
                Ok(()) => return true,
                Err(trouble) => pod.enter("", None, What::Failed(trouble)),
            },
            () = pod.stopping() => return false,
        }
        tokio::select! {
            () = sleep(MOUNT_AGAIN) => {}
            () = pod.stopping() => return false,
        }
    }
}

/// Runs the init containers, one after the other. Answers whether the others may run; says that they are over where not.
async fn initialize(pod: &Arc<PodContext>, spec: &PodSpec, lives: &mut JoinSet<()>) -> bool {
    let init: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let mut has_failed = false;
    for (position, container) in init.iter().enumerate() {
        if has_failed || pod.is_stopping() {
            has_failed = true;
            pod.board.change(&container.name, |view| view.is_over = true);
            continue;
        }
        let kind = if is_sidecar(container) { Kind::Sidecar } else { Kind::Init };
        let later = init.iter().skip(position + 1).filter(|later| is_sidecar(later));
        let before_it = later.copied().chain(&spec.containers).map(|other| other.name.clone()).collect();
        lives.spawn(Life::new(pod, container, kind, before_it).live());
        let name = &container.name;
        let is_past = |view: &View| view.is_over || (kind == Kind::Sidecar && view.is_started);
        pod.board.until(|views| is_past(&views[name])).await;
        has_failed = pod.is_stopping() || !is_done(&pod.board.view(name));
    }
    if has_failed {
        for main in &spec.containers {
            pod.board.change(&main.name, |view| view.is_over = true);
        }
    }
    !has_failed
}

/// Whether an init container has done its part.
pub(crate) fn is_done(view: &View) -> bool {
    match (&view.state, view.kind) {
        (_, Kind::Sidecar) => view.is_started,
        (State::Terminated(end), _) => view.is_over && end.exit_code == 0,
        _ => false,
    }
}

/// Brings mounted Secrets and config maps up to date, for ever.
async fn keep_volumes(pod: &PodContext) {
    loop {
        sleep(pod.node.volumes_every).await;
        if let Err(trouble) = pod.volumes.lock().await.make(&pod.downward, &pod.objects).await {
            pod.enter("", None, What::Failed(trouble));
        }
    }
}

/// A kubelet stamps what it writes with the time of its machine.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
