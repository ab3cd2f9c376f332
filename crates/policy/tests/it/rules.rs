//! Which jobs agents with which tags may run.

use kitepool_policy::rules::match_tags;

fn matched(rules: &[&str], tags: &[&str]) -> bool {
    let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
    match_tags(&rules, &tags.iter().map(ToString::to_string).collect())
}

#[test]
fn rules_match_the_way_buildkite_does() {
    for (rules, tags, expected) in [
        (&[][..], &[][..], true),
        (&["queue=linux"], &[], true),
        (&["queue=*"], &[], true),
        (&["os=linux"], &[], false),
        (&["os=linux"], &["os=linux"], true),
        (&["os=linux", "gpu=true"], &["os=linux"], false),
        (&["os=linux", "gpu=true"], &["gpu=true", "os=linux"], true),
        (&["os=*"], &["os=linux"], true),
        (&["os=*"], &["osx=linux"], false),
        (&["os=lin*"], &["os=linux"], true),
        (&["os=lin*"], &["os=mac", "os=windows"], false),
        (&["*"], &[], true),
        (&["os=linux"], &["os=linux2"], false),
    ] {
        assert_eq!(matched(rules, tags), expected, "{rules:?} against {tags:?}");
    }
}
