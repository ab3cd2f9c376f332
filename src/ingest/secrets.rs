//! The webhook's secrets, from files that may change while we run.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::tls::Certificate;
use crate::clock::Clock;

/// The one that Buildkite uses, and the one that it used or will use: a rotation needs no more.
pub const SECRETS_MAX: usize = 2;

/// The kubelet takes about a minute to change a mounted file; six looks in that time are enough.
const REFRESH: Duration = Duration::from_secs(10);

/// Buildkite's own are 32 characters; a file that is longer than this is not one of them.
const SECRET_BYTES_MAX: u64 = 4096;

/// The secrets that hold at the moment. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Secrets {
    files: Arc<Vec<PathBuf>>,
    held: Arc<Mutex<Vec<SecretString>>>,
}

impl Secrets {
    /// Reads the files. One that is not there or is empty is left out, since the second one comes and goes with a rotation;
    /// there must be one.
    pub fn read(files: Vec<PathBuf>) -> anyhow::Result<Self> {
        let (held, problems) = read_all(&files);
        anyhow::ensure!(
            !held.is_empty(),
            "--webhook-secret-file: there is no secret in any of them: {}; put the webhook's token in one",
            problems.join("; ")
        );
        Ok(Self { files: Arc::new(files), held: Arc::new(Mutex::new(held)) })
    }

    /// Those that hold now.
    pub fn held(&self) -> Vec<SecretString> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. None at all is more likely an accident with the mount than a wish, so the last ones go on.
    fn refresh(&self) {
        let (fresh, problems) = read_all(&self.files);
        if fresh.is_empty() {
            tracing::warn!(problems = problems.join("; "), "no webhook secret is left; going on with the last ones");
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = held.len() == fresh.len()
            && held.iter().zip(&fresh).all(|(one, other)| one.expose_secret() == other.expose_secret());
        if !is_same {
            tracing::info!(secrets = fresh.len(), "the webhook's secrets changed");
            *held = fresh;
        }
    }
}

fn read_all(files: &[PathBuf]) -> (Vec<SecretString>, Vec<String>) {
    let mut problems = Vec::new();
    let secrets = files.iter().filter_map(|file| {
        read_one(file).map_err(|error| problems.push(format!("{}: {error:#}", file.display()))).ok()
    });
    (secrets.collect(), problems)
}

fn read_one(file: &PathBuf) -> anyhow::Result<SecretString> {
    let length = std::fs::metadata(file).context("it cannot be read")?.len();
    anyhow::ensure!(length <= SECRET_BYTES_MAX, "{length} bytes are too many for a secret");
    let text = std::fs::read_to_string(file).context("it cannot be read")?;
    // Whoever writes a file by hand ends it with a line break.
    let text = text.trim();
    anyhow::ensure!(!text.is_empty(), "it is empty");
    Ok(SecretString::from(text))
}

/// Keeps secrets and certificate as the files have them, and the clock as the machine has it.
pub(super) async fn refresh(secrets: Secrets, certificate: Option<Certificate>, clock: Clock, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
        clock.anchor();
        let (secrets, certificate) = (secrets.clone(), certificate.clone());
        let reading = tokio::task::spawn_blocking(move || {
            secrets.refresh();
            if let Some(certificate) = certificate {
                certificate.refresh();
            }
        });
        if reading.await.is_err() {
            tracing::error!("secrets and certificate were not read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_is_followed_and_an_accident_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let files = vec![one.clone(), two.clone()];
        let refused = Secrets::read(files.clone()).unwrap_err().to_string();
        assert!(refused.contains("--webhook-secret-file") && refused.contains("put the webhook's token"), "{refused}");

        std::fs::write(&one, "old\n").unwrap();
        let secrets = Secrets::read(files).unwrap();
        let held = || secrets.held().iter().map(|secret| secret.expose_secret().to_owned()).collect::<Vec<_>>();
        assert_eq!(held(), ["old"]);
        std::fs::write(&two, "new").unwrap();
        secrets.refresh();
        assert_eq!(held(), ["old", "new"]);
        std::fs::write(&one, "").unwrap();
        secrets.refresh();
        assert_eq!(held(), ["new"]);
        std::fs::remove_file(&two).unwrap();
        secrets.refresh();
        assert_eq!(held(), ["new"], "the last ones go on");
    }
}
