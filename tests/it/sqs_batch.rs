//! A batch of ten with one sender fault and one throttled entry. A small server stands in for SQS,
//! because LocalStack refuses nothing by entry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use eventferry::{
    cloud::{Clouds, Context, aws},
    event::Event,
    sink::SinkConfig,
    source::memory::{Config, Queue},
};
use serde_json::{Value, json};

use crate::rig::{self, Rig, Setup};

/// What was sent, by body: the entries, in order.
type Sent = Arc<Mutex<BTreeMap<String, Vec<Value>>>>;

/// A queue that answers so.
#[derive(Clone)]
struct Queues {
    sent: Sent,
    fifo: bool,
}

/// The four calls that the sink makes, in the JSON protocol of SQS.
async fn answer(State(of): State<Queues>, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let call: Value = serde_json::from_slice(&body).unwrap();
    let target = headers["x-amz-target"].to_str().unwrap();
    Json(match target {
        "AmazonSQS.GetQueueUrl" => json!({ "QueueUrl": "http://sqs/1/orders.fifo" }),
        "AmazonSQS.GetQueueAttributes" => json!({ "Attributes": {
            "QueueArn": "arn:aws:sqs:us-east-1:1:orders.fifo", "FifoQueue": of.fifo.to_string(),
            "MaximumMessageSize": "262144", "VisibilityTimeout": "30",
        } }),
        "AmazonSQS.SendMessageBatch" => send(&of.sent, call["Entries"].as_array().unwrap()),
        other => panic!("unexpected call: {other}"),
    })
}

fn send(sent: &Sent, entries: &[Value]) -> Value {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in entries {
        let body = entry["MessageBody"].as_str().unwrap().to_owned();
        let mut sent = sent.lock().unwrap();
        let tries = sent.entry(body.clone()).or_default();
        tries.push(entry.clone());
        let id = &entry["Id"];
        match (body.as_str(), tries.len()) {
            ("{\"n\":3}", _) => failed.push(json!({
                "Id": id, "SenderFault": true, "Code": "InvalidMessageContents", "Message": "no",
            })),
            ("{\"n\":7}", 1..=2) => failed.push(json!({
                "Id": id, "SenderFault": true, "Code": "RequestThrottled", "Message": "slower",
            })),
            _ => successful.push(json!({
                "Id": id, "MessageId": "m-1", "MD5OfMessageBody": "x",
            })),
        }
    }
    json!({ "Successful": successful, "Failed": failed })
}

/// Into a FIFO queue, or into another one with a delay, which only that knows.
pub async fn a_half_failed_batch_resends_only_what_was_throttled(fifo: bool) {
    let sent = Sent::default();
    let queues = Queues { sent: sent.clone(), fifo };
    let router = Router::new().route("/", post(answer)).with_state(queues);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let region = Some("us-east-1".to_owned());
    let settings = aws::Config { region, endpoint: Some(endpoint), ..aws::Config::default() };
    let clouds = Clouds { aws: settings, ..Clouds::default() };
    let context = Context { clouds, ..rig::context("orders", &rig::store()) };
    let config = match fifo {
        true => json!({ "sqs": { "queue": "orders.fifo" } }),
        false => json!({ "sqs": { "queue": "orders", "delay": "7s" } }),
    };
    let sink: SinkConfig = serde_json::from_value(config).unwrap();
    let sink = sink.build(&context).await.unwrap();
    let near = Queue::new(&serde_json::from_value::<Config>(json!({ "queue": "near" })).unwrap());
    let events: Vec<Event> = rig::events("e", 10, 10);
    let memory = eventferry::sink::memory::MemorySink::new(near.clone());
    crate::fixture::put_through(&memory, events).await;
    let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
    let setup = Setup { sink: Some(sink), dead_letter: true, ..Setup::default() };
    let rig = Rig::start(source, setup);
    rig.parked.wait_until(|messages| !messages.is_empty()).await;
    rig.settled().await;
    assert!(near.contents().is_empty(), "everything was settled");
    rig.drain().await;
    server.abort();
    let sent = sent.lock().unwrap();
    let tries: BTreeMap<&str, usize> =
        sent.iter().map(|(body, tries)| (&**body, tries.len())).collect();
    for (body, tries) in &tries {
        let expected = if *body == "{\"n\":7}" { 3 } else { 1 };
        assert_eq!(*tries, expected, "{body}");
    }
    assert_eq!(tries.len(), 10);
    // A retried entry is the same in all that matters.
    let throttled = &sent["{\"n\":7}"];
    let once_or_late = if fifo { "MessageDeduplicationId" } else { "DelaySeconds" };
    for field in ["MessageGroupId", once_or_late, "MessageAttributes"] {
        assert!(!throttled[0][field].is_null());
        assert_eq!(throttled[0][field], throttled[2][field], "{field}");
    }
    assert_eq!(throttled[0]["MessageGroupId"], "key-7");
}
