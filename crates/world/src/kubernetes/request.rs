//! Requests, taken apart: what the controller sends is understood, anything else is told apart with a sentence.

use std::collections::{BTreeMap, BTreeSet};

use axum::{extract::Query, http::Uri};
use serde_json::Value;

use super::{
    kind::Kind,
    object::{Key, text},
    selector::Selector,
};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct ApiRequest {
    /// `GET` and so on.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark.
    pub query: String,
    /// The header.
    pub content_type: String,
    /// The header; who writes is known by it where no field manager is named.
    pub user_agent: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What is done, as the audit log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of Kubernetes")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// Whether it changes something.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection)
    }
}

/// Requests of one class: the unit that is counted and that takes faults.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// What is done.
    pub verb: Verb,
    /// To what: `deployments`, `deployments/scale`, `openapi`.
    pub resource: String,
}

impl Route {
    /// `Route::new(Verb::Patch, "deployments/scale")`.
    pub fn new(verb: Verb, resource: &str) -> Self {
        Self { verb, resource: resource.to_owned() }
    }
}

/// Which part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Status,
    Scale,
}

impl Part {
    pub(super) const fn subresource(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Call {
    OpenApi {
        group: String,
        version: String,
    },
    List {
        kind: Kind,
        namespace: String,
        selector: Selector,
        /// Of Events alone: the kind of what they are about.
        regarding: Option<String>,
        limit: Option<usize>,
        from: Option<String>,
    },
    Watch {
        kind: Kind,
        namespace: String,
        selector: Selector,
        version: u64,
        seconds: Option<u64>,
        bookmarks: bool,
    },
    Get {
        key: Key,
        part: Part,
    },
    Create {
        kind: Kind,
        namespace: String,
        manager: String,
        object: Value,
    },
    Update {
        key: Key,
        part: Part,
        manager: String,
        object: Value,
    },
    Patch {
        key: Key,
        part: Part,
        manager: String,
        content_type: String,
        is_forced: bool,
        patch: Value,
    },
    Delete {
        key: Key,
        manager: String,
        options: Value,
    },
    DeleteCollection {
        kind: Kind,
        namespace: String,
        chosen: Box<Chosen>,
        manager: String,
        options: Value,
    },
}

/// Which objects of a collection are deleted.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) selector: Selector,
    /// Names that a field selector leaves out.
    pub(super) spared: BTreeSet<String>,
    /// Those that there were then; those that there are where it is absent.
    pub(super) version: Option<u64>,
    /// The first by name.
    pub(super) limit: Option<usize>,
}

/// A request that was understood.
#[derive(Debug, Clone)]
pub(super) struct Understood {
    pub(super) route: Route,
    pub(super) call: Call,
}

/// Where a request goes.
struct Target<'a> {
    kind: Kind,
    namespace: &'a str,
    name: Option<&'a str>,
    part: Part,
}

/// Takes a request apart, or says what of it is not simulated.
pub(super) fn understand(request: &ApiRequest) -> Result<Understood, String> {
    let ApiRequest { method, path, .. } = request;
    let mut query = query(&request.query)?;
    let call = if let ("GET", ["openapi", "v3", "apis", group, version]) = (method.as_str(), segments(path).as_slice())
    {
        Call::OpenApi { group: (*group).to_owned(), version: (*version).to_owned() }
    } else {
        let target = target(path).ok_or_else(|| format!("{method} {path}: no such path"))?;
        call(request, &target, &mut query)?
    };
    if let Some(more) = query.keys().next() {
        return Err(format!("{method} {path}: the query `{more}`"));
    }
    Ok(Understood { route: route(&call), call })
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn target(path: &str) -> Option<Target<'_>> {
    let segments = segments(path);
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, name, part) = match rest {
        ["namespaces", namespace, plural] => (namespace, plural, None, Part::Whole),
        ["namespaces", namespace, plural, name] => (namespace, plural, Some(*name), Part::Whole),
        ["namespaces", namespace, plural, name, "status"] => (namespace, plural, Some(*name), Part::Status),
        ["namespaces", namespace, plural, name, "scale"] => (namespace, plural, Some(*name), Part::Scale),
        _ => return None,
    };
    let kind = Kind::of_path(group, version, plural)?;
    let is_served = match part {
        Part::Whole => true,
        Part::Status => kind.traits().has_status,
        Part::Scale => kind == Kind::Deployment,
    };
    is_served.then_some(Target { kind, namespace, name, part })
}

fn query(text: &str) -> Result<BTreeMap<String, String>, String> {
    let uri: Uri = format!("/?{text}").parse().map_err(|_| format!("the query `{text}`"))?;
    let Query(pairs) =
        Query::<Vec<(String, String)>>::try_from_uri(&uri).map_err(|error| format!("the query `{text}`: {error}"))?;
    Ok(pairs.into_iter().collect())
}

