//! The certificate that the webhook shows, from files that may change while we run.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

/// Where certificate chain and private key are, in PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The chain, the server's own first.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is shown at the moment. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    files: Arc<CertificateFiles>,
    shown: Arc<Mutex<Shown>>,
}

#[derive(Debug)]
struct Shown {
    read: Read,
    config: Arc<ServerConfig>,
}

/// The bytes, to see whether they changed.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    pub(super) fn read(files: CertificateFiles) -> anyhow::Result<Self> {
        let read = Read::from(&files)?;
        let config = read.config().with_context(|| about(&files))?;
        Ok(Self { files: Arc::new(files), shown: Arc::new(Mutex::new(Shown { read, config })) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner).config))
    }

    /// Reads the files again. What cannot be used leaves the old one in place: the two files do not change in one instant.
    pub(super) fn refresh(&self) {
        let fresh = match Read::from(&self.files) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the webhook's certificate cannot be read again");
                return;
            }
        };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.read == fresh {
            return;
        }
        match fresh.config() {
            Ok(config) => {
                tracing::info!("the webhook's certificate changed");
                *shown = Shown { read: fresh, config };
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the webhook's new certificate cannot be used");
            }
        }
    }
}

fn about(files: &CertificateFiles) -> String {
    format!("--webhook-tls-cert {} and --webhook-tls-key {}", files.chain.display(), files.key.display())
}

impl Read {
    fn from(files: &CertificateFiles) -> anyhow::Result<Self> {
        let read =
            |file: &PathBuf| std::fs::read(file).with_context(|| format!("{}: it cannot be read", file.display()));
        Ok(Self { chain: read(&files.chain)?, key: read(&files.key)? })
    }

    fn config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&self.chain).collect::<Result<_, _>>().context("the chain is no PEM")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("the key is no PEM")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("chain and key do not go together")?;
        Ok(Arc::new(config))
    }
}
