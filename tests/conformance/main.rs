//! The simulated Kubernetes of `crates/world` beside the real control plane of `tests/control-plane`: the same requests, the
//! same expectations.

#![cfg(test)]

mod in_process;
