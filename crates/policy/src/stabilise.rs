//! Step 6: from agents to pods, calmly.
//!
//! A want above what stands is followed at once, unless a cooldown holds it. A want below is followed down only to the
//! largest want of the last `window`. The window lives in [`Memory`] as a falling staircase: `want` is the newest step and
//! counts as wanted up to now, `peaks` are the steps above it, each with the last instant at which it held. Nothing in it
//! moves while the want does not, so a quiet day writes nothing, and a controller that was away for an hour counts that hour
//! as wanted.

use std::{cmp::Ordering, time::Duration};

use jiff::Timestamp;

use crate::{
    age::elapsed,
    breaker::Room,
    decision::Reason,
    limits::Bounds,
    memory::{Memory, PEAKS_MAX, Peak},
    spec::PoolSpec,
    units::Pods,
};

/// What stands now, as stabilising and limiting see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present {
    /// Replicas of all generations together.
    pub current: Pods,
    /// What stood before somebody else lowered it, if that was just noticed.
    pub before_foreign: Option<Pods>,
    /// Growth that was decided and has not landed: its cooldown and step are paid for.
    pub pending_up: Pods,
    /// The same, downwards.
    pub pending_down: Pods,
    /// Whether the reading is believed.
    pub is_trusted: bool,
    /// For pods that come up.
    pub room: Room,
}

/// What is wanted, and whether a cooldown stands against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stable {
    /// Pods wanted, not limited yet, or what stands if a cooldown holds it.
    pub pods: Pods,
    /// Pods wanted without any cooldown, within the bounds: what a roll aims at.
    pub want: Pods,
    /// The least that a cooldown allows.
    pub lowest: Pods,
    /// Why.
    pub reason: Reason,
}

/// Follows the want, and remembers it.
pub(crate) fn follow(
    raw: Pods,
    present: Present,
    bounds: Bounds,
    spec: &PoolSpec,
    memory: &mut Memory,
    now: Timestamp,
) -> Stable {
    let window = spec.scale_down.window;
    remember(bounds.clamp(raw), present, bounds, window, memory, now);
    let held = largest(memory, window, now);

    let kept = present.before_foreign.unwrap_or(present.current).max(present.current);
    // Up at once to what is wanted now; a larger want of the past only keeps what stands, it never makes the pool grow.
    let held = raw.max(held.min(kept));
    let want = bounds.clamp(held);
    // Where the bounds decide anyway, the window has nothing to say.
    let pods = if want == bounds.clamp(raw) { raw } else { held };
    let stable = Stable { pods, want, lowest: Pods::ZERO, reason: Reason::Unchanged };

    match want.cmp(&present.current) {
        Ordering::Equal => Stable { reason: window_reason(raw, want, bounds, window), ..stable },
        Ordering::Greater => {
            let highest = present.current.plus(present.pending_up);
            let is_exempt = present.before_foreign.is_some() || want <= highest;
            match remaining(memory.last_up, spec.scale_up.cooldown, now) {
                Some(remaining) if !is_exempt => {
                    Stable { pods: highest, reason: Reason::UpCooldown { wanted: want, remaining }, ..stable }
                }
                _ if pods > raw => Stable { reason: Reason::RaisedAgain { wanted: raw }, ..stable },
                _ => stable,
            }
        }
        Ordering::Less => {
            let lowest = present.current.minus(present.pending_down);
            match remaining(memory.last_up.max(memory.last_down), spec.scale_down.cooldown, now) {
                Some(remaining) if want < lowest => {
                    Stable { pods: lowest, lowest, reason: Reason::DownCooldown { wanted: want, remaining }, ..stable }
                }
                _ => Stable { reason: window_reason(raw, want, bounds, window), ..stable },
            }
        }
    }
}

/// The window's reason, if the window is what keeps the pool above both the want and the floor.
fn window_reason(raw: Pods, want: Pods, bounds: Bounds, window: Duration) -> Reason {
    if want > bounds.clamp(raw) { Reason::WindowHolds { wanted: raw, window } } else { Reason::Unchanged }
}

/// What is left of a cooldown.
fn remaining(since: Option<Timestamp>, cooldown: Duration, now: Timestamp) -> Option<Duration> {
    cooldown.checked_sub(elapsed(since?, now)).filter(|remaining| !remaining.is_zero())
}

/// Puts the newest want into the staircase. It is remembered within the bounds: what lies outside changes nothing, so it is
/// not worth a write.
fn remember(want: Pods, present: Present, bounds: Bounds, window: Duration, memory: &mut Memory, now: Timestamp) {
    // Without any memory, what stands was wanted by somebody until now.
    let last = memory.want.unwrap_or_else(|| bounds.clamp(present.current));
    // Not knowing is no reason to want less: otherwise an hour without readings would empty the window.
    let want = if present.is_trusted { want } else { want.max(last) };
    if memory.want == Some(want) {
        return;
    }
    memory.want = Some(want);
    memory.peaks.retain(|peak| elapsed(peak.until, now) < window && peak.want > want.max(last));
    // A peak that ends now already is the larger one, and says it all.
    let is_news = memory.peaks.last().is_none_or(|newest| newest.until < now);
    if want < last && is_news && !window.is_zero() {
        memory.peaks.push(Peak { until: now, want: last });
        if memory.peaks.len() > PEAKS_MAX {
            merge(&mut memory.peaks, window);
        }
    }
}

/// The largest want of the last `window`. Of the last want only the time before now is past, so an empty window sees nothing
/// but the want itself.
fn largest(memory: &Memory, window: Duration, now: Timestamp) -> Pods {
    memory
        .peaks
        .iter()
        .filter(|peak| elapsed(peak.until, now) < window)
        .map(|peak| peak.want)
        .chain(memory.want)
        .max()
        .unwrap_or(Pods::ZERO)
}

/// The longest that a merge can make a want last: a window spans at most `PEAKS_MAX` pieces of this length, the first and
/// the last of them in part.
pub(crate) fn grain(window: Duration) -> Duration {
    let pieces = u32::try_from(PEAKS_MAX.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    (window / pieces).max(Duration::from_nanos(1))
}

/// Merges the peaks that end in the same piece of time. The pieces are fixed, so that a long decline, merged again and again,
/// never carries a want further than the end of its own piece.
fn merge(peaks: &mut Vec<Peak>, window: Duration) {
    let grain = i128::try_from(grain(window).as_nanos()).unwrap_or(i128::MAX);
    peaks.dedup_by(|later, earlier| {
        let same = later.until.as_nanosecond().div_euclid(grain) == earlier.until.as_nanosecond().div_euclid(grain);
        if same {
            earlier.until = later.until;
        }
        same
    });
}
