//! A story told faster: everything that takes time in it takes less.

use std::{str::FromStr, time::Duration};

use kitepool_api::Span;
use serde_json::{Value, json};

use super::story::{BuildkiteSide, Events, Expectation, Jobs, KubernetesSide, RouteChange, Step, Story};

/// Faster than this, what nobody can divide (round trips, the controller's margins) is all that there is to see.
const SPEED_MAX: f64 = 20.0;

/// How many times as fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// As it is written.
    pub const PLAIN: Self = Self(1.0);

    /// As a number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// In whole milliseconds: people read it.
    fn of(self, span: Duration) -> Duration {
        let fast = Duration::try_from_secs_f64(span.as_secs_f64() / self.0).unwrap_or(span);
        Duration::new(fast.as_secs(), fast.subsec_millis() * 1_000_000)
    }

    /// Pools and headers count whole seconds: rounded up, since none at all would be another thing.
    fn of_seconds(self, span: Duration) -> u64 {
        let fast = Duration::try_from_secs_f64(span.as_secs_f64() / self.0).unwrap_or(span);
        fast.as_secs() + u64::from(fast.subsec_nanos() > 0)
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let speed = text.parse().ok().filter(|speed| (1.0..=SPEED_MAX).contains(speed));
        speed.map(Self).ok_or_else(|| format!("give a number from 1 to {SPEED_MAX}"))
    }
}

/// The durations of a pool that say how it goes with the load. The others (`longestJob`, `hintTtl`, `staleAfter`) guard
/// against mishaps, which do not get shorter.
const PACE: [&str; 6] = [
    "/spec/scaling/scaleUp/cooldown",
    "/spec/scaling/scaleUp/step/per",
    "/spec/scaling/scaleDown/cooldown",
    "/spec/scaling/scaleDown/window",
    "/spec/scaling/scaleDown/step/per",
    "/spec/scaling/scaleDown/minAge",
];

impl Story {
    /// The same, so many times as fast.
    #[must_use]
    pub fn at(mut self, speed: Speed) -> Self {
        for span in [&mut self.lasts, &mut self.state_every, &mut self.poll_interval] {
            *span = speed.of(*span);
        }
        hasten_buildkite(&mut self.buildkite, speed);
        let KubernetesSide { start_least, start_most, nodes: _, hint_quota: _ } = &mut self.kubernetes;
        for span in [start_least, start_most] {
            *span = speed.of(*span);
        }
        let mut defaults = json!({ "spec": self.defaults.take() });
        hasten_pool(&mut defaults, speed);
        self.defaults = defaults.get_mut("spec").map(Value::take).unwrap_or_default();
        self.pools.iter_mut().for_each(|pool| hasten_pool(pool, speed));
        self.story.iter_mut().for_each(|step| hasten_step(step, speed));
        self
    }

    /// The same, ended so long after its beginning; what would come later is left out, and what it expects in the end with it.
    #[must_use]
    pub fn lasting(mut self, lasts: Duration) -> Self {
        self.expect = Expectation { killed: self.expect.killed, ..Expectation::default() };
        self.lasts = lasts;
        self.story.retain(|step| step.at <= lasts);
        self
    }
}

fn hasten_buildkite(side: &mut BuildkiteSide, speed: Speed) {
    let BuildkiteSide { ping, refresh, lag, poll_duration, events } = side;
    *ping = ping.map(|ping| speed.of(ping));
    *refresh = speed.of(*refresh);
    *lag = speed.of(*lag);
    *poll_duration = poll_duration.map(|seconds| speed.of_seconds(Duration::from_secs(seconds)));
    hasten_events(events, speed);
}

fn hasten_events(events: &mut Events, speed: Speed) {
    let Events { least, mean, most, lost_permille: _, doubled_permille: _ } = events;
    for span in [least, mean, most] {
        *span = speed.of(*span);
    }
}

fn hasten_step(step: &mut Step, speed: Speed) {
    step.at = speed.of(step.at);
    if let Some(Jobs { run, run_most, every, .. }) = &mut step.jobs {
        *run = speed.of(*run);
        *run_most = run_most.map(|span| speed.of(span));
        *every = every.map(|span| speed.of(span));
    }
    if let Some(RouteChange { delay, .. }) = &mut step.buildkite {
        *delay = delay.map(|span| speed.of(span));
    }
    if let Some(events) = &mut step.events {
        hasten_events(events, speed);
    }
    if let Some(patch) = step.pool.as_mut().and_then(|change| change.patch.as_mut()) {
        hasten_pool(patch, speed);
    }
}

/// What is no duration stays as it is: the controller says so better.
fn hasten_pool(pool: &mut Value, speed: Speed) {
    for path in PACE {
        let Some(value) = pool.pointer_mut(path) else { continue };
        let span = value.as_str().and_then(|text| Span::new(text).get().ok());
        if let Some(span) = span {
            *value = json!(format!("{}s", speed.of_seconds(span)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "
about: x
lasts: 2m
pollInterval: 5s
buildkite: { ping: 2s, pollDuration: 5 }
kubernetes: { startLeast: 2s, startMost: 4s }
defaults: { longestJob: 1h, scaling: { scaleDown: { window: 6s, cooldown: 0s } } }
pools: [{ metadata: { name: a }, spec: { scaling: { hintTtl: 2m, scaleUp: { cooldown: 5s, step: { per: 1s } } } } }]
story: [{ at: 40s, jobs: { queue: a, run: 10s, runMost: 20s, every: 4s } }, { at: 100s, say: late }]
";

    #[test]
    fn what_takes_time_takes_less_and_what_guards_against_mishaps_does_not() {
        let story = Story::parse(STORY).unwrap().at("4".parse().unwrap());
        let millis = Duration::from_millis;
        assert_eq!((story.lasts, story.poll_interval), (millis(30_000), millis(1_250)));
        assert_eq!((story.buildkite.ping, story.buildkite.poll_duration), (Some(millis(500)), Some(2)));
        assert_eq!((story.kubernetes.start_least, story.kubernetes.start_most), (millis(500), millis(1_000)));
        let jobs = story.story[0].jobs.as_ref().unwrap();
        assert_eq!(story.story[0].at, millis(10_000));
        assert_eq!((jobs.run, jobs.run_most, jobs.every), (millis(2_500), Some(millis(5_000)), Some(millis(1_000))));
        let scale_down = json!({ "window": "2s", "cooldown": "0s" });
        assert_eq!(story.defaults, json!({ "longestJob": "1h", "scaling": { "scaleDown": scale_down } }));
        let scaling = json!({ "hintTtl": "2m", "scaleUp": { "cooldown": "2s", "step": { "per": "1s" } } });
        assert_eq!(story.pools[0]["spec"]["scaling"], scaling);
    }

    #[test]
    fn a_shorter_story_leaves_out_what_comes_too_late() {
        let story = Story::parse(STORY).unwrap().lasting(Duration::from_mins(1));
        assert_eq!((story.lasts.as_secs(), story.story.len()), (60, 1));
    }

    #[test]
    fn a_speed_out_of_bounds_is_refused() {
        for wrong in ["0", "0.5", "21", "-1", "NaN", "inf", "fast"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
        assert_eq!("2.5".parse(), Ok(Speed(2.5)));
    }
}
