//! A definition and a pool give the same generation in every release: otherwise an upgrade of the controller would roll all agents.
//!
//! `generations/*.yaml` are pools with their definitions, and never change. `generations/additions-N.json` is what they came to
//! under version N of the additions. One that is not the newest is the record of a past release.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kitepool::pods::{
    contract::INJECTION_VERSION,
    generation::{Owner, Planned, plan},
    render::Overrides,
};
use kitepool_api::{TemplateSource, read_pools, validate};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods/generations")
}

fn golden(version: u32) -> PathBuf {
    folder().join(format!("additions-{version}.json"))
}

/// The names of the fixtures, sorted.
fn fixtures() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// The generation of a fixture, where those of `existing` stand already.
fn planned(fixture: &str, existing: &BTreeMap<String, String>) -> (Planned, Value) {
    let yaml = fs::read_to_string(folder().join(format!("{fixture}.yaml"))).unwrap();
    let (pool, definition) = yaml.split_once("\n---\n").map_or((yaml.as_str(), None), |(a, b)| (a, Some(b)));
    let pool = validate(&read_pools(pool).unwrap()[0]).unwrap();
    let definition = match &pool.template {
        TemplateSource::Inline(template) => template.clone(),
        TemplateSource::Reference(_) => {
            serde_saphyr::from_str::<Value>(definition.unwrap()).unwrap()["template"].clone()
        }
    };
    let name = pool.spec.name.clone();
    let owner = Owner { namespace: name.namespace, name: name.name, uid: "u".to_owned() };
    let planned = plan(&owner, &definition, &Overrides::of(&pool, None, None), "template", existing).unwrap();
    let manifest = planned.manifest(&owner, &pool.queue, 1);
    (planned, manifest)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_same_definition_and_pool_give_the_generation_of_this_release() {
    let now: BTreeMap<String, Value> = fixtures()
        .into_iter()
        .map(|name| {
            let (planned, manifest) = planned(&name, &BTreeMap::new());
            (name, json!({ "inputs": planned.inputs, "name": planned.name, "template": manifest["spec"]["template"] }))
        })
        .collect();
    let (now, path) = (json!(now), golden(INJECTION_VERSION));
    if !path.exists() {
        fs::write(&path, format!("{now:#}\n")).unwrap();
        panic!("{} is new: look at it, and commit it", path.display());
    }
    assert_eq!(
        now,
        read(&path),
        "what is added has changed: raise INJECTION_VERSION, so that new generations have new names"
    );
}

#[test]
fn a_generation_of_any_release_stays_the_wanted_one() {
    for version in 1..=INJECTION_VERSION {
        let recorded = read(&golden(version));
        for (fixture, then) in recorded.as_object().unwrap() {
            let (inputs, name) = (then["inputs"].as_str().unwrap(), then["name"].as_str().unwrap());
            let stands = BTreeMap::from([(inputs.to_owned(), name.to_owned())]);
            let (planned, _) = planned(fixture, &stands);
            assert_eq!(
                (planned.inputs.as_str(), planned.name.as_str()),
                (inputs, name),
                "{fixture}, additions {version}"
            );
        }
    }
}

#[test]
fn no_two_fixtures_are_the_same_generation() {
    let mut seen = BTreeMap::new();
    for fixture in fixtures() {
        let (planned, _) = planned(&fixture, &BTreeMap::new());
        let before = seen.insert(planned.inputs, fixture.clone());
        assert_eq!(before, None, "{fixture} is made of the same as another");
    }
}
