//! A simulated world for tests and the demo: a Buildkite with its jobs and agents, a Kubernetes with its pods, and [`Joined`],
//! in which the pods of the one are the agents of the other.
//!
//! Nothing of Kitepool is used here, so that both sides of the wire are written from what is documented or was measured, and
//! not from each other. Everything is a plain state machine that is told the time, and goes the same way twice.
//!
//! # What Buildkite answers
//!
//! Each wants `Authorization: Token <token>` and answers 401 to a token that [`State::tokens`] does not have.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v3/metrics` | every queue of the token's cluster; a queue stands in `agents.queues` and in `jobs.queues` only if there is something to count there. Carries `Buildkite-Agent-Metrics-Poll-Duration` if [`State::poll_duration`] is set |
//! | `GET /v3/metrics/queue?name=<key>` | one queue without the maps; zeros for one that does not exist |
//! | `GET /v3/token` | whose token it is |
//! | what an agent calls: `register`, `connect`, `ping`, `heartbeat`, `disconnect`, `pause`, `resume`, `stop`, and of its job `accept`, `start`, `chunks`, its state, `finish`, `header_times`, `annotations`, meta-data | as the real buildkite-agent wants it, which is tried: `tests/agent` |
//!
//! A process that speaks the agent API is an agent like the simulated ones: of the same jobs, the same dispatch, the same numbers.
//! It polls: [`buildkite::Settings`] say how often. What Buildkite does with it where that is silent:
//!
//! - One of which nothing is heard for [`buildkite::Settings::noticing`] is lost, and so is the job that it had taken.
//! - One that disconnects, or is lost, has its token no longer: 401. What it had taken and not finished is lost.
//! - A job that is accepted, started or finished in the wrong state is refused with 422; a call that is only repeated is not.
//! - A job that is given away again has another token: 401 to the one before.
//! - A paused agent loses a job that was given to it and that it has not heard of; one that it has heard of it may still accept.
//!
//! The numbers are those of the jobs and agents of [`buildkite::Buildkite`], as old as its settings say, and on top of them the
//! loads that are set.
//!
//! # How to drive it from another process
//!
//! Bodies are JSON. A `PUT` answers 204, or 4xx to a body that is not understood, and then nothing has changed.
//!
//! | request | body | effect |
//! |---|---|---|
//! | `GET /_world/state` | | all that is set, as [`State`] |
//! | `PUT /_world/state` | [`State`] | replaces all that is set; faults and counts stay |
//! | `PUT /_world/queues/{cluster}/{queue}` | [`Queue`] | sets a load; cluster and queue come to be if they are not there |
//! | `PUT /_world/tokens/{token}` | [`Token`] or `null` | lets the token in under this identity, another one than before if you like, or no longer |
//! | `PUT /_world/poll_duration` | a number or `null` | sets the header's seconds, or leaves the header out |
//! | `PUT /_world/queues/{cluster}/{queue}/paused` | `true` or `false` | pauses the dispatch of a queue, or resumes it |
//! | `POST /_world/jobs` | [`buildkite::ScriptJob`] | submits a job; answers 201 and `{"uuid":…}` |
//! | `GET /_world/jobs` | | all jobs, as [`buildkite::JobRecord`] each |
//! | `GET /_world/jobs/{job}` | | one of them |
//! | `GET /_world/jobs/{job}/log` | | what it wrote |
//! | `DELETE /_world/jobs/{job}` | | cancels it |
//! | `GET /_world/agents` | | all connected agents, and those that were, as [`buildkite::Connection`] each |
//! | `PUT /_world/agents/{agent}/paused` | `true` or `false` | pauses a connected agent, or resumes it |
//! | `PUT /_world/agents/{agent}/stop` | `true` or `false` | stops it: by force, or when it has no job |
//! | `PUT /_world/faults/{route}` | [`Fault`] or `null` | breaks a route ([`Route`] in snake case), or mends it |
//! | `GET /_world/requests` | | the requests so far, as [`Requests`] |
//!
//! The binary `kitepool-world [--listen ADDRESS:PORT] [--state FILE] [--ping-interval SECONDS]` serves this by the machine's clock
//! and prints one line, `{"listening":"http://127.0.0.1:12345"}`, once it does. In a test of the same process,
//! [`buildkite::Serving`] does it.
//!
//! # Time
//!
//! Jobs and agents go by the clock given with [`World::set_clock`]; without one they stand still until somebody moves them, and
//! the set loads are all there is to see. Over a connection the HTTP server writes `Date` by the machine's clock. In process
//! nobody does: with a clock, and in virtual time, `Date` follows it.

mod agenda;
pub mod buildkite;
mod chance;
mod joined;
pub mod kubernetes;

pub use self::{
    agenda::Agenda,
    buildkite::{Cluster, Fault, Queue, Requests, Route, State, Token, UNCLUSTERED, World, digest, router, serve},
    chance::Chance,
    joined::{Joined, SecretName},
};
