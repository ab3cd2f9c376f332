//! Deletes many hints in one call, and exactly those.
//!
//! ```text
//!  list ──► version 41: a b c d e        of which a c d are over
//!  delete what there was at version 41, but not b, three at most
//! ```
//!
//! No selector can list names, but one can leave names out; the version leaves out what came since, and the limit what lies
//! further back in the order of names. A label for a stretch of time would do without the list, and say the same less well:
//! the clocks of those who write hints differ, a stretch is over only when nobody can join it any more and the last hint of
//! it is settled, and what has no label is deleted one by one all the same.
//!
//! The API server deletes by name what it found. A hint that somebody else deletes and makes anew between the list and the
//! call would go with the old ones; nobody but the controller deletes hints, and it does one thing at a time here.

use std::collections::BTreeMap;

use kitepool_api::JobHint;
use kube::{
    Api,
    api::ListParams,
    core::{Resource as _, ResourceExt as _},
};
use serde::de::IgnoredAny;
use serde_json::json;

use super::{
    error::Error,
    write::{Urgency, Writer},
};

/// Hints in one call. The API server deletes them one after another, 200 in a quarter of a second (measured), and repeats
/// each in its answer: 2 MiB where all are full. The default quota is two calls.
pub const TOGETHER_MAX: usize = 100;

/// From so many on one call is less than the others.
pub const TOGETHER_MIN: usize = 2;

/// Names that are left out in one call: 6 KiB of an address, which is what proxies in between are sure to take.
const SPARED_MAX: usize = 100;

/// Hints that are looked at for one call; some 300 KiB, and more than the default quota.
const LIST_MAX: u32 = 500;

/// What one call is to delete.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    /// Names and uids.
    chosen: Vec<(String, String)>,
    /// Names that stand before the last of them and stay.
    spared: Vec<String>,
}

impl Choice {
    /// Of these, in the order of their names: those that are over, by name and uid.
    fn of(there: impl IntoIterator<Item = (String, String)>, over: &BTreeMap<String, String>) -> Self {
        let (mut choice, mut since_chosen) = (Self { chosen: Vec::new(), spared: Vec::new() }, Vec::new());
        for (name, uid) in there {
            if over.get(&name) == Some(&uid) {
                choice.spared.append(&mut since_chosen);
                choice.chosen.push((name, uid));
            } else {
                since_chosen.push(name);
            }
            if choice.chosen.len() >= TOGETHER_MAX || choice.spared.len() + since_chosen.len() > SPARED_MAX {
                break;
            }
        }
        choice
    }

    fn query(&self, version: &str) -> String {
        let limit = self.chosen.len();
        let mut query = format!("resourceVersion={version}&resourceVersionMatch=Exact&limit={limit}");
        let without: Vec<String> = self.spared.iter().map(|name| format!("metadata.name!={name}")).collect();
        if !without.is_empty() {
            query.push_str("&fieldSelector=");
            query.push_str(&without.join(","));
        }
        query
    }
}

impl Writer {
    /// Deletes hints that are over, by name and uid, as many as go in one call. Answers which: none where too few can.
    pub async fn delete_hints(
        &self,
        namespace: &str,
        over: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, String)>, Error> {
        let api: Api<JobHint> = Api::namespaced(self.client(), namespace);
        let call = async {
            let there = api.list_metadata(&ListParams::default().limit(LIST_MAX)).await?;
            let version = there.metadata.resource_version.unwrap_or_default();
            let names = there.items.into_iter().map(|hint| (hint.name_any(), hint.uid().unwrap_or_default()));
            let mut names: Vec<(String, String)> = names.collect();
            // They come so; the limit rests on it.
            names.sort_unstable();
            let choice = Choice::of(names, over);
            if choice.chosen.len() < TOGETHER_MIN {
                return Ok(Vec::new());
            }
            let uri = format!("{}?{}", JobHint::url_path(&(), Some(namespace)), choice.query(&version));
            // Without a body it would take the version for what each of them must still be.
            let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1" }).to_string().into_bytes();
            let request = http::Request::delete(uri).header(http::header::CONTENT_TYPE, "application/json");
            let request = request.body(options).map_err(kube::Error::HttpError)?;
            // The answer repeats what went.
            self.client().request::<IgnoredAny>(request).await?;
            Ok(choice.chosen)
        };
        self.in_time(Urgency::Report, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(count: usize) -> Vec<(String, String)> {
        (0..count).map(|number| (format!("h{number:03}"), format!("uid-{number}"))).collect()
    }

    fn over(numbers: impl Iterator<Item = usize>) -> BTreeMap<String, String> {
        let all = there(1_000);
        numbers.map(|number| all[number].clone()).collect()
    }

    #[test]
    fn what_is_over_is_chosen_and_what_stands_before_it_is_left_out_by_name() {
        let choice = Choice::of(there(6), &over([1, 3].into_iter()));
        assert_eq!(choice.spared, ["h000", "h002"]);
        assert_eq!(
            choice.query("41"),
            "resourceVersion=41&resourceVersionMatch=Exact&limit=2&fieldSelector=metadata.name!=h000,metadata.name!=h002"
        );
        let all = Choice::of(there(6), &over(0..6));
        assert_eq!(all.query("41"), "resourceVersion=41&resourceVersionMatch=Exact&limit=6");
    }

    #[test]
    fn one_that_was_made_anew_under_its_name_is_left_out() {
        let mut anew = there(3);
        anew[1].1 = "another".to_owned();
        let choice = Choice::of(anew, &over(0..3));
        assert_eq!(choice.spared, ["h001"]);
        assert_eq!(choice.chosen.len(), 2);
    }

    #[test]
    fn one_call_deletes_and_leaves_out_no_more_than_it_may() {
        let choice = Choice::of(there(500), &over(0..500));
        assert_eq!((choice.chosen.len(), choice.spared.len()), (TOGETHER_MAX, 0));
        let choice = Choice::of(there(500), &over((0..500).filter(|number| number % 10 == 0)));
        assert!(choice.spared.len() <= SPARED_MAX && choice.chosen.len() >= 10, "{choice:?}");
        let longest = "x".repeat(253);
        assert!(choice.query(&longest).len() < 8_000);
    }
}