fn call(request: &ApiRequest, target: &Target<'_>, query: &mut BTreeMap<String, String>) -> Result<Call, String> {
    let &Target { kind, namespace, name, part } = target;
    let owned = namespace.to_owned();
    let key = || name.map(|name| Key::new(kind, namespace, name));
    let body =
        || serde_json::from_slice::<Value>(&request.body).map_err(|error| format!("a body that is no JSON: {error}"));
    Ok(match (request.method.as_str(), key()) {
        ("GET", None) => return listing(kind, owned, query),
        ("GET", Some(key)) => Call::Get { key, part },
        ("POST", None) => Call::Create { kind, namespace: owned, manager: manager(request, query), object: body()? },
        ("PUT", Some(key)) => Call::Update { key, part, manager: manager(request, query), object: body()? },
        ("PATCH", Some(key)) => Call::Patch {
            key,
            part,
            manager: manager(request, query),
            content_type: request.content_type.clone(),
            is_forced: query.remove("force").is_some_and(|value| value == "true"),
            patch: body()?,
        },
        ("DELETE", Some(key)) if part == Part::Whole => {
            let options = if request.body.is_empty() { Value::Null } else { body()? };
            Call::Delete { key, manager: manager(request, query), options }
        }
        ("DELETE", None) if kind.is_custom() => {
            if request.body.is_empty() {
                // The real one then takes the query for the options, and the version for a precondition.
                return Err("the deletion of a collection without options in its body".to_owned());
            }
            let manager = manager(request, query);
            return deleting(kind, owned, manager, body()?, query);
        }
        (method, _) => return Err(format!("{method} {}", request.path)),
    })
}

fn deleting(
    kind: Kind,
    namespace: String,
    manager: String,
    options: Value,
    query: &mut BTreeMap<String, String>,
) -> Result<Call, String> {
    let selector = selector(query)?;
    let version = match (query.remove("resourceVersion"), query.remove("resourceVersionMatch").as_deref()) {
        (None, None) => None,
        (Some(text), Some("Exact")) => Some(text.parse().map_err(|_| format!("resourceVersion={text}"))?),
        _ => return Err("the deletion of a collection at another version than an exact one".to_owned()),
    };
    let fields = query.remove("fieldSelector").unwrap_or_default();
    let spared = fields.split(',').filter(|term| !term.is_empty());
    let spared: Option<BTreeSet<String>> =
        spared.map(|term| term.strip_prefix("metadata.name!=").map(str::to_owned)).collect();
    let spared = spared.ok_or_else(|| format!("the field selector `{fields}`"))?;
    let limit = match query.remove("limit") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| format!("limit={text}"))?),
    };
    let chosen = Box::new(Chosen { selector, spared, version, limit });
    Ok(Call::DeleteCollection { kind, namespace, chosen, manager, options })
}

fn selector(query: &mut BTreeMap<String, String>) -> Result<Selector, String> {
    let text = query.remove("labelSelector").unwrap_or_default();
    Selector::parse(&text).ok_or_else(|| format!("the label selector `{text}`"))
}

fn listing(kind: Kind, namespace: String, query: &mut BTreeMap<String, String>) -> Result<Call, String> {
    let selector = selector(query)?;
    let mut number = |name: &str| match query.remove(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text}")),
    };
    let (version, limit, seconds) = (number("resourceVersion")?, number("limit")?, number("timeoutSeconds")?);
    let bookmarks = query.remove("allowWatchBookmarks").is_some_and(|value| value == "true");
    if query.remove("watch").is_some_and(|value| value == "true") {
        let version = version.unwrap_or_default();
        return Ok(Call::Watch { kind, namespace, selector, version, seconds, bookmarks });
    }
    if version.is_some_and(|version| version != 0) {
        return Err("a list at a version".to_owned());
    }
    let regarding = match query.get("fieldSelector").and_then(|fields| fields.strip_prefix("regarding.kind=")) {
        Some(regarding) if kind == Kind::Event && !regarding.contains(',') => Some(regarding.to_owned()),
        _ => None,
    };
    if regarding.is_some() {
        query.remove("fieldSelector");
    }
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    Ok(Call::List { kind, namespace, selector, regarding, limit, from: query.remove("continue") })
}

/// The name of one who gives none.
pub(super) const NOBODY: &str = "unknown";

/// As the API server names who writes.
fn manager(request: &ApiRequest, query: &mut BTreeMap<String, String>) -> String {
    let named = query.remove("fieldManager").filter(|name| !name.is_empty());
    let program = request.user_agent.split('/').next().filter(|name| !name.is_empty());
    named.or_else(|| program.map(str::to_owned)).unwrap_or_else(|| NOBODY.to_owned())
}

