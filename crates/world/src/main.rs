//! Serves the simulated Buildkite and says where.

use std::{env, fs, io, process::ExitCode, time::Duration};

use jiff::Timestamp;
use kitepool_world::{
    State, World,
    buildkite::{Buildkite, PickUp, Settings},
    serve,
};

const USAGE: &str = "usage: kitepool-world [--listen ADDRESS:PORT] [--state FILE] [--ping-interval SECONDS]";

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
    let mut settings = Settings::default();
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| io::Error::other(USAGE))?;
        match flag.as_str() {
            "--listen" => listen = value,
            "--state" => state = serde_json::from_slice(&fs::read(value)?)?,
            "--ping-interval" => {
                let seconds = value.parse().map_err(|_| io::Error::other(USAGE))?;
                settings.pick_up = PickUp::Polling { interval: Duration::from_secs(seconds) };
            }
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(listen_at(&listen, world(settings, state)))
}

/// One that goes by the machine's clock.
fn world(settings: Settings, state: State) -> World {
    let world = World::from(Buildkite::new(settings, 0, machine_now()));
    world.set_clock(machine_now);
    world.set_state(state);
    world
}

#[expect(clippy::disallowed_methods, reason = "processes that connect live by no other clock")]
fn machine_now() -> Timestamp {
    Timestamp::now()
}

#[expect(clippy::print_stdout, reason = "the one line that tells the starter which port it got")]
async fn listen_at(address: &str, world: World) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", serde_json::json!({ "listening": format!("http://{}", listener.local_addr()?) }));
    serve(listener, world).await
}
