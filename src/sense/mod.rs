//! What is known of the world: each sensor runs on its own and publishes dated values; none waits for another.

pub mod poll;
pub mod probe;
pub mod tokens;
pub mod watch;
