//! A container's definition and its image made into a program to run: command, environment, user, mounts.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SecurityContext, VolumeMount};

use super::{
    environment::{expand, variables},
    launch::{Identity, Mount, Program},
    pod::PodContext,
    settings::Image,
};

/// As container runtimes set it where the image is silent.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a container finds the program of its image, if the image file names it by its path.
const PROGRAMS: &str = "/image";

/// `Err`: something that the definition names is not there.
pub(crate) async fn program(
    pod: &PodContext,
    container: &Container,
    image: &Image,
    starts: u32,
) -> Result<Program, String> {
    let own = variables(container, &pod.downward, &pod.objects).await?;
    let spec = pod.spec();
    let mut command = words(container.command.as_deref(), &own);
    let mut args = words(container.args.as_deref(), &own);
    let mut mounts = mounts(pod, container, &own).await?;
    // What a pod mounts comes over what the image has.
    mounts.splice(0..0, files(image));
    if command.is_empty() {
        command.clone_from(&image.entrypoint);
        bring(&mut command, &mut mounts);
        if args.is_empty() {
            args.clone_from(&image.command);
        }
    }
    command.append(&mut args);
    if command.is_empty() {
        return Err("no command specified".to_owned());
    }
    let identity = identity(spec.security_context.as_ref(), container.security_context.as_ref())?;
    let home = if identity.user.is_some_and(|(user, _)| user != 0) { "/" } else { "/root" };
    let host_name = spec.hostname.clone().unwrap_or_else(|| pod.name());
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
        ("HOSTNAME".to_owned(), host_name.clone()),
    ]);
    environment.extend(image.env.clone());
    environment.extend(own);
    Ok(Program {
        host_name,
        identity,
        directory: container
            .working_dir
            .clone()
            .or_else(|| image.working_directory.clone())
            .unwrap_or_else(|| "/".to_owned()),
        mounts,
        environment: environment.into_iter().collect(),
        command,
        log: pod.folder.join(format!("{}.{starts}.log", container.name)),
    })
}

/// A program that is named by its path is mounted, since the user may not be let into the folders on the way to it.
fn bring(command: &mut [String], mounts: &mut Vec<Mount>) {
    let Some(program) = command.first_mut().filter(|program| program.starts_with('/')) else { return };
    let source = PathBuf::from(&*program);
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    *program = format!("{PROGRAMS}/{name}");
    mounts.push(Mount { target: program.clone(), source, is_read_only: true });
}

fn files(image: &Image) -> impl Iterator<Item = Mount> {
    let mount = |(target, source): (&String, &PathBuf)| Mount {
        source: source.clone(),
        target: target.clone(),
        is_read_only: true,
    };
    image.files.iter().map(mount)
}

fn words(words: Option<&[String]>, known: &BTreeMap<String, String>) -> Vec<String> {
    words.into_iter().flatten().map(|word| expand(word, known)).collect()
}

fn identity(pod: Option<&PodSecurityContext>, container: Option<&SecurityContext>) -> Result<Identity, String> {
    let user = container.and_then(|own| own.run_as_user).or_else(|| pod.and_then(|pod| pod.run_as_user));
    let group = container.and_then(|own| own.run_as_group).or_else(|| pod.and_then(|pod| pod.run_as_group));
    let is_not_root = container.and_then(|own| own.run_as_non_root).or_else(|| pod.and_then(|pod| pod.run_as_non_root));
    if is_not_root == Some(true) && user.unwrap_or(0) == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    let mut groups: Vec<i64> = pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(pod.and_then(|pod| pod.fs_group));
    let is_confined = container.and_then(|own| own.allow_privilege_escalation) == Some(false);
    Ok(Identity { user: user.map(|user| (user, group.unwrap_or(0))), groups, is_confined })
}

async fn mounts(
    pod: &PodContext,
    container: &Container,
    known: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec().volumes.unwrap_or_default();
    let made = pod.volumes.lock().await;
    let mount = |mount: &VolumeMount| {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("there is no volume \"{}\"", mount.name))?;
        let inner = mount.sub_path_expr.as_deref().map(|inner| expand(inner, known)).or_else(|| mount.sub_path.clone());
        let mut source = made.place(volume);
        if let Some(inner) = inner.filter(|inner| !inner.is_empty()) {
            source.push(inner);
            if !source.exists() {
                std::fs::create_dir_all(&source).map_err(|error| error.to_string())?;
            }
        }
        let target = mount.mount_path.trim_end_matches('/').to_owned();
        Ok(Mount { source, target, is_read_only: mount.read_only == Some(true) })
    };
    let mut mounts: Vec<Mount> = container.volume_mounts.iter().flatten().map(mount).collect::<Result<_, String>>()?;
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(mounts)
}
