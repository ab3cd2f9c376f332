//! Puts the pod library into the program: every definition in `pod-library/`, by its name.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where things are")]
fn variable(name: &str) -> Result<String, env::VarError> {
    env::var(name)
}

fn main() -> Result<(), Box<dyn Error>> {
    let library = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("pod-library");
    println!("cargo::rerun-if-changed={}", library.display());
    let mut files: Vec<_> =
        fs::read_dir(&library)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    // The order of a folder is chance.
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
    }
    list.push(']');
    fs::write(Path::new(&variable("OUT_DIR")?).join("library.rs"), list)?;
    Ok(())
}
