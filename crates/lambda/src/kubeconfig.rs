//! As much of a kubeconfig as says where an API server is and who we are there.
//!
//! The current context's server, authority, and a token, token file or client certificate. Programs and providers that
//! would have to be run for a token are refused with a sentence: what would run them does not belong here.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    clock::Clock,
    cluster::{Endpoint, Identity, Secret},
    http_client::Client,
    tls::Shown,
    trouble::Trouble,
};

/// The largest file that is read; those of hundreds of clusters stay below.
const FILE_MAX: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(alias = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<serde::de::IgnoredAny>,
}

/// Reads a file, and what it names relative to itself.
pub fn load(path: &Path, clock: Clock) -> Result<(Client, Identity), Trouble> {
    let size = std::fs::metadata(path).map_err(|error| cannot_read(path, &error))?.len();
    if size > FILE_MAX {
        return Err(unusable(format!("{} has {size} bytes, which no kubeconfig has", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // The parser's own words are kept back: they quote the line, and that may be the token's.
    let config: Kubeconfig = serde_saphyr::from_str(&text)
        .map_err(|_| unusable(format!("{} is no kubeconfig; `kubectl config view` says more", path.display())))?;
    of_current_context(config, folder, clock)
}

fn of_current_context(config: Kubeconfig, folder: &Path, clock: Clock) -> Result<(Client, Identity), Trouble> {
    let context = config.contexts.into_iter().find(|named| named.name == config.current_context);
    let context =
        context.ok_or_else(|| unusable("the kubeconfig's current-context is not among its contexts"))?.context;
    let cluster = config.clusters.into_iter().find(|named| named.name == context.cluster);
    let cluster = cluster.ok_or_else(|| unusable("the kubeconfig's context names no cluster of it"))?.cluster;
    let user = config.users.into_iter().find(|named| named.name == context.user);
    let user = user.map(|named| named.user).unwrap_or_default();
    if cluster.insecure_skip_tls_verify {
        return Err(unusable(
            "insecure-skip-tls-verify would give the token to anybody; name the certificate authority",
        ));
    }
    if cluster.tls_server_name.is_some() || cluster.proxy_url.is_some() {
        return Err(unusable("tls-server-name and proxy-url of a kubeconfig are not supported here"));
    }
    let authority = either(cluster.certificate_authority_data, cluster.certificate_authority, folder, "authority")?;
    let shown = shown(&user, folder)?;
    let client = Endpoint { address: cluster.server, authority }.client(shown.as_ref(), clock)?;
    Ok((client, identity(user, folder)?))
}

fn shown(user: &User, folder: &Path) -> Result<Option<Shown>, Trouble> {
    let data = (user.client_certificate_data.clone(), user.client_key_data.clone());
    let certificate = either(data.0, user.client_certificate.clone(), folder, "client certificate")?;
    let key = either(data.1, user.client_key.clone(), folder, "client key")?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Shown { certificate, key })),
        (None, None) => Ok(None),
        _ => Err(unusable("the kubeconfig has one of client certificate and key; it takes both")),
    }
}

fn identity(user: User, folder: &Path) -> Result<Identity, Trouble> {
    if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
        return Err(unusable(
            "of a kubeconfig's users a token, tokenFile or client certificate is supported here, and no \
            exec, auth-provider or password; `kubectl create token` makes a token",
        ));
    }
    Ok(match (user.token_file, user.token) {
        // As kubectl does: the file wins, since somebody renews it.
        (Some(file), _) => Identity::TokenFile(folder.join(file)),
        (None, Some(token)) => Identity::Token(Secret::new(token)),
        (None, None) => Identity::Certificate,
    })
}

/// What stands in the file itself wins over what it names.
fn either(data: Option<String>, file: Option<PathBuf>, folder: &Path, what: &str) -> Result<Option<Vec<u8>>, Trouble> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let bytes = STANDARD.decode(data.trim());
        return bytes.map(Some).map_err(|_| unusable(format!("the kubeconfig's {what} data is no base64")));
    }
    let Some(file) = file else { return Ok(None) };
    let path = folder.join(file);
    std::fs::read(&path).map(Some).map_err(|error| cannot_read(&path, &error))
}

fn unusable(sentence: impl Into<String>) -> Trouble {
    Trouble::Unusable(sentence.into())
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Trouble {
    unusable(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<(Client, Identity), Trouble> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config"), text).unwrap();
        load(&folder.path().join("config"), Clock::machine())
    }

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             contexts: [{{ name: here, context: {{ cluster: c, user: u, namespace: x }} }}]\n\
             clusters: [{{ name: c, cluster: {{ server: \"http://127.0.0.1:8001\"{cluster} }} }}]\n\
             users: [{{ name: u, user: {{ {user} }} }}]\n"
        )
    }

    #[test]
    fn the_current_context_says_where_and_who() {
        let (client, identity) = load_text(&config("", "token: secret")).unwrap();
        assert_eq!(client.origin().authority(), "127.0.0.1:8001");
        assert!(matches!(identity, Identity::Token(_)));
        assert!(!format!("{identity:?}").contains("secret"));
        let (_, identity) = load_text(&config("", "tokenFile: /var/run/token, token: old")).unwrap();
        assert!(matches!(identity, Identity::TokenFile(path) if path == Path::new("/var/run/token")));
        assert!(matches!(load_text(&config("", "")).unwrap().1, Identity::Certificate));
    }

    #[test]
    fn what_is_not_supported_is_refused_in_a_sentence_without_a_secret() {
        for (text, part) in [
            (config("", "exec: { command: aws }"), "kubectl create token"),
            (config("", "username: a, password: topsecret"), "password"),
            (config(", insecure-skip-tls-verify: true", ""), "certificate authority"),
            (config(", proxy-url: \"http://p\"", ""), "proxy-url"),
            (config("", "client-certificate-data: dG9wc2VjcmV0"), "takes both"),
            (config(", certificate-authority-data: \"***\"", ""), "base64"),
            (config("", "token: topsecret").replace("here, context", "elsewhere, context"), "current-context"),
            ("topsecret".to_owned(), "no kubeconfig"),
            (config("", "token: [topsecret]"), "no kubeconfig"),
        ] {
            let trouble = load_text(&text).unwrap_err().to_string();
            assert!(trouble.contains(part) && !trouble.contains("topsecret"), "{trouble}");
        }
    }
}
