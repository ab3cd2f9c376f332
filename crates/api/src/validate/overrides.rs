//! The changes that a pool makes to its definition: each value by itself. What they come to is seen when they are made.

use super::{check::Check, object_name};
use crate::{
    overrides::{AMOUNT_MAX, Amount, ENTRIES_MAX, IMAGE_MAX, PREFIX_MAX, PodOverrides, Resources},
    pod_fields::unknown_fields,
    rules,
};

const PATH: &str = "spec.overrides";

/// The changes with nothing against them; none where there are none.
pub(super) fn validate(check: &mut Check, overrides: Option<&PodOverrides>) -> Option<PodOverrides> {
    let Some(overrides) = overrides else { return Some(PodOverrides::default()) };
    let before = check.problems.len();
    if let Some(image) = &overrides.image {
        let is_image = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_ascii_whitespace());
        check.text(&format!("{PATH}.image"), image, IMAGE_MAX, &rules::IMAGE, is_image);
    }
    if let Some(resources) = &overrides.resources {
        amounts(check, resources);
    }
    variables(check, overrides);
    check.items(&format!("{PATH}.envFrom"), overrides.env_from.len(), ENTRIES_MAX);
    check.items(&format!("{PATH}.nodeSelector"), overrides.node_selector.len(), ENTRIES_MAX);
    check.items(&format!("{PATH}.tolerations"), overrides.tolerations.len(), ENTRIES_MAX);
    if let Some(account) = &overrides.service_account_name {
        object_name(check, &format!("{PATH}.serviceAccountName"), account);
    }
    if let Some(prefix) = &overrides.name_prefix {
        let path = format!("{PATH}.namePrefix");
        check.text(&path, prefix, PREFIX_MAX, &rules::NAME_PREFIX, is_prefix);
    }
    if let Some(patch) = &overrides.pod_patch {
        let path = format!("{PATH}.podPatch");
        if !patch.0.is_object() {
            check.refuse(&path, "this is no object", "write the part of a pod template that is to be merged into it");
        }
        check.problems.extend(unknown_fields(&patch.0, &path));
    }
    (check.problems.len() == before).then(|| overrides.clone())
}

fn amounts(check: &mut Check, resources: &Resources) {
    for (kind, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        let path = format!("{PATH}.resources.{kind}");
        check.items(&path, amounts.len(), ENTRIES_MAX);
        for (name, amount) in amounts {
            let path = format!("{path}.{name}");
            match amount {
                Amount::Whole(number) => {
                    check.holds(*number >= 0, &rules::AMOUNT, &path);
                }
                Amount::Text(text) => {
                    check.text(&path, text, AMOUNT_MAX, &rules::AMOUNT, is_amount);
                }
            }
        }
    }
}

fn variables(check: &mut Check, overrides: &PodOverrides) {
    let path = format!("{PATH}.env");
    check.items(&path, overrides.env.len(), ENTRIES_MAX);
    for (index, variable) in overrides.env.iter().enumerate() {
        let is_known = overrides.env.iter().take(index).any(|before| before.name == variable.name);
        let path = format!("{path}[{index}]");
        if is_known {
            check.refuse(&path, format!("variable {} stands twice", variable.name), "write each once");
        }
        if variable.value.is_some() && variable.value_from.is_some() {
            check.refuse(&path, "it holds both value and valueFrom", "keep one of them");
        }
    }
}

/// Rule `NAME_PREFIX`.
fn is_prefix(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Rule `AMOUNT`.
fn is_amount(text: &str) -> bool {
    const UNITS: [&str; 14] = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    are_digits(whole) && are_digits(fraction) && UNITS.contains(&unit)
}
