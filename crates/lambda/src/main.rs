//! `bootstrap`: in Lambda the function, elsewhere the same over standard input.

use std::{collections::BTreeMap, process::ExitCode};

use kitepool_lambda::{clock::Clock, function::write_log, lines, runtime::Runtime, settings::Settings};
use serde_json::json;

fn main() -> ExitCode {
    // One thread: there is one invocation at a time.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => failed(&error.to_string()),
    }
}

async fn run() -> ExitCode {
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let clock = Clock::machine();
    let settings = Settings::new(variables, clock.clone());
    let function = settings.function();
    let Some(authority) = settings.runtime_api() else {
        return match function {
            Ok(function) => from_lines(&function).await,
            Err(trouble) => failed(&trouble.to_string()),
        };
    };
    let runtime = match Runtime::new(authority, clock) {
        Ok(runtime) => runtime,
        Err(trouble) => return failed(&trouble.to_string()),
    };
    match function {
        Ok(function) => failed(&runtime.serve(&function).await.to_string()),
        Err(trouble) => {
            runtime.fail_to_start(&trouble.to_string()).await;
            failed(&trouble.to_string())
        }
    }
}

async fn from_lines<H: kitepool_lambda::deliver::Hints>(function: &kitepool_lambda::function::Function<H>) -> ExitCode {
    match lines::serve(function, std::io::stdin().lock()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(again) => failed(&format!("{again} lines have to come again")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    write_log(&json!({ "level": "ERROR", "message": why }));
    ExitCode::FAILURE
}
