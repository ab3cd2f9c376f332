//! From a pod definition to a generation: what the controller adds, what it refuses, and the Deployment that comes out.

pub mod check;
pub mod contract;
pub mod first;
pub mod generation;
pub mod library;
pub mod lint;
pub mod merge;
pub mod migrate;
pub mod overrides;
pub mod references;
mod refuse;
pub mod render;
mod template;