fn route(call: &Call) -> Route {
    let (verb, kind, part) = match call {
        Call::OpenApi { .. } => return Route::new(Verb::Get, "openapi"),
        Call::List { kind, .. } => (Verb::List, *kind, Part::Whole),
        Call::Watch { kind, .. } => (Verb::Watch, *kind, Part::Whole),
        Call::Get { key, part } => (Verb::Get, key.kind, *part),
        Call::Create { kind, .. } => (Verb::Create, *kind, Part::Whole),
        Call::Update { key, part, .. } => (Verb::Update, key.kind, *part),
        Call::Patch { key, part, .. } => (Verb::Patch, key.kind, *part),
        Call::Delete { key, .. } => (Verb::Delete, key.kind, Part::Whole),
        Call::DeleteCollection { kind, .. } => (Verb::DeleteCollection, *kind, Part::Whole),
    };
    match part.subresource() {
        "" => Route::new(verb, kind.plural()),
        subresource => Route::new(verb, &format!("{}/{subresource}", kind.plural())),
    }
}

impl Call {
    /// Which kind it is about.
    pub(super) const fn kind(&self) -> Option<Kind> {
        match self {
            Self::OpenApi { .. } => None,
            Self::List { kind, .. }
            | Self::Watch { kind, .. }
            | Self::Create { kind, .. }
            | Self::DeleteCollection { kind, .. } => Some(*kind),
            Self::Get { key, .. } | Self::Update { key, .. } | Self::Patch { key, .. } | Self::Delete { key, .. } => {
                Some(key.kind)
            }
        }
    }

    /// Who writes what; nothing for reads, and no name for what is many.
    pub(super) fn write(&self) -> Option<(String, Key)> {
        match self {
            Self::OpenApi { .. } | Self::List { .. } | Self::Watch { .. } | Self::Get { .. } => None,
            Self::Create { kind, namespace, manager, object } => {
                Some((manager.clone(), Key::new(*kind, namespace, text(object, "/metadata/name"))))
            }
            Self::DeleteCollection { kind, namespace, manager, .. } => {
                Some((manager.clone(), Key::new(*kind, namespace, "")))
            }
            Self::Update { key, manager, .. }
            | Self::Patch { key, manager, .. }
            | Self::Delete { key, manager, .. } => Some((manager.clone(), key.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(method: &str, path: &str, query: &str) -> Result<Understood, String> {
        let body = if method == "GET" { Vec::new() } else { b"{}".to_vec() };
        understand(&ApiRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            body,
            ..ApiRequest::default()
        })
    }

    #[test]
    fn requests_of_the_controller_are_understood() {
        for (method, path, query, verb, resource) in [
            ("GET", "/api/v1/namespaces/ci/pods", "limit=500", Verb::List, "pods"),
            (
                "GET",
                "/apis/apps/v1/namespaces/ci/deployments",
                "watch=true&timeoutSeconds=60&allowWatchBookmarks=true&resourceVersion=7",
                Verb::Watch,
                "deployments",
            ),
            ("GET", "/api/v1/namespaces/ci/secrets/token", "", Verb::Get, "secrets"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/ci/deployments/d/scale",
                "fieldManager=kitepool",
                Verb::Patch,
                "deployments/scale",
            ),
            ("POST", "/apis/kitepool.dev/v1alpha1/namespaces/ci/jobhints", "", Verb::Create, "jobhints"),
            ("DELETE", "/apis/kitepool.dev/v1alpha1/namespaces/ci/jobhints/h", "", Verb::Delete, "jobhints"),
            (
                "DELETE",
                "/apis/kitepool.dev/v1alpha1/namespaces/ci/jobhints",
                "resourceVersion=7&resourceVersionMatch=Exact&limit=3&fieldSelector=metadata.name!=a,metadata.name!=b",
                Verb::DeleteCollection,
                "jobhints",
            ),
            ("GET", "/openapi/v3/apis/kitepool.dev/v1alpha1", "", Verb::Get, "openapi"),
        ] {
            assert_eq!(understood(method, path, query).unwrap().route, Route::new(verb, resource), "{path}");
        }
    }

    #[test]
    fn anything_else_is_named_in_a_sentence() {
        for (method, path, query, part) in [
            ("GET", "/api/v1/nodes", "", "no such path"),
            ("GET", "/api/v1/namespaces/ci/pods", "fieldSelector=a%3Db", "fieldSelector"),
            ("GET", "/api/v1/namespaces/ci/pods/p/log", "", "no such path"),
            ("DELETE", "/api/v1/namespaces/ci/pods", "", "DELETE"),
            ("DELETE", "/apis/kitepool.dev/v1alpha1/namespaces/ci/jobhints", "resourceVersion=7", "exact"),
            ("PATCH", "/api/v1/namespaces/ci/pods/p", "dryRun=All", "dryRun"),
        ] {
            let sentence = understood(method, path, query).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
