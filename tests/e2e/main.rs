//! The controller, as a process, against a real control plane: a real API server, scheduler, Deployment and `ReplicaSet`
//! controllers. `tests/e2e/run` runs all of it.
//!
//! ```text
//!  kitepool controller ──http──► proxy ──https──► kube-apiserver ◄── deployment, replicaset, … controllers, scheduler
//!          │                    (records, cuts,         ▲  ▲
//!          │                     delays, kills)         │  └── simulated kubelet: makes bound pods ready, ends deleted ones
//!          └──http──► simulated Buildkite               └───── the case: pools, hints, hands that scale
//! ```
//!
//! Simulated are Buildkite and the kubelet, nothing else. In the cases of `agents_…` the kubelet runs processes, and they are real
//! agents: only Buildkite is simulated. These cases and those of `kubelet…`, which show what that kubelet does, make namespaces,
//! so they need root.
//!
//! A case has a namespace, a service account with the rights of the chart, a proxy and a controller process of its own, so that all
//! cases run side by side.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "this program measures real time and takes its settings from the environment"
)]

mod process_kubelet;
mod simulated_kubelet;

mod harness;

mod cases;
