//! What the controller learns from the outside, kept fresh by tasks of its own.

pub mod poll;
