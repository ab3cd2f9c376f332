//! The pod library on a kubelet of processes: which programs stand for its images, and what this machine needs told otherwise.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{Case, control_plane::repository};

const SERVICES: &str = include_str!("../../../pod-library/services.yaml");
const ELASTIC_CI_STACK: &str = include_str!("../../../pod-library/elastic-ci-stack.yaml");

/// Where a pod finds the agent's program, the folder of which its user may not be let into.
const AGENT_FOLDER: &str = "/agent-program";
/// Where a pod finds `tests/pod_library`.
const STAND_INS: &str = "/pod-library-tests";

/// What stands for the images of the library: the programs of this machine, and what is there only in the place of others.
pub(crate) fn images(agent: &Path) -> Value {
    let tests = repository().join("tests/pod_library");
    let entry = repository().join("pod-library/images/elastic-ci-stack/bin/elastic-ci-stack-agent");
    let tini = tests.join("stand-ins/tini");
    let path = format!("/image:{AGENT_FOLDER}:/usr/local/bin:/usr/bin:/bin");
    json!({
        "kitepool/agent-services:3.137.2": {
            "entrypoint": [agent],
            "files": { "/image/tini": tini, "/image/buildkite-agent": agent },
            "env": { "PATH": path },
        },
        "kitepool/agent-elastic-ci-stack:3.137.2": {
            "entrypoint": [entry],
            "files": { "/image/tini": tini, "/image/elastic-ci-stack-agent": entry },
            "env": { "PATH": path },
        },
        image(SERVICES, "postgres"): { "entrypoint": [tests.join("stand-ins/postgres-entrypoint")] },
        image(SERVICES, "redis"): { "entrypoint": ["env"] },
        image(SERVICES, "memcached"): { "entrypoint": ["env"] },
        image(ELASTIC_CI_STACK, "docker"): {
            "env": { "PATH": format!("{STAND_INS}/stand-ins:/usr/local/bin:/usr/bin:/bin") },
        },
    })
}

/// The image of a definition whose name begins so.
fn image(definition: &str, name: &str) -> String {
    let images = definition.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    images.into_iter().find(|image| image.starts_with(&format!("{name}:"))).expect("an image of that name").to_owned()
}

/// services.yaml with ports that nobody has on this machine, whose network all pods share, and its user for Postgres.
pub(crate) fn services() -> String {
    let mut text = SERVICES.to_owned();
    // Held together, so that they are three.
    let listeners =
        ["5432", "6379", "11211"].map(|port| (port, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")));
    for (port, listener) in &listeners {
        text = text.replace(port, &listener.local_addr().expect("an address").port().to_string());
    }
    text
}

/// The number of the user that the distribution's Postgres runs as: it wants one that has a name.
pub(crate) fn postgres_user() -> i64 {
    let told = Command::new("id").args(["-u", "postgres"]).output().expect("id can be run");
    String::from_utf8_lossy(&told.stdout).trim().parse().expect("the user postgres, of the distribution's package")
}

/// The users of basic's image, as a file: ssh runs for nobody who has no name.
pub(crate) fn ubuntu_users(case: &Case) -> PathBuf {
    let of_machine = std::fs::read_to_string("/etc/passwd").expect("users");
    let others = of_machine.lines().filter(|line| line.split(':').nth(2) != Some("1000"));
    let users: Vec<&str> = others.chain(["ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash"]).collect();
    let file = case.folder().join("ubuntu/passwd");
    std::fs::create_dir_all(case.folder().join("ubuntu")).expect("a folder of ours");
    std::fs::write(&file, users.join("\n") + "\n").expect("a file of ours");
    file
}

/// elastic-ci-stack.yaml with its folders where this machine has none.
pub(crate) fn elastic_ci_stack() -> String {
    ELASTIC_CI_STACK.replace("/var/lib/buildkite-agent", "/buildkite-agent").replace("/var/lib/docker", "/docker")
}

/// Gives each container what its image would bring along: hooks, the agent's program, stand-ins.
pub(crate) fn furnish(case: &Case, template: &mut Value, hooks: &str, agent: &Path) {
    let folders = [
        ("hooks", lay_out(case, hooks), "/etc/buildkite-agent"),
        ("agent-program", agent.parent().expect("a folder").to_owned(), AGENT_FOLDER),
        ("stand-ins", stand_ins(case), STAND_INS),
    ];
    let spec = &mut template["spec"];
    for (name, place, target) in folders {
        let volume = json!({ "name": name, "hostPath": { "path": place } });
        spec["volumes"].as_array_mut().expect("volumes").push(volume);
        for kind in ["initContainers", "containers"] {
            for container in spec[kind].as_array_mut().expect("containers") {
                let mount = json!({ "name": name, "mountPath": target, "readOnly": true });
                match container["volumeMounts"].as_array_mut() {
                    Some(mounts) => mounts.push(mount),
                    None => container["volumeMounts"] = json!([mount]),
                }
            }
        }
    }
}

/// Hooks and their library, as the Dockerfile lays them out.
fn lay_out(case: &Case, image: &str) -> PathBuf {
    let place = case.folder().join("buildkite-agent");
    let images = repository().join("pod-library/images");
    copy(&images.join("lib"), &place.join("lib"));
    copy(&images.join(image).join("hooks"), &place.join("hooks"));
    let own = images.join(image).join("lib");
    if own.exists() {
        copy(&own, &place.join("lib"));
    }
    place
}

/// What stands in for programs that a container would have. A copy, since a node does not see every folder of this machine.
fn stand_ins(case: &Case) -> PathBuf {
    let (tests, place) = (repository().join("tests/pod_library"), case.folder().join("pod-library-tests"));
    copy(&tests.join("stand-ins"), &place.join("stand-ins"));
    std::fs::copy(tests.join("simulated_docker.py"), place.join("simulated_docker.py")).expect("a copy");
    place
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder of ours");
    for entry in std::fs::read_dir(from).expect("a folder of the repository").flatten() {
        let target = to.join(entry.file_name());
        std::fs::copy(entry.path(), &target).expect("a copy");
        std::fs::set_permissions(&target, PermissionsExt::from_mode(0o755)).expect("a file of ours");
    }
}
