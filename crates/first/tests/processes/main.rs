//! The program with real processes: alone, and as the first of a namespace.

#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "this program watches real processes in real time")]

mod namespace;
mod signals;
mod stage;
