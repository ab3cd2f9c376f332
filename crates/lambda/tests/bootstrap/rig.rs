//! The program with a stub of Lambda's Runtime API in front of it.

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path as InPath, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::{Mutex, mpsc},
};

use crate::simulated::Simulated;

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the program posted: the end of the path, and the body.
type Posted = (String, Value);

/// The running program.
pub(crate) struct Rig {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    invocations: mpsc::Sender<(Value, Duration)>,
    posted: mpsc::Receiver<Posted>,
    /// How long an invocation has.
    pub(crate) time: Duration,
}

struct Stub {
    invocations: Mutex<mpsc::Receiver<(Value, Duration)>>,
    posted: mpsc::Sender<Posted>,
}

impl Rig {
    /// Starts it with what Lambda and the template set, and these.
    pub(crate) async fn start(simulated: &Simulated, settings: &[(&str, &str)]) -> Self {
        let (invocations, waiting) = mpsc::channel(1);
        let (posting, posted) = mpsc::channel(1);
        let stub = Arc::new(Stub { invocations: Mutex::new(waiting), posted: posting });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{end}", post(invocation_end))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(stub);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });

        let mut command = program();
        command
            .env("AWS_LAMBDA_RUNTIME_API", authority)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "topsecretkey")
            .env("AWS_SESSION_TOKEN", "topsecret+/=token")
            .env("AWS_ENDPOINT_URL_STS", simulated.address())
            .env("AWS_ENDPOINT_URL_EKS", simulated.address())
            .env("KITEPOOL_NAMESPACE", "buildkite")
            .env("KITEPOOL_CLUSTER_NAME", "ci")
            .env("KITEPOOL_CLUSTER_ENDPOINT", simulated.address());
        for (name, value) in settings {
            command.env(name, value);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, invocations, posted, time: Duration::from_secs(10) }
    }

    /// The program's answer to an invocation, or its failure.
    pub(crate) async fn invoke(&mut self, event: Value) -> Result<Value, Value> {
        self.invocations.send((event, self.time)).await.unwrap();
        let (end, body) = self.posted().await;
        match end.as_str() {
            "response" => Ok(body),
            "error" => Err(body),
            _ => panic!("{end}: {body}"),
        }
    }

    /// What it says when it does not come up.
    pub(crate) async fn fails_to_start(&mut self) -> Value {
        let (end, body) = self.posted().await;
        assert_eq!(end, "init");
        assert!(!self.child.wait().await.unwrap().success());
        body
    }

    /// Its next line of log.
    pub(crate) async fn log(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it; answers everything that was printed and not read yet.
    pub(crate) async fn end(mut self) -> String {
        self.child.kill().await.unwrap();
        let mut printed = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            printed = format!("{printed}{line}\n");
        }
        printed
    }

    async fn posted(&mut self) -> Posted {
        tokio::time::timeout(PATIENCE, self.posted.recv()).await.unwrap().unwrap()
    }
}

/// Runs it without Lambda: the exit code, and what it printed.
pub(crate) async fn run_lines(kubeconfig: &Path, lines: &str) -> (i32, String) {
    let mut command = program();
    command.env("KUBECONFIG", kubeconfig).env("KITEPOOL_NAMESPACE", "buildkite");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootstrap"));
    // Nothing of this machine's own settings.
    command.env_clear().kill_on_drop(true);
    command
}

/// An event about a job that just became runnable.
pub(crate) fn event(id: &str) -> Value {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let now = jiff::Timestamp::from_second(i64::try_from(since_1970).unwrap()).unwrap();
    json!({
        "version": "0", "id": format!("event-{id}"), "detail-type": "Job Scheduled", "time": now.to_string(),
        "source": "aws.partner/buildkite.com/acme/0106-187c-12cd4fe", "account": "123123123123", "region": "eu-west-1",
        "detail": { "version": 1, "organization": { "slug": "acme" }, "job": {
            "uuid": id, "type": "script", "state": "assigned", "agent_query_rules": ["os=linux", "queue=gpu"],
            "runnable_at": now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        } },
    })
}

/// As Lambda's poller makes it of messages in a queue.
pub(crate) fn sqs_batch(events: &[Value]) -> Value {
    let record = |(index, event): (usize, &Value)| {
        json!({ "messageId": format!("message-{index}"), "receiptHandle": "handle", "body": event.to_string(),
            "attributes": { "ApproximateReceiveCount": "1" }, "eventSource": "aws:sqs", "awsRegion": "eu-west-1" })
    };
    json!({ "Records": events.iter().enumerate().map(record).collect::<Vec<_>>() })
}

async fn next(State(stub): State<Arc<Stub>>) -> Response {
    let Some((event, time)) = stub.invocations.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline = SystemTime::UNIX_EPOCH.elapsed().unwrap() + time;
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
    ];
    (headers, Json(event)).into_response()
}

async fn invocation_end(
    State(stub): State<Arc<Stub>>,
    InPath((id, end)): InPath<(String, String)>,
    body: Bytes,
) -> StatusCode {
    assert_eq!(id, "8476a536-e9f4-11e8-9739-2dfe598c3fcd");
    stub.posted.send((end, serde_json::from_slice(&body).unwrap())).await.unwrap();
    StatusCode::ACCEPTED
}

async fn init_error(State(stub): State<Arc<Stub>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert!(headers.contains_key("lambda-runtime-function-error-type"));
    stub.posted.send(("init".to_owned(), serde_json::from_slice(&body).unwrap())).await.unwrap();
    StatusCode::ACCEPTED
}
