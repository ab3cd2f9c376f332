//! Where the first process of agents' containers comes from, for every command that makes their pods.

use crate::pods::first::FirstImage;

/// The flags.
#[derive(Debug, clap::Args)]
pub(super) struct FirstProcess {
    /// Kitepool's own image, as agents' nodes find it. Pods of agents get a first process from it, which lets one SIGTERM
    /// through and withholds the next, since that would cancel the job. Left out: none is added.
    #[arg(long, env = "KITEPOOL_FIRST_IMAGE", value_name = "IMAGE")]
    first_image: Option<String>,

    /// A Secret to pull that image with, in the agents' namespace; may be given several times, or with commas in the
    /// environment.
    #[arg(
        long = "first-pull-secret",
        env = "KITEPOOL_FIRST_PULL_SECRETS",
        value_delimiter = ',',
        value_name = "SECRET",
        requires = "first_image"
    )]
    first_pull_secrets: Vec<String>,
}

impl FirstProcess {
    /// What was given. An empty name is none, for whoever sets it in the environment only sometimes; one that cannot be is a sentence.
    pub(super) fn image(self) -> Result<Option<FirstImage>, String> {
        let Some(image) = self.first_image.filter(|image| !image.is_empty()) else { return Ok(None) };
        if image.contains(char::is_whitespace) {
            return Err(format!(
                "--first-image {image:?}: no image is named so; give something like REGISTRY/kitepool:1.2"
            ));
        }
        Ok(Some(FirstImage { image, pull_secrets: self.first_pull_secrets }))
    }
}
