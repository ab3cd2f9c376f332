//! The webhook as a person tries it: signed by openssl, sent by curl, over TLS with a certificate of their own.

use std::{path::Path, process::Command};

use kitepool::ingest::CertificateFiles;

use super::stage::{Stage, body};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn certificate(folder: &Path) -> CertificateFiles {
    let files = CertificateFiles { chain: folder.join("tls.crt"), key: folder.join("tls.key") };
    let (chain, key) = (files.chain.to_str().unwrap(), files.key.to_str().unwrap());
    let names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", key, "-out", chain];
    run("openssl", &[made.as_slice(), names.as_slice()].concat());
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_signs_and_curl_sends_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path());
    let authority = files.chain.clone();
    let stage = Stage::with_certificate(files).await;
    let payload = folder.path().join("body.json");
    std::fs::write(&payload, body("job-1", "linux")).unwrap();

    // As the README says it.
    let script = r#"
        set -eu
        secret=$(cat "$SECRET_FILE") timestamp=$(date +%s)
        signature=$({ printf '%s.' "$timestamp"; cat "$BODY"; } | openssl dgst -sha256 -hmac "$secret" | sed 's/.*= //')
        curl --silent --cacert "$AUTHORITY" --data-binary "@$BODY" --write-out '%{http_code}' \
          --header "X-Buildkite-Signature: timestamp=$timestamp,signature=$signature" "https://$ADDRESS/webhook"
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("ADDRESS", stage.address().to_string()).env("BODY", &payload);
    command.env("SECRET_FILE", stage.secret_file()).env("AUTHORITY", authority);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the job is hinted\n201");
    assert_eq!(stage.hints().len(), 1);
}
