//! A service that speaks SQS's protocol and answers as a test tells it: for refusals that no
//! emulator gives on request.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use eventferry::cloud::aws::Config;
use futures::future::BoxFuture;
use serde_json::{Value as Json, json};

/// What is answered to an operation and its input: a result, or the code of an error.
pub type Answer = Result<Json, &'static str>;
type Script = Arc<dyn Fn(String, Json) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The service.
pub struct FakeSqs {
    endpoint: String,
    asked: Arc<Mutex<Vec<(String, Json)>>>,
}

#[derive(Clone)]
struct Shared {
    script: Script,
    asked: Arc<Mutex<Vec<(String, Json)>>>,
}

impl FakeSqs {
    /// Starts one whose only queue has this visibility timeout. `script` answers what is not
    /// about the queue itself.
    pub async fn start<F, A>(visibility_s: u32, script: F) -> Self
    where
        F: Fn(String, Json) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let script = Arc::new(script);
        let script: Script = Arc::new(move |operation, input| {
            let script = script.clone();
            Box::pin(async move {
                match operation.as_str() {
                    "GetQueueUrl" => Ok(json!({ "QueueUrl": "http://sqs.test/1/queue" })),
                    "GetQueueAttributes" => Ok(json!({ "Attributes": {
                        "QueueArn": "arn:aws:sqs:us-east-1:1:queue",
                        "VisibilityTimeout": visibility_s.to_string(),
                        "MaximumMessageSize": "1048576",
                    } })),
                    _ => script(operation, input).await,
                }
            })
        });
        let asked = Arc::default();
        let shared = Shared { script, asked: Arc::clone(&asked) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { endpoint, asked }
    }

    /// How to reach it.
    pub fn settings(&self) -> Config {
        let (region, endpoint) = (Some("us-east-1".into()), Some(self.endpoint.clone()));
        Config { region, endpoint, ..Config::default() }
    }

    /// The inputs of all requests for `operation` so far.
    pub fn asked(&self, operation: &str) -> Vec<Json> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(name, _)| name == operation).map(|(_, input)| input.clone()).collect()
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, input: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap().to_owned();
    let input: Json = serde_json::from_slice(&input).unwrap();
    shared.asked.lock().unwrap().push((operation.clone(), input.clone()));
    let (status, body) = match (shared.script)(operation, input).await {
        Ok(result) => (StatusCode::OK, result),
        Err(code) => {
            let error = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "no" });
            (StatusCode::BAD_REQUEST, error)
        }
    };
    (status, [("content-type", "application/x-amz-json-1.0")], body.to_string()).into_response()
}
