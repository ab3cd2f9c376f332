//! The function behind EventBridge: events in, `JobHint` objects out. The only crate that names AWS.
//!
//! ```text
//!  Runtime API or lines ─► read (kitepool-api) ─► deliver ─► cluster ─► POST jobhints
//!                                                    │          └── token signed here, or a kubeconfig's
//!                                                    └─► one fate for each record ─► answer, one line of log
//! ```
//!
//! It holds one right (`create jobhints`), knows no pools, and keeps nothing: what it could not store it asks to get
//! again.

pub mod aws;
pub mod clock;
pub mod cluster;
pub mod deliver;
pub mod function;
pub mod http_client;
pub mod kubeconfig;
pub mod lines;
pub mod runtime;
pub mod settings;
pub mod tls;
pub mod trouble;
pub mod verdict;
