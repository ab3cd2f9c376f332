//! The meta-data of the one build of this world.

use std::collections::BTreeMap;

use super::taking::Refusal;

/// As many keys as no test sets by design, so that a job that sets them in a loop is noticed.
const KEYS_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct MetaData(BTreeMap<String, String>);

impl MetaData {
    pub(super) fn keys(&self) -> Vec<&String> {
        self.0.keys().collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<&String> {
        self.0.get(key)
    }

    pub(super) fn set(&mut self, key: String, value: String) -> Result<(), Refusal> {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            return Err(Refusal::Unprocessable("The build has too much meta-data"));
        }
        self.0.insert(key, value);
        Ok(())
    }
}
