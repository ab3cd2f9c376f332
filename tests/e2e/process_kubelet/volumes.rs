//! The volumes of a pod, as folders of this machine: made before the pod starts, and brought up to date while it runs.

use std::{
    collections::BTreeMap,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::{environment::Downward, objects::Objects};

/// As Kubernetes has it.
const DEFAULT_MODE: i32 = 0o644;

/// A link to the files of one moment, so that all of them change at once.
const CURRENT: &str = "..data";

/// Files by their path in the volume.
type Files = BTreeMap<String, (Vec<u8>, i32)>;

/// The volumes of one pod.
#[derive(Debug)]
pub(crate) struct Volumes {
    folder: PathBuf,
    group: Option<u32>,
    /// What each volume of files holds, and how often it has changed.
    written: BTreeMap<String, (u32, Files)>,
}

impl Volumes {
    pub(crate) fn new(folder: PathBuf, group: Option<u32>) -> Self {
        Self { folder, group, written: BTreeMap::new() }
    }

    /// Makes each of them, or brings it up to date.
    pub(crate) async fn make(&mut self, downward: &Downward, objects: &Objects) -> Result<(), String> {
        let spec = downward.pod.spec.clone().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            let made = self.volume(volume, downward, objects).await;
            made.map_err(|trouble| format!("MountVolume.SetUp failed for volume \"{}\": {trouble}", volume.name))?;
        }
        Ok(())
    }

    /// Where the volume is on this machine.
    pub(crate) fn place(&self, volume: &Volume) -> PathBuf {
        volume.host_path.as_ref().map_or_else(|| self.folder.join(&volume.name), |host| PathBuf::from(&host.path))
    }

    async fn volume(&mut self, volume: &Volume, downward: &Downward, objects: &Objects) -> Result<(), String> {
        let place = self.place(volume);
        if volume.host_path.is_some() {
            return if place.exists() { Ok(()) } else { Err(format!("hostPath {} does not exist", place.display())) };
        }
        if volume.empty_dir.is_some() {
            return self.empty(&place).map_err(|error| error.to_string());
        }
        let files = files(volume, downward, objects).await?;
        self.write(&volume.name, &place, files).map_err(|error| error.to_string())
    }

    fn empty(&self, place: &Path) -> std::io::Result<()> {
        if place.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(place)?;
        chown(place, None, self.group)?;
        std::fs::set_permissions(place, PermissionsExt::from_mode(0o777))
    }

    /// Writes the files beside those of before and moves the link.
    fn write(&mut self, name: &str, place: &Path, files: Files) -> std::io::Result<()> {
        let (version, before) = self.written.get(name).cloned().unwrap_or_default();
        if version > 0 && before == files {
            return Ok(());
        }
        let moment = format!("..{}", version + 1);
        std::fs::create_dir_all(place.join(&moment))?;
        for (path, (content, mode)) in &files {
            let file = place.join(&moment).join(path);
            file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&file, content)?;
            chown(&file, None, self.group)?;
            std::fs::set_permissions(&file, PermissionsExt::from_mode(u32::try_from(*mode).unwrap_or(0o644)))?;
        }
        let new = place.join("..data_new");
        symlink(&moment, &new)?;
        std::fs::rename(&new, place.join(CURRENT))?;
        let tops = |files: &Files| -> std::collections::BTreeSet<String> {
            files.keys().filter_map(|path| path.split('/').next()).map(ToOwned::to_owned).collect()
        };
        for top in tops(&files).difference(&tops(&before)) {
            symlink(Path::new(CURRENT).join(top), place.join(top))?;
        }
        for top in tops(&before).difference(&tops(&files)) {
            std::fs::remove_file(place.join(top))?;
        }
        if version > 0 {
            std::fs::remove_dir_all(place.join(format!("..{version}")))?;
        }
        self.written.insert(name.to_owned(), (version + 1, files));
        Ok(())
    }
}

