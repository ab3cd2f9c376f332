//! The flags of the webhook, and what they have to agree on.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use kitepool_api::events::Assumed;

use crate::ingest::{CertificateFiles, Config, SECRETS_MAX};

/// The flags of `kitepool controller` that are about the webhook. Without an address there is none.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Webhook")]
#[group(id = "webhook")]
pub(super) struct Arguments {
    /// Where Buildkite's webhook is received, at /webhook. Left out: nowhere.
    #[arg(id = "webhook-listen", long = "webhook-listen", env = "KITEPOOL_WEBHOOK_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// A file with the webhook's token; give two during a rotation. Either is believed, and both are read again when they
    /// change.
    #[arg(
        id = "webhook-secret-file",
        long = "webhook-secret-file",
        env = "KITEPOOL_WEBHOOK_SECRET_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    secret_files: Vec<PathBuf>,

    /// Where hints are created. Left out: the one namespace that is looked after.
    #[arg(
        id = "webhook-namespace",
        long = "webhook-namespace",
        env = "KITEPOOL_WEBHOOK_NAMESPACE",
        value_name = "NAMESPACE"
    )]
    namespace: Option<String>,

    /// The key of the cluster's default queue, where jobs go that ask for none.
    #[arg(
        long = "webhook-default-queue",
        env = "KITEPOOL_WEBHOOK_DEFAULT_QUEUE",
        default_value = "default",
        value_name = "QUEUE"
    )]
    default_queue: String,

    /// Requests a second that one address may send.
    #[arg(
        id = "webhook-rate",
        long = "webhook-rate",
        env = "KITEPOOL_WEBHOOK_RATE",
        default_value = "1000",
        value_name = "REQUESTS"
    )]
    rate: NonZeroU32,

    /// The certificate chain, in PEM, for TLS without a proxy in front. Read again when it changes.
    #[arg(id = "webhook-tls-cert", long = "webhook-tls-cert", env = "KITEPOOL_WEBHOOK_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Its private key, in PEM.
    #[arg(id = "webhook-tls-key", long = "webhook-tls-key", env = "KITEPOOL_WEBHOOK_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl Arguments {
    /// What they come to, if that makes sense.
    pub(super) fn validate(self, namespaces: &[String], problems: &mut Vec<String>) -> Option<Config> {
        let before = problems.len();
        let is_on = self.listen.is_some();
        if !is_on && !self.secret_files.is_empty() {
            problems.push("--webhook-secret-file: there is no webhook; give --webhook-listen too".to_owned());
        }
        let secrets = self.secret_files.len();
        if is_on && !(1..=SECRETS_MAX).contains(&secrets) {
            problems.push(format!(
                "--webhook-secret-file: {secrets} of them; give the file with the webhook's token, and a second one during a \
                 rotation"
            ));
        }
        let certificate = match (self.tls_cert, self.tls_key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                problems.push("--webhook-tls-cert and --webhook-tls-key: one without the other; give both".to_owned());
                None
            }
        };
        let namespace = match (self.namespace, namespaces) {
            (Some(namespace), _) => {
                if is_on && !namespaces.contains(&namespace) {
                    problems.push(format!(
                        "--webhook-namespace {namespace:?}: it is not looked after; give one of {}",
                        namespaces.join(", ")
                    ));
                }
                namespace
            }
            (None, [only]) => only.clone(),
            (None, _) => {
                if is_on {
                    problems.push(
                        "--webhook-namespace: several namespaces are looked after, and a hint is for the pools beside it; name \
                         one"
                            .to_owned(),
                    );
                }
                String::new()
            }
        };
        let listen = self.listen.filter(|_| problems.len() == before)?;
        Some(Config {
            listen,
            secret_files: self.secret_files,
            namespace,
            assumed: Assumed { default_queue: self.default_queue, cluster: None },
            rate: self.rate,
            certificate,
        })
    }
}
