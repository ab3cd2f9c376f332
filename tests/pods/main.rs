//! Pod definitions from the outside: what a definition and a pool come to, and what is refused.

#![cfg(test)]

mod generations;
mod readme;
mod refused;