async fn files(volume: &Volume, downward: &Downward, objects: &Objects) -> Result<Files, String> {
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let is_optional = secret.optional == Some(true);
        let entries = objects.secret(name, is_optional).await?;
        return chosen(entries, secret.items.as_deref(), secret.default_mode, is_optional);
    }
    if let Some(map) = &volume.config_map {
        let is_optional = map.optional == Some(true);
        let entries = objects.config_map(&map.name, is_optional).await?;
        return chosen(entries, map.items.as_deref(), map.default_mode, is_optional);
    }
    if let Some(own) = &volume.downward_api {
        return fields(own.items.as_deref(), own.default_mode, downward);
    }
    if let Some(projected) = &volume.projected {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            files.extend(projection(source, projected.default_mode, downward, objects).await?);
        }
        return Ok(files);
    }
    Err("this kubelet knows emptyDir, hostPath, secret, configMap, downwardAPI and projected".to_owned())
}

async fn projection(
    source: &VolumeProjection,
    mode: Option<i32>,
    downward: &Downward,
    objects: &Objects,
) -> Result<Files, String> {
    if let Some(secret) = &source.secret {
        let is_optional = secret.optional == Some(true);
        return chosen(objects.secret(&secret.name, is_optional).await?, secret.items.as_deref(), mode, is_optional);
    }
    if let Some(map) = &source.config_map {
        let is_optional = map.optional == Some(true);
        return chosen(objects.config_map(&map.name, is_optional).await?, map.items.as_deref(), mode, is_optional);
    }
    if let Some(own) = &source.downward_api {
        return fields(own.items.as_deref(), mode, downward);
    }
    if let Some(token) = &source.service_account_token {
        let account = downward.field("spec.serviceAccountName")?;
        let content = objects.token(&account, token.audience.clone(), token.expiration_seconds).await?;
        return Ok(Files::from([(token.path.clone(), (content.into_bytes(), mode.unwrap_or(DEFAULT_MODE)))]));
    }
    Err("this kubelet does not know that projection".to_owned())
}

/// All entries under their own names, or those that are listed.
fn chosen(
    mut entries: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    is_optional: bool,
) -> Result<Files, String> {
    let mode = mode.unwrap_or(DEFAULT_MODE);
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(entries.into_iter().map(|(key, content)| (key, (content, mode))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match entries.remove(&item.key) {
            Some(content) => drop(files.insert(item.path.clone(), (content, item.mode.unwrap_or(mode)))),
            None if is_optional => {}
            None => return Err(format!("references non-existent key: {}", item.key)),
        }
    }
    Ok(files)
}

fn fields(items: Option<&[DownwardAPIVolumeFile]>, mode: Option<i32>, downward: &Downward) -> Result<Files, String> {
    let mode = mode.unwrap_or(DEFAULT_MODE);
    let file = |item: &DownwardAPIVolumeFile| {
        let field = item.field_ref.as_ref().ok_or("this kubelet knows no resourceFieldRef")?;
        Ok((item.path.clone(), (downward.field(&field.field_path)?.into_bytes(), item.mode.unwrap_or(mode))))
    };
    items.into_iter().flatten().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_change_all_at_once_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut volumes = Volumes::new(folder.path().to_owned(), None);
        let place = folder.path().join("v");
        let file = |text: &str| (text.as_bytes().to_vec(), 0o440);
        volumes.write("v", &place, Files::from([("a".into(), file("1")), ("d/b".into(), file("2"))])).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("d/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(place.join("a")).unwrap().permissions().mode() & 0o777, 0o440);
        let held = std::fs::canonicalize(place.join(CURRENT)).unwrap();

        volumes.write("v", &place, Files::from([("a".into(), file("3")), ("c".into(), file("4"))])).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("a")).unwrap(), "3");
        assert_eq!(std::fs::read_to_string(place.join("c")).unwrap(), "4");
        assert!(!place.join("d").exists() && !held.exists());
    }
}
