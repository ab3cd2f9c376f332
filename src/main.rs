//! The `kitepool` program.

use std::process::ExitCode;

use clap::Parser as _;
use kitepool::cli;

/// Each tick makes and drops small objects for every pool. With that of the C library their cost per pool grows with the pools;
/// see `cargo bench --bench simulation -- pools`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Both HTTP clients find it here; built without one they would fail at the first connection.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("kitepool: the TLS provider is set up twice");
        return ExitCode::FAILURE;
    }
    match cli::run(cli::Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kitepool: {error:#}");
            ExitCode::FAILURE
        }
    }
}
