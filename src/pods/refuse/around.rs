//! What stands around the agent: its helpers, its volumes, its port, and where its pods run.

use kitepool_api::Problem;
use serde_json::Value;

use crate::pods::{
    contract::{
        AGENT_CONTAINER, FARGATE, HEALTH_PORT, HEALTH_PORT_TAKEN, HELPER_LIFE, NAME_TAKEN, SECOND_SIGNAL,
        SHARED_BUILDS, SHARES_LIFE_ANNOTATION, TOKEN_VOLUME,
        environment::{BUILD_PATH, HEALTH_ADDRESS},
    },
    first,
    template::{containers, fields, list, place, text, variable, words},
};

/// Where the agent checks out unless it is told: in its own images, and as its packages have it.
const DEFAULT_BUILDS: [&str; 2] = ["/buildkite/builds", "/var/lib/buildkite-agent/builds"];

/// Labels and selectors by which pods get onto Fargate.
const FARGATE_MARKS: [(&str, &str, Option<&str>); 4] = [
    ("/metadata/labels", "eks.amazonaws.com/fargate-profile", None),
    ("/metadata/labels", "platform", Some("fargate")),
    ("/metadata/annotations", "eks.amazonaws.com/fargate-profile", None),
    ("/spec/nodeSelector", "eks.amazonaws.com/compute-type", Some("fargate")),
];

/// All of it.
pub(super) fn all(template: &Value, agent: &Value, mounts_token: bool, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(taken_names(template, mounts_token, path));
    problems.extend(second_signal(template, path));
    problems.extend(helpers(template, path));
    problems.extend(shared_builds(template, agent, path));
    problems.extend(health_port(template, agent, path));
    problems.extend(fargate(template, path));
    problems
}

fn volumes(template: &Value) -> &[Value] {
    template.get("spec").map_or(&[], |spec| list(spec, "volumes"))
}

/// Names that the controller needs. That of the first process is kept free for the day on which there is an image to take it from.
fn taken_names(template: &Value, mounts_token: bool, path: &str) -> Vec<Problem> {
    let volumes = volumes(template).iter().filter_map(|volume| text(volume, "name"));
    let volumes = volumes.filter(|name| *name == first::NAME || (mounts_token && *name == TOKEN_VOLUME));
    let volumes = volumes.map(|name| (format!("{path}.spec.volumes[{name}]"), name));
    let containers = containers(template).filter(|(_, container)| text(container, "name") == Some(first::NAME));
    let containers = containers.map(|(kind, container)| (place(path, kind, container), first::NAME));
    volumes
        .chain(containers)
        .map(|(place, name)| NAME_TAKEN.broken(place, &format!("the name `{name}` is taken")))
        .collect()
}

fn second_signal(template: &Value, path: &str) -> Option<Problem> {
    let other = first::wish(template).filter(|wish| ![first::WITHHOLD, first::FORWARD].contains(wish))?;
    let place = format!("{path}.metadata.annotations");
    Some(SECOND_SIGNAL.broken(place, &format!("{} is {other:?}", first::SECOND_SIGNAL_ANNOTATION)))
}

fn helpers(template: &Value, path: &str) -> Vec<Problem> {
    let annotation = template.pointer("/metadata/annotations").and_then(|all| text(all, SHARES_LIFE_ANNOTATION));
    let declared: Vec<&str> = annotation.unwrap_or_default().split(',').map(str::trim).collect();
    containers(template)
        .filter(|(kind, container)| {
            let name = text(container, "name").unwrap_or_default();
            *kind == "containers" && name != AGENT_CONTAINER && !declared.contains(&name)
        })
        .map(|(kind, container)| {
            HELPER_LIFE.broken(place(path, kind, container), "this is an ordinary container beside `agent`")
        })
        .collect()
}

fn shared_builds(template: &Value, agent: &Value, path: &str) -> Option<Problem> {
    let named =
        flag(agent, "--build-path").or_else(|| variable(agent, BUILD_PATH).and_then(|found| text(found, "value")));
    let builds = named.map_or_else(|| DEFAULT_BUILDS.to_vec(), |path| vec![path]);
    let host_paths: Vec<&str> = volumes(template)
        .iter()
        .filter(|volume| volume.get("hostPath").is_some_and(|source| !source.is_null()))
        .filter_map(|volume| text(volume, "name"))
        .collect();
    // The mount that is nearest to the folder is the one that holds it.
    let (mount, folder) = builds
        .iter()
        .filter_map(|builds| {
            let holds = |mount: &&Value| text(mount, "mountPath").is_some_and(|at| is_within(builds, at));
            let length = |mount: &&Value| text(mount, "mountPath").map_or(0, str::len);
            Some((list(agent, "volumeMounts").iter().filter(holds).max_by_key(length)?, *builds))
        })
        .find(|(mount, _)| text(mount, "name").is_some_and(|name| host_paths.contains(&name)))?;
    let is_own = text(mount, "subPathExpr").is_some_and(|sub_path| sub_path.contains("$("));
    let at = text(mount, "mountPath").unwrap_or_default();
    let found = format!("builds lie in {folder}, on a hostPath");
    (!is_own).then(|| SHARED_BUILDS.broken(format!("{}.volumeMounts[{at}]", place(path, "containers", agent)), &found))
}

