//! Step 4: idle agents on top, so that the next job does not wait for a cold start.
//!
//! Each pool keeps its own spare on its own share, also where several pools serve a queue: whoever asks for a spare in the
//! second pool wants agents of that kind to be warm, and a spare of the first would not help there.
//!
//! While jobs of the queue are [unsatisfiable](crate::unsatisfiable), each of its pools keeps one idle agent at least:
//! without any, nobody would notice that they can start again.
//!
//! A learned spare (how much demand rises within one cold start) will be one more variant of [`Spare`].

use crate::{decision::Reason, spec::Spare, units::Agents};

/// What is kept idle where nothing else would be while jobs are unsatisfiable.
const LOOKOUT: Agents = Agents(1);

/// The spare on top of this share.
pub(crate) fn on_top(spare: Spare, served: Agents, is_unsatisfiable: bool) -> Agents {
    let asked = match spare {
        Spare::Agents(agents) => agents,
        Spare::Percent(percent) => Agents(percent.of_rounded_up(served.0)),
    };
    if is_unsatisfiable { asked.max(LOOKOUT) } else { asked }
}

/// The entry's reason.
pub(crate) const fn reason(spare: Agents) -> Reason {
    if spare.is_zero() { Reason::Unchanged } else { Reason::SpareOnTop { spare } }
}
