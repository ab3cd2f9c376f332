//! What the schema language is too weak for: each rule once, as CEL for the API server and as a sentence for everybody.
//!
//! [`crate::validate()`] checks every one of them again and says the same sentence.

use std::time::Duration;

use serde_json::{Value, json};

use crate::problem::Problem;

/// A rule of the schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// In CEL; `self` is where the rule is attached.
    pub(crate) cel: &'static str,
    /// Where the problem is, below the place where the rule is attached; empty for that place itself.
    pub(crate) field: &'static str,
    /// What is wrong.
    pub(crate) what: &'static str,
    /// How to mend it.
    pub(crate) remedy: &'static str,
    /// Both, as the API server says it.
    pub(crate) sentence: &'static str,
}

impl Rule {
    /// The rule's problem with the object at `path`, the place where the rule is attached.
    pub(crate) fn problem(&self, path: &str) -> Problem {
        Problem::new(format!("{path}{}", self.field), self.what, self.remedy)
    }
}

/// The value of `x-kubernetes-validations`.
///
/// Messages are fixed texts: a `messageExpression` that joins strings makes the API server refuse the whole CRD on cost, and
/// one that formats numbers could not be said in the same words elsewhere.
pub(crate) fn validations(rules: &[Rule]) -> Value {
    let validation = |rule: &Rule| {
        if rule.field.is_empty() {
            json!({ "rule": rule.cel, "message": rule.sentence })
        } else {
            json!({ "rule": rule.cel, "message": rule.sentence, "fieldPath": rule.field })
        }
    };
    rules.iter().map(validation).collect()
}

macro_rules! rule {
    ($cel:expr, $what:expr, $remedy:expr $(,)?) => {
        rule!($cel, "", $what, $remedy)
    };
    ($cel:expr, $field:expr, $what:expr, $remedy:expr $(,)?) => {
        Rule { cel: $cel, field: $field, what: $what, remedy: $remedy, sentence: concat!($what, "; ", $remedy) }
    };
}

/// A duration's grammar, for CEL. The units' first letters differ, which is what the ranges below count by.
macro_rules! duration_pattern {
    () => {
        concat!("^[0-9]{1,9} ?", duration_pattern!(unit), "( ?[0-9]{1,9} ?", duration_pattern!(unit), ")*$")
    };
    (unit) => {
        "(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)"
    };
}

/// A field that holds a duration: its bounds, and the rules that say them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurationRules {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) grammar: Rule,
    pub(crate) range: Rule,
}

impl DurationRules {
    /// For the schema.
    pub(crate) fn validations(&self) -> Value {
        validations(&[self.grammar, self.range])
    }
}

macro_rules! duration_rules {
    ($min:literal $min_text:literal to $max:literal $max_text:literal) => {
        DurationRules {
            min: Duration::from_secs($min),
            max: Duration::from_secs($max),
            grammar: rule!(
                concat!("self.matches('", duration_pattern!(), "')"),
                "this is no duration",
                "write it like 90s, 5m or 4h 30m",
            ),
            // Seconds, counted by each number and the first letter of its unit. What is no duration is the other rule's.
            range: rule!(
                concat!(
                    "!self.matches('",
                    duration_pattern!(),
                    "') || [self.findAll('[0-9]+ ?[a-z]').map(part, int(part.find('[0-9]+')) * ",
                    "{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[part.find('[a-z]')]).sum()]",
                    ".all(seconds, seconds >= ",
                    $min,
                    " && seconds <= ",
                    $max,
                    ")"
                ),
                "the duration is out of bounds",
                concat!("give something from ", $min_text, " to ", $max_text),
            ),
        }
    };
}

/// The grace period of a pod: a job of more than a week is not one that Kubernetes should wait for.
pub(crate) const LONGEST_JOB: DurationRules = duration_rules!(1 "1s" to 604_800 "7d");
/// A pool that waits longer than an hour between two growths follows no load.
pub(crate) const UP_COOLDOWN: DurationRules = duration_rules!(0 "0s" to 3_600 "1h");
/// Ticks come once a second; a step per hour follows no load either.
pub(crate) const STEP_PER: DurationRules = duration_rules!(1 "1s" to 3_600 "1h");
/// Cooldown, window and age of a shrink: a load that comes once a day is the work of a schedule.
pub(crate) const DOWN: DurationRules = duration_rules!(0 "0s" to 86_400 "24h");
/// Readings come every ten seconds at best; a hint that is older than an hour misleads.
pub(crate) const HINT_TTL: DurationRules = duration_rules!(10 "10s" to 3_600 "1h");
/// Readings come every ten seconds at best.
pub(crate) const STALE_AFTER: DurationRules = duration_rules!(10 "10s" to 3_600 "1h");

