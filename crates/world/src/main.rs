//! Serves the simulated Buildkite and says where.

use std::{env, fs, io, process::ExitCode};

use kitepool_world::{State, World, serve};

const USAGE: &str = "usage: kitepool-world [--listen ADDRESS:PORT] [--state FILE]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kitepool-world: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut listen = "127.0.0.1:0".to_owned();
    let mut state = State::default();
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| io::Error::other(USAGE))?;
        match flag.as_str() {
            "--listen" => listen = value,
            "--state" => state = serde_json::from_slice(&fs::read(value)?)?,
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(listen_at(&listen, state))
}

#[expect(clippy::print_stdout, reason = "the one line that tells the starter which port it got")]
async fn listen_at(address: &str, state: State) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", serde_json::json!({ "listening": format!("http://{}", listener.local_addr()?) }));
    serve(listener, World::new(state)).await
}
