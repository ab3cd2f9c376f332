//! Which signals are passed on.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

/// All that are listened to on behalf of the agent.
pub(crate) const LISTENED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// Whether the agent has been asked to stop.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    has_asked: bool,
}

impl Gate {
    /// Whether this one is for the agent.
    pub(crate) const fn lets_through(&self, signal: i32) -> bool {
        !(is_request(signal) && self.has_asked)
    }

    /// It has reached the agent. One that did not leaves the gate open for the next.
    pub(crate) const fn passed(&mut self, signal: i32) {
        self.has_asked = self.has_asked || is_request(signal);
    }
}

/// Whether it asks an agent to stop.
pub(crate) const fn is_request(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_to_stop_goes_through_whichever_it_is() {
        for first in [SIGTERM, SIGINT] {
            let mut gate = Gate::default();
            assert!(gate.lets_through(first));
            gate.passed(first);
            assert!(!gate.lets_through(SIGTERM) && !gate.lets_through(SIGINT));
        }
    }

    #[test]
    fn a_request_that_did_not_arrive_does_not_close_the_gate() {
        let gate = Gate::default();
        assert!(gate.lets_through(SIGTERM) && gate.lets_through(SIGTERM));
    }

    #[test]
    fn others_go_through_each_time() {
        let mut gate = Gate::default();
        gate.passed(SIGTERM);
        for signal in [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH] {
            gate.passed(signal);
            assert!(gate.lets_through(signal), "{signal}");
        }
    }
}
