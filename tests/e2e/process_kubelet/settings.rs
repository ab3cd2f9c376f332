//! What a kubelet is told: its nodes, what the images are, and how it misbehaves on request.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

/// A pod with this label starts its containers so many seconds later.
pub(crate) const START_DELAY_LABEL: &str = "e2e/start-delay-seconds";
/// The first so many starts of each container of a pod with this label fail.
pub(crate) const FAILING_STARTS_LABEL: &str = "e2e/failing-starts";

/// The default size of a node: more than any case fills.
const CAPACITY: [(&str, &str); 4] = [("cpu", "64"), ("memory", "256Gi"), ("ephemeral-storage", "1Ti"), ("pods", "500")];

/// A node to register.
#[derive(Debug, Clone)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// As `spec.taints` has them.
    pub(crate) taints: Vec<Value>,
    pub(crate) capacity: BTreeMap<String, String>,
}

impl NodeSpec {
    pub(crate) fn new(name: &str) -> Self {
        let capacity = CAPACITY.map(|(resource, amount)| (resource.to_owned(), amount.to_owned())).into();
        Self { name: name.to_owned(), labels: BTreeMap::new(), taints: Vec::new(), capacity }
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn taint(mut self, key: &str, value: &str) -> Self {
        self.taints.push(json!({ "key": key, "value": value, "effect": "NoSchedule" }));
        self
    }

    pub(crate) fn capacity(mut self, resource: &str, amount: &str) -> Self {
        self.capacity.insert(resource.to_owned(), amount.to_owned());
        self
    }
}

/// What stands behind an image: a program of this machine, and what an image's configuration says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Image {
    /// A path is one of this machine, and found under /image in the container; a name is looked for in the container's PATH.
    pub(crate) entrypoint: Vec<String>,
    /// What follows the entrypoint where the pod has no args.
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// What else is in the image: paths of the container, each with the file of this machine that is found there.
    pub(crate) files: BTreeMap<String, PathBuf>,
    pub(crate) working_directory: Option<String>,
    /// The name, with or without SIG.
    pub(crate) stop_signal: Option<String>,
    /// From the decision to start a container to its process: the pull, for example.
    pub(crate) start_delay_seconds: f64,
    /// So many starts of each container fail before one comes about.
    pub(crate) failing_starts: u32,
}

impl Image {
    /// The signal that asks it to end.
    pub(crate) fn stop_signal(&self) -> Result<Signal, String> {
        let name = self.stop_signal.as_deref().unwrap_or("SIGTERM");
        match name.strip_prefix("SIG").unwrap_or(name) {
            "TERM" => Ok(Signal::TERM),
            "INT" => Ok(Signal::INT),
            "QUIT" => Ok(Signal::QUIT),
            "HUP" => Ok(Signal::HUP),
            "USR1" => Ok(Signal::USR1),
            "USR2" => Ok(Signal::USR2),
            "KILL" => Ok(Signal::KILL),
            _ => Err(format!("{name} is no stop signal that this kubelet knows")),
        }
    }

    pub(crate) fn start_delay(&self) -> Duration {
        Duration::try_from_secs_f64(self.start_delay_seconds).unwrap_or_default()
    }
}

/// The image file: which image is which program. An image that is not in it cannot be pulled.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Images {
    pub(crate) images: BTreeMap<String, Image>,
}

impl Images {
    /// Reads the file, which is YAML or JSON.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let images: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        for (name, image) in &images.images {
            image.stop_signal().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(images)
    }
}

/// What may be changed while it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Habits {
    /// From a change to its being written to the API server.
    pub(crate) write_delay: Duration,
}

/// What a kubelet is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) images: Images,
    /// Before the second restart of a container; doubled with each. Ten seconds in a real one.
    pub(crate) back_off: Duration,
    /// From one look at Secrets and config maps that are mounted to the next. About a minute in a real one.
    pub(crate) volumes_every: Duration,
}

impl Settings {
    pub(crate) fn new(nodes: Vec<NodeSpec>, images: Images) -> Self {
        Self { nodes, images, back_off: Duration::from_secs(10), volumes_every: Duration::from_mins(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_file_is_read_whole_or_refused() {
        let text = "images:\n  web: { entrypoint: [python3, -m, http.server], stopSignal: SIGINT, env: { A: b } }\n  empty: {}\n";
        let images = Images::parse(text).unwrap().images;
        assert_eq!(images["web"].entrypoint, ["python3", "-m", "http.server"]);
        assert_eq!(images["web"].stop_signal(), Ok(Signal::INT));
        assert_eq!(images["empty"].stop_signal(), Ok(Signal::TERM));
        assert!(Images::parse("images: { a: { stopSignal: SIGNONE } }").unwrap_err().contains("SIGNONE"));
        assert!(Images::parse("images: { a: { entrypont: [a] } }").is_err());
    }
}