fn is_within(folder: &str, mount: &str) -> bool {
    let mount = mount.trim_end_matches('/');
    folder.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The value of a flag among a container's words.
fn flag<'a>(container: &'a Value, flag: &str) -> Option<&'a str> {
    let words = words(container);
    let at = words.iter().position(|word| word.split('=').next() == Some(flag))?;
    let joined = words.get(at).and_then(|word| word.split_once('=')).map(|(_, value)| value);
    joined.or_else(|| words.get(at + 1).copied())
}

/// The port at the end of an address.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

fn health_port(template: &Value, agent: &Value, path: &str) -> Vec<Problem> {
    let named = variable(agent, HEALTH_ADDRESS).and_then(|found| text(found, "value")).and_then(port_of);
    let port = named.unwrap_or(HEALTH_PORT);
    let mut problems: Vec<Problem> = containers(template)
        .filter(|(_, container)| text(container, "name") != Some(AGENT_CONTAINER))
        .filter(|(_, container)| uses(container, port))
        .map(|(kind, container)| {
            HEALTH_PORT_TAKEN
                .broken(place(path, kind, container), &format!("it uses port {port}, as the agent does for its health"))
        })
        .collect();
    // On the node's network all pods of a node are users of its ports, unless the scheduler is told to keep them apart.
    let is_on_node = template.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    if is_on_node && !declares(agent, port) {
        let found = format!("two pods on one node would both use its port {port}");
        let place = format!("{path}.spec.hostNetwork");
        let remedy =
            "leave hostNetwork out, or declare the port under `ports` of the agent: then no node gets two of them";
        problems.push(Problem { remedy: remedy.to_owned(), ..HEALTH_PORT_TAKEN.broken(place, &found) });
    }
    problems
}

fn declares(container: &Value, port: u16) -> bool {
    list(container, "ports").iter().any(|one| one.get("containerPort").and_then(Value::as_u64) == Some(port.into()))
}

/// Whether a container says that it listens there: by its ports, its probes, or as an agent itself.
fn uses(container: &Value, port: u16) -> bool {
    let is_probed = ["startupProbe", "readinessProbe", "livenessProbe"].into_iter().any(|probe| {
        ["httpGet", "tcpSocket", "grpc"]
            .into_iter()
            .any(|way| container.pointer(&format!("/{probe}/{way}/port")).and_then(Value::as_u64) == Some(port.into()))
    });
    let is_agent =
        variable(container, HEALTH_ADDRESS).and_then(|found| text(found, "value")).and_then(port_of) == Some(port);
    declares(container, port) || is_probed || is_agent
}

fn fargate(template: &Value, path: &str) -> Vec<Problem> {
    let is_marked = FARGATE_MARKS.iter().any(|(place, key, value)| {
        let found = template.pointer(place).and_then(|all| text(all, key));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    });
    let is_scheduled = template.pointer("/spec/schedulerName").and_then(Value::as_str) == Some("fargate-scheduler");
    if !is_marked && !is_scheduled {
        return Vec::new();
    }
    let refuse = |place: String, found: &str| FARGATE.broken(place, &format!("this is for Fargate, and {found}"));
    let mut problems = Vec::new();
    for switch in ["hostNetwork", "hostPID", "hostIPC"] {
        if template.pointer(&format!("/spec/{switch}")).and_then(Value::as_bool) == Some(true) {
            problems.push(refuse(format!("{path}.spec.{switch}"), &format!("asks for {switch}")));
        }
    }
    for volume in
        volumes(template).iter().filter(|volume| volume.get("hostPath").is_some_and(|source| !source.is_null()))
    {
        let name = text(volume, "name").unwrap_or_default();
        problems.push(refuse(format!("{path}.spec.volumes[{name}]"), "holds a hostPath"));
    }
    for (kind, container) in containers(template) {
        let place = place(path, kind, container);
        if container.pointer("/securityContext/privileged").and_then(Value::as_bool) == Some(true) {
            problems.push(refuse(format!("{place}.securityContext.privileged"), "holds a privileged container"));
        }
        if list(container, "ports")
            .iter()
            .any(|port| port.get("hostPort").and_then(Value::as_u64).is_some_and(|n| n > 0))
        {
            problems.push(refuse(format!("{place}.ports"), "asks for a port of the node"));
        }
        let limits = container.get("resources").map(|resources| fields(resources, "limits"));
        if let Some((name, _)) = limits.into_iter().flatten().find(|(name, _)| name.contains('/')) {
            problems.push(refuse(format!("{place}.resources.limits[{name}]"), "asks for a device of the node"));
        }
    }
    problems
}
