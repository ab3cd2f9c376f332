//! The pod library, as it was when this program was built.

use serde_json::Value;

/// Names and YAML documents, sorted.
const ENTRIES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/library.rs"));

/// A definition of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name, which is that of its file.
    pub name: &'static str,
    /// The file, with the comments that teach.
    pub yaml: &'static str,
}

impl Entry {
    /// The first sentence of the comment that it begins with.
    pub fn about(&self) -> String {
        let lines = self.yaml.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let text = lines.collect::<Vec<_>>().join(" ");
        let first = text.split(". ").next().unwrap_or_default();
        first.trim_end_matches('.').to_owned()
    }
}

/// All of them, by name.
pub fn entries() -> impl Iterator<Item = Entry> {
    ENTRIES.iter().map(|(name, yaml)| Entry { name, yaml })
}

/// One by its name.
pub fn entry(name: &str) -> Option<Entry> {
    entries().find(|entry| entry.name == name)
}

/// The pod template of one.
pub(super) fn template(name: &str) -> Option<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(entry(name)?.yaml).ok()?;
    let is_it = |object: &&Value| object.pointer("/metadata/name").and_then(Value::as_str) == Some(name);
    documents
        .iter()
        .filter(|object| object.get("kind").is_some_and(|kind| kind == "PodTemplate"))
        .find(is_it)?
        .get("template")
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_named_like_its_file_and_says_what_it_is_for() {
        assert!(entries().count() > 0);
        for entry in entries() {
            assert!(template(entry.name).is_some(), "{}.yaml holds no PodTemplate of that name", entry.name);
            let about = entry.about();
            assert!(about.split_whitespace().count() > 3, "{}.yaml begins with no sentence: {about:?}", entry.name);
        }
    }
}
