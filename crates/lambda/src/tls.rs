//! TLS towards an API: which authorities are believed, and which certificate is shown.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

use crate::trouble::Trouble;

/// A certificate of our own, with its key.
pub struct Shown {
    /// The chain, PEM.
    pub certificate: Vec<u8>,
    /// The key, PEM.
    pub key: Vec<u8>,
}

/// Believes in exactly the authorities in this PEM text.
pub fn with_authority(pem: &[u8], shown: Option<&Shown>) -> Result<TlsConnector, Trouble> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable("the certificate authority", &error))?;
        roots.add(certificate).map_err(|error| unusable("the certificate authority", &error))?;
    }
    if roots.is_empty() {
        return Err(Trouble::Unusable("the certificate authority holds no certificate; give it as PEM".to_owned()));
    }
    connector(roots, shown)
}

/// Believes in the authorities of this system: Lambda's image has them, and so has every other that talks to AWS.
pub fn with_system_authorities(shown: Option<&Shown>) -> Result<TlsConnector, Trouble> {
    let mut roots = RootCertStore::empty();
    let (good, _odd) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if good == 0 {
        let sentence = "this system has no certificate authorities; install ca-certificates or set SSL_CERT_FILE";
        return Err(Trouble::Unusable(sentence.to_owned()));
    }
    connector(roots, shown)
}

fn connector(roots: RootCertStore, shown: Option<&Shown>) -> Result<TlsConnector, Trouble> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", &error))?
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&shown.certificate).collect();
            let chain = chain.map_err(|error| unusable("the client certificate", &error))?;
            let key = PrivateKeyDer::from_pem_slice(&shown.key).map_err(|_| {
                // The parser's own words are kept back: they could hold a part of the key.
                Trouble::Unusable("the client key cannot be read; give it as PEM".to_owned())
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable("the client certificate", &error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn unusable(what: &str, error: &dyn std::error::Error) -> Trouble {
    Trouble::Unusable(format!("{what} cannot be used: {error}"))
}
