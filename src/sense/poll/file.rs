//! Re-reads one token file once an interval, bounded, and hands its token over.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use reqwest::{Request, Response};
use secrecy::SecretString;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::{Shared, TokenKey, registry::Handover, task};

/// The largest token file. Agent tokens have about 70 characters; a file of another kind is told as such, not sent.
pub(super) const FILE_MAX: u64 = 4096;

/// Begins to watch `path`.
pub(super) fn spawn<S>(shared: &Arc<Shared<S>>, path: String) -> AbortOnDropHandle<()>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let shared = Arc::clone(shared);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let key = TokenKey::File(path.clone());
        // For as long as the file is wanted; the registry ends it.
        loop {
            let path = path.clone();
            // A file on a network volume can take its time; no worker of the runtime waits for it.
            let handover = tokio::task::spawn_blocking(move || read(&path)).await;
            if let Ok(handover) = handover {
                let changed = shared
                    .registry()
                    .hand_over(&key, handover, |token, digest, seen| task::spawn(&shared, token, digest, seen));
                if changed {
                    shared.wake.notify_one();
                }
            }
            tokio::time::sleep(shared.interval).await;
        }
    }))
}

fn read(path: &str) -> Handover {
    let key = TokenKey::File(path.to_owned());
    match contents(path) {
        Ok(token) => Handover::of(&key, &token),
        Err(error) => {
            Handover::nothing(format!("there is no agent token: {key} cannot be read ({error}); mount it there"))
        }
    }
}

fn contents(path: &str) -> io::Result<SecretString> {
    // Opening a pipe would wait for its writer for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() > usize::try_from(FILE_MAX).unwrap_or(usize::MAX) {
        return Err(io::Error::other("too large for a token"));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn told(contents: &[u8]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, contents).unwrap();
        match read(path.to_str().unwrap()) {
            Handover::Token(token) => Ok(token.expose_secret().to_owned()),
            Handover::Nothing(fault) => Err(fault.sentence),
        }
    }

    #[test]
    fn a_token_is_read_without_the_space_around_it() {
        assert_eq!(told(b" bkct_abc\n").unwrap(), "bkct_abc");
    }

    #[test]
    fn an_empty_file_is_no_token() {
        assert!(told(b"\n").unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_file_too_large_for_a_token_is_not_sent() {
        assert!(told(&[b'x'; 4097]).unwrap_err().contains("too large"));
        assert_eq!(told(&[b'x'; 4096]).unwrap().len(), 4096);
    }

    #[test]
    fn a_file_that_is_no_text_or_no_file_is_told_with_its_path() {
        assert!(told(&[0xff, 0xfe]).unwrap_err().contains("cannot be read"));
        let Handover::Nothing(fault) = read("/dev/null") else { panic!("a device is no token") };
        assert!(fault.sentence.contains("/dev/null"), "{}", fault.sentence);
        let Handover::Nothing(fault) = read("/nowhere/token") else { panic!("nothing is no token") };
        assert!(fault.sentence.contains("/nowhere/token"), "{}", fault.sentence);
    }
}
