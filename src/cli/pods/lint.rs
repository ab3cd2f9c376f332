//! `kitepool pods lint`: everything that stands against files, for people or for programs.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Format, Output, Place, names, print, read};
use crate::{
    cluster::{client, library::Library},
    pods::{
        lint::{File, Finding, Report, lint},
        references::{Kind, Reference},
    },
};

/// The flags of `kitepool pods lint`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// YAML files with pod definitions (`PodTemplate`) and pools (`AgentPool`); `-` is standard input. A pool's definition
    /// is looked for in all of them, and in the pod library.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// See in the cluster whether the Secrets and service accounts exist that they need.
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let files: anyhow::Result<Vec<File>> =
        names(&arguments.files).map(|(path, name)| Ok(File { name, text: read(path)? })).collect();
    let mut report = lint(&files?);
    if arguments.live {
        let library = Library::new(client::config().await?, arguments.place.namespace)?;
        let missing = missing(&library, &report).await?;
        report.look_for(|reference| !missing.contains(reference));
    }
    let text = match arguments.output.output {
        Format::Text => as_text(&report),
        Format::Json => format!("{:#}\n", as_json(&report)),
    };
    print(&text)?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn missing(library: &Library, report: &Report) -> anyhow::Result<BTreeSet<Reference>> {
    let mut missing = BTreeSet::new();
    let needed: BTreeSet<&Reference> = report.needs.iter().map(|(_, _, reference)| reference).collect();
    for reference in needed {
        let name = &reference.name;
        let exists = match reference.kind {
            Kind::Secret => library.has_secret(name).await,
            Kind::ServiceAccount => library.has_account(name).await,
        };
        if !exists.with_context(|| format!("cannot see whether {name} exists in {}", library.namespace()))? {
            missing.insert(reference.clone());
        }
    }
    Ok(missing)
}

fn as_text(report: &Report) -> String {
    let found = report.findings.iter().map(|Finding { file, object, problem }| {
        let object = if object.is_empty() { String::new() } else { format!("{object}: ") };
        format!("{file}: {object}{problem}\n")
    });
    let passed_over = report.passed_over.iter().map(|what| format!("not looked at: {what}\n"));
    let sum = format!("{} looked at, {} to mend\n", report.checked.len(), report.findings.len());
    found.chain(passed_over).chain([sum]).collect()
}

fn as_json(report: &Report) -> Value {
    let finding = |Finding { file, object, problem }: &Finding| {
        json!({ "file": file, "object": object, "id": problem.id, "path": problem.path, "reason": problem.what,
                "remedy": problem.remedy })
    };
    let findings: Vec<Value> = report.findings.iter().map(finding).collect();
    json!({ "findings": findings, "checked": report.checked, "passedOver": report.passed_over })
}
