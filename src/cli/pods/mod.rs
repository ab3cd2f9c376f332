//! `kitepool pods`: the pod library, and what pools make of it.

mod lint;
mod migrate;
mod render;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::pods::library;

/// Ten times what a namespace full of definitions comes to; what is larger is another file.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// The flags of `kitepool pods`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the definitions of the pod library.
    List(Output),
    /// Print a definition of the pod library, comments included, to be changed and applied.
    Show {
        /// Its name.
        name: String,
    },
    /// Print the Deployment that the controller makes, or has made, for a pool of the cluster.
    Render(render::Arguments),
    /// Say everything that stands against pools and pod definitions in files, before they are applied.
    ///
    /// Ends with 1 where there is something.
    Lint(lint::Arguments),
    /// Read an export of builds, and print a pool for each kind of agent that their jobs ask for.
    Migrate(migrate::Arguments),
}

/// How it is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Output {
    /// For people, or for programs.
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs what was asked for.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::List(Output { output }) => list(output)?,
        Command::Show { name } => show(&name)?,
        Command::Render(arguments) => render::run(arguments).await?,
        Command::Lint(arguments) => return lint::run(arguments).await,
        Command::Migrate(arguments) => return migrate::run(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(output: Format) -> anyhow::Result<()> {
    let text = match output {
        Format::Json => {
            let all: Vec<Value> =
                library::entries().map(|entry| json!({ "name": entry.name, "about": entry.about() })).collect();
            format!("{:#}\n", json!(all))
        }
        Format::Text => {
            let width = library::entries().map(|entry| entry.name.len()).max().unwrap_or_default();
            let line = |entry: library::Entry| format!("{:width$}  {}\n", entry.name, entry.about());
            library::entries().map(line).collect::<Vec<_>>().concat()
        }
    };
    print(&text)
}

fn show(name: &str) -> anyhow::Result<()> {
    let Some(entry) = library::entry(name) else {
        let names = library::entries().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        anyhow::bail!("the pod library has no definition {name}; it has {names}");
    };
    print(entry.yaml)
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("standard output is closed")
}

/// The text of a file; of standard input where it is `-`.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let input: Box<dyn io::Read> = if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(open(path)?) };
    let read = input.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = read.with_context(|| format!("{} cannot be read", path.display()))?;
    let is_whole = u64::try_from(bytes).is_ok_and(|bytes| bytes <= INPUT_BYTES_MAX);
    anyhow::ensure!(is_whole, "{} is larger than {} MiB; give parts of it", path.display(), INPUT_BYTES_MAX >> 20);
    Ok(text)
}

fn open(path: &Path) -> anyhow::Result<fs::File> {
    fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// Which namespace of which cluster.
#[derive(Debug, clap::Args)]
struct Place {
    /// The namespace. Left out: that of the kubeconfig's context.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Names of files as they were given.
fn names(paths: &[PathBuf]) -> impl Iterator<Item = (&PathBuf, String)> {
    paths.iter().map(|path| (path, path.display().to_string()))
}
