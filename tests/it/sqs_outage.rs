//! SQS out of order in one way after another: no way is held against an event. A small server stands
//! in for it, because LocalStack does not fail.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use eventferry::{
    cloud::{Clouds, Context, aws},
    deliver::{breaker::BreakerConfig, flow::FlowConfig},
    route::Retry,
    sink::SinkConfig,
    source::memory::{Config, Queue},
};
use serde_json::{Value, json};

use crate::{
    rig::{self, Rig, Setup},
    world,
};

/// What is answered to the first requests that send, before all is well.
const WAYS: usize = 8;

async fn answer(
    State(asked): State<Arc<AtomicUsize>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call: Value = serde_json::from_slice(&body).unwrap();
    match headers["x-amz-target"].to_str().unwrap() {
        "AmazonSQS.GetQueueUrl" => {
            Json(json!({ "QueueUrl": "http://sqs/1/orders" })).into_response()
        }
        "AmazonSQS.GetQueueAttributes" => Json(json!({ "Attributes": {
            "QueueArn": "arn:aws:sqs:us-east-1:1:orders", "MaximumMessageSize": "262144",
            "VisibilityTimeout": "30",
        } }))
        .into_response(),
        "AmazonSQS.SendMessageBatch" => {
            send(asked.fetch_add(1, SeqCst), call["Entries"].as_array().unwrap())
        }
        other => panic!("unexpected call: {other}"),
    }
}

fn send(nth: usize, entries: &[Value]) -> Response {
    let page = |status: StatusCode| (status, "<html>nobody is here</html>").into_response();
    match nth {
        0 => page(StatusCode::INTERNAL_SERVER_ERROR),
        1 => page(StatusCode::BAD_GATEWAY),
        2 => page(StatusCode::SERVICE_UNAVAILABLE),
        // A way to a service that is not there any more.
        3 => page(StatusCode::NOT_FOUND),
        4 => page(StatusCode::BAD_REQUEST),
        5 => page(StatusCode::OK),
        6 => {
            let error = json!({ "__type": "com.amazonaws.sqs#InternalFailure", "message": "no" });
            (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response()
        }
        7 => Json(json!({ "Successful": [], "Failed": [] })).into_response(),
        _ => {
            let sent = entries.iter().map(
                |entry| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x" }),
            );
            let sent: Vec<Value> = sent.collect();
            Json(json!({ "Successful": sent, "Failed": [] })).into_response()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_says_that_the_service_is_not_there_parks_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new().route("/", post(answer)).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let region = Some("us-east-1".to_owned());
    let settings = aws::Config { region, endpoint: Some(endpoint), ..aws::Config::default() };
    let clouds = Clouds { aws: settings, ..Clouds::default() };
    let context = Context { clouds, ..rig::context("orders", &rig::store()) };
    let config = json!({ "sqs": { "queue": "orders" } });
    let sink: SinkConfig = serde_json::from_value(config).unwrap();
    let near = Queue::new(&serde_json::from_value::<Config>(json!({ "queue": "near" })).unwrap());
    world::put(&near, rig::events("e", 10, 0)).await;
    let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
    let breaker = BreakerConfig { failures: 1000, ..BreakerConfig::default() };
    let setup = Setup {
        sink: Some(sink.build(&context).await.unwrap()),
        dead_letter: true,
        retry: Retry { attempts: 1, ..rig::quick_retry() },
        flow: FlowConfig { breaker, ..FlowConfig::default() },
        ..Setup::default()
    };
    let rig = Rig::start(source, setup);
    near.wait_until(<[_]>::is_empty).await;
    rig.settled().await;
    assert_eq!(rig.parked.contents().len(), 0);
    assert!(asked.load(SeqCst) > WAYS, "each way was met");
    rig.drain().await;
    server.abort();
}
