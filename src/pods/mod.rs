//! From a pod definition to a generation: what the controller adds, what it refuses, and the Deployment that comes out.

pub mod contract;
pub mod generation;
pub mod merge;
pub mod overrides;
mod refuse;
pub mod render;
mod template;
