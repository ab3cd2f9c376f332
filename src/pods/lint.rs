//! Pools and definitions in files: everything that would be refused later, said now.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kitepool_api::{
    AgentPool, Problem, TemplateSource, ValidPool,
    parse::{items, parse_strict},
    pod_fields::UNKNOWN_FIELD,
    unknown_fields, validate,
};
use serde_json::Value;

use super::{
    contract::POD_SPEC,
    library,
    references::{Reference, needed},
    refuse::{self, Asked},
    render::{Overrides, render},
};

/// A file by its name.
#[derive(Debug, Clone)]
pub struct File {
    /// What people call it.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// Something that stands against an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which file.
    pub file: String,
    /// Against what: its kind and name; empty where it is the file itself.
    pub object: String,
    /// What.
    pub problem: Problem,
}

/// What came of some files.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Everything that stands against them.
    pub findings: Vec<Finding>,
    /// Pools and definitions that were looked at.
    pub checked: Vec<String>,
    /// What is neither, and pools whose definition is in none of the files.
    pub passed_over: Vec<String>,
    /// What must exist in the cluster, with the file and the object that need it.
    pub needs: Vec<(String, String, Reference)>,
}

impl Report {
    fn find(&mut self, file: &str, object: &str, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            let finding = Finding { file: file.to_owned(), object: object.to_owned(), problem };
            // Several pools of one definition say the same of it.
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }

    /// Adds what `exists` says is not there.
    pub fn look_for(&mut self, exists: impl Fn(&Reference) -> bool) {
        for (file, object, reference) in std::mem::take(&mut self.needs) {
            if !exists(&reference) {
                self.find(&file, &object, [reference.missing()]);
            }
        }
    }
}

struct Definition {
    file: String,
    template: Value,
    is_used: bool,
}

/// Looks at all of them together: a pool finds its definition in any of the files, or in the library.
pub fn lint(files: &[File]) -> Report {
    let mut report = Report::default();
    let (mut pools, mut definitions) = (Vec::new(), BTreeMap::new());
    for file in files {
        let documents: Vec<Value> = match serde_saphyr::from_multiple(&file.text) {
            Ok(documents) => documents,
            Err(error) => {
                let problem = Problem::new("the file", format!("it is no YAML: {error}"), "mend it there");
                report.find(&file.name, "", [problem]);
                continue;
            }
        };
        let before = report.checked.len();
        for object in documents.into_iter().flat_map(items) {
            sort(&file.name, object, &mut pools, &mut definitions, &mut report);
        }
        if report.checked.len() == before {
            let problem =
                Problem::new("the file", "there is neither a PodTemplate nor an AgentPool in it", "write one");
            report.find(&file.name, "", [problem]);
        }
    }
    for (file, pool) in &pools {
        check_pool(file, pool, &mut definitions, &mut report);
    }
    for (name, definition) in definitions.iter().filter(|(_, definition)| !definition.is_used) {
        check_alone(name, definition, &mut report);
    }
    report
}

/// Puts an object where it belongs, and sees whether its shape is right.
fn sort(
    file: &str,
    object: Value,
    pools: &mut Vec<(String, ValidPool)>,
    definitions: &mut BTreeMap<String, Definition>,
    report: &mut Report,
) {
    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name) = (word("/kind"), word("/metadata/name"));
    let label = format!("{kind} {name}");
    match kind.as_str() {
        "PodTemplate" => {
            report.checked.push(label.clone());
            report.find(file, &label, shape(&object));
            let template = object.get("template").cloned().unwrap_or_default();
            let before = definitions.insert(name, Definition { file: file.to_owned(), template, is_used: false });
            if before.is_some() {
                let problem = Problem::new("metadata.name", "another one has the same name", "rename one of them");
                report.find(file, &label, [problem]);
            }
        }
        "AgentPool" => {
            report.checked.push(label.clone());
            let pool = serde_json::from_value(object).map_err(|error| {
                vec![Problem::new("the object", error.to_string(), "write it as `kubectl explain agentpool` says")]
            });
            match pool.and_then(parse_strict).and_then(|pool: AgentPool| validate(&pool)) {
                Ok(pool) => pools.push((file.to_owned(), pool)),
                Err(problems) => report.find(file, &label, problems),
            }
        }
        _ => report.passed_over.push(format!("{file}: {label} is neither a PodTemplate nor an AgentPool")),
    }
}

/// What no API server would take for a `PodTemplate`, or would drop from it in silence.
fn shape(object: &Value) -> Vec<Problem> {
    const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "template"];
    let mut problems = Vec::new();
    if object.get("apiVersion").and_then(Value::as_str) != Some("v1") {
        problems.push(Problem::new("apiVersion", "a PodTemplate is of v1", "write v1"));
    }
    let named =
        object.as_object().into_iter().flatten().map(|(name, _)| name).filter(|name| !FIELDS.contains(&name.as_str()));
    problems.extend(named.map(|name| UNKNOWN_FIELD.broken(name, "a PodTemplate has no such field")));
    let Some(template) = object.get("template") else {
        problems.push(POD_SPEC.broken("template", "there is none"));
        return problems;
    };
    problems.extend(unknown_fields(template, "template"));
    let typed: Result<PodTemplateSpec, _> = serde_json::from_value(template.clone());
    if let Err(error) = typed {
        let remedy = "write it as `kubectl explain podtemplate.template --recursive` says";
        problems.push(Problem::new("template", error.to_string(), remedy));
    }
    problems
}

fn check_pool(file: &str, pool: &ValidPool, definitions: &mut BTreeMap<String, Definition>, report: &mut Report) {
    let label = format!("AgentPool {}", pool.spec.name.name);
    let found = match &pool.template {
        TemplateSource::Inline(template) => Some((template.clone(), "spec.template".to_owned())),
        TemplateSource::Reference(name) => {
            let here = definitions.get_mut(name).map(|definition| {
                definition.is_used = true;
                definition.template.clone()
            });
            here.or_else(|| library::template(name)).map(|template| (template, format!("PodTemplate {name}: template")))
        }
    };
    let Some((template, path)) = found else {
        let what = format!("{file}: the definition of {label} is in none of the files");
        report.passed_over.push(what);
        return;
    };
    match render(&template, &Overrides::of(pool, None, None), &path) {
        Ok(rendered) => {
            let needs = needed(&rendered.template, &path).into_iter().map(|one| (file.to_owned(), label.clone(), one));
            report.needs.extend(needs);
        }
        Err(problems) => report.find(file, &label, problems),
    }
}

/// A definition that no pool in the files names: what any pool would hear of it.
fn check_alone(name: &str, definition: &Definition, report: &mut Report) {
    let label = format!("PodTemplate {name}");
    let asked = Asked { queue: None, longest_job: Duration::ZERO, mounts_token: true };
    report.find(&definition.file, &label, refuse::all(&definition.template, asked, "template"));
    let needs = needed(&definition.template, "template");
    report.needs.extend(needs.into_iter().map(|one| (definition.file.clone(), label.clone(), one)));
}