pub(crate) const POOL_NAME: Rule = rule!(
    "self.metadata.name.size() <= 52",
    "metadata.name is longer than 52 characters, which leaves no room for the names of Deployments",
    "choose a shorter one",
);
pub(crate) const QUEUE: Rule = rule!(
    "self.matches('^[A-Za-z0-9][A-Za-z0-9._:/-]*$')",
    "this is no queue key",
    "use letters, digits and . _ : / - and begin with a letter or digit",
);
pub(crate) const OBJECT_NAME: Rule = rule!(
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "this is no name of an object",
    "use lower-case letters, digits, - and . with a letter or digit at both ends",
);
pub(crate) const SECRET_KEY: Rule =
    rule!("self.matches('^[-._A-Za-z0-9]+$')", "this is no key of a Secret", "use letters, digits and - _ .");
pub(crate) const DEFINITION_CHOICE: Rule = rule!(
    "has(self.podTemplateRef) != has(self.template)",
    "exactly one of podTemplateRef and template must say what the pods are",
    "set one of them",
);
pub(crate) const IMAGE: Rule =
    rule!(r"self.matches('^[^\\s]+$')", "this is no image", "write it like registry.example.org/name:tag");
pub(crate) const NAME_PREFIX: Rule = rule!(
    "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')",
    "this is no prefix of a name",
    "use letters, digits and . _ - and begin with a letter or digit",
);
pub(crate) const AMOUNT: Rule = rule!(
    "type(self) == int ? self >= 0 : self.matches('^[0-9]+([.][0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$')",
    "this is no amount",
    "write it like 2, 500m or 1Gi",
);
pub(crate) const TOKEN_CHOICE: Rule = rule!(
    "has(self.secretRef) != has(self.file)",
    "exactly one of secretRef and file must say where the agent token is",
    "set one of them",
);
pub(crate) const TOKEN_FILE: Rule = rule!("self.startsWith('/')", "this is no absolute path", "begin it with /");
pub(crate) const TAG_FORM: Rule = rule!(
    r"self.matches('^[^=,\\s]+=([^,\\s]([^,\\n]*[^,\\s])?)?$')",
    "this is no tag",
    "write it key=value, without a comma and without spaces around the value",
);
pub(crate) const TAG_QUEUE: Rule =
    rule!("!self.startsWith('queue=')", "a tag must not hold queue=", "the queue stands in spec.queue");
pub(crate) const TAGS_UNIQUE: Rule =
    rule!("self.all(tag, self.exists_one(other, other == tag))", "a tag stands twice", "write each once");
pub(crate) const MIN_MAX: Rule = rule!("self.min <= self.max", ".min", "min is above max", "lower min or raise max");
pub(crate) const SPARE_CHOICE: Rule =
    rule!("!(has(self.agents) && has(self.percent))", "spare holds both agents and percent", "keep one of them");
pub(crate) const STEP_MOVES: Rule = rule!(
    "self.percent > 0 || self.agents > 0",
    "this step could never move",
    "give it a percent or agents above zero",
);
pub(crate) const DAYS: Rule = rule!(
    "self.matches('^(daily|(Mon|Tue|Wed|Thu|Fri|Sat|Sun)(-(Mon|Tue|Wed|Thu|Fri|Sat|Sun))?(, ?(Mon|Tue|Wed|Thu|Fri|Sat|Sun)(-(Mon|Tue|Wed|Thu|Fri|Sat|Sun))?)*)$')",
    "these are no days",
    "write them like Mon-Fri, or Sat,Sun, or daily",
);
pub(crate) const TIME: Rule = rule!(
    "self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",
    "this is no time of day",
    "write it like 08:00, up to 23:59"
);
pub(crate) const FROM_TO: Rule = rule!(
    "self.from != self.to",
    ".to",
    "from and to are the same, so it is unclear whether the schedule holds always or never",
    "make them differ",
);
pub(crate) const TIME_ZONE: Rule = rule!(
    "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
    "this is no time zone",
    "use a name of the IANA database such as Europe/London or UTC",
);
pub(crate) const HINT_FIXED: Rule =
    rule!("self.spec == oldSelf.spec", "a JobHint cannot be changed", "create another one");
pub(crate) const JOB_ID: Rule =
    rule!("self.matches('^[A-Za-z0-9_-]+$')", "this is no job id", "write the uuid that Buildkite gave the job");
