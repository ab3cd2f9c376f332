//! Puts a copy of this program where the agent's container finds it.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt as _, path::Path, process::ExitCode};

use crate::say;

/// Run by whatever user the agent has, changed by none.
const MODE: u32 = 0o555;

/// Copies this program to `file`.
pub(crate) fn install(file: &Path) -> ExitCode {
    match copy(file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{}: {error}", file.display()));
            ExitCode::FAILURE
        }
    }
}

/// Beside it and then in its place: what stands there may be running, when a pod's sandbox is made anew.
fn copy(file: &Path) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    // One that an interrupted copy left behind may not be written to.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::copy(std::env::current_exe()?, &beside)?;
    std::fs::set_permissions(&beside, Permissions::from_mode(MODE))?;
    std::fs::rename(&beside, file)
}
