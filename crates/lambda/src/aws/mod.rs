//! What is particular to AWS: whose credentials sign, what they sign, and where its APIs are.

pub mod credentials;
pub mod describe;
pub mod region;
pub mod sign;
pub mod token;
