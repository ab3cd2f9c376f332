//! Step 4: idle agents on top, so that the next job does not wait for a cold start.
//!
//! Each pool keeps its own spare on its own share, also where several pools serve a queue: whoever asks for a spare in the
//! second pool wants agents of that kind to be warm, and a spare of the first would not help there.
//!
//! A learned spare (how much demand rises within one cold start) will be one more variant of [`Spare`].

use crate::{decision::Reason, spec::Spare, units::Agents};

/// The spare on top of this share.
pub(crate) fn on_top(spare: Spare, served: Agents) -> Agents {
    match spare {
        Spare::Agents(agents) => agents,
        Spare::Percent(percent) => Agents(percent.of_rounded_up(served.0)),
    }
}

/// The entry's reason.
pub(crate) const fn reason(spare: Agents) -> Reason {
    if spare.is_zero() { Reason::Unchanged } else { Reason::SpareOnTop { spare } }
}
