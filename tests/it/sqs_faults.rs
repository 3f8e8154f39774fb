//! SQS when it refuses: what only a service that is told to can show.

use std::{sync::Arc, time::Duration};

use eventferry::{
    cloud::{Clouds, Context},
    delivery::Token,
    fault::Verdict,
    sink::{Outgoing, Sink, SinkConfig},
    source::{Source, SourceConfig},
};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::{
    clouds::fake_sqs::{Answer, FakeSqs},
    rig,
};

fn context(service: &FakeSqs) -> Context {
    let clouds = Clouds { aws: service.settings(), ..Clouds::default() };
    Context { clouds, ..rig::context("orders", &rig::store()) }
}

async fn sink(service: &FakeSqs) -> Arc<dyn Sink> {
    let config: SinkConfig =
        serde_json::from_value(json!({ "sqs": { "queue": "queue" } })).unwrap();
    config.build(&context(service)).await.unwrap()
}

async fn source(service: &FakeSqs) -> Source {
    let config = json!({ "sqs": { "queue": "queue", "poll": { "wait": "1s" } } });
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    config.build(&context(service)).await.unwrap()
}

fn batch(sink: &dyn Sink, bodies: &[&str]) -> Vec<Outgoing> {
    let outgoing = |body: &&str| {
        let event = rig::event(body, body.to_string());
        Outgoing {
            route: "test".into(),
            packed: sink.pack(&event).unwrap(),
            event: Arc::new(event),
        }
    };
    bodies.iter().map(outgoing).collect()
}

fn verdicts(answers: &[Result<(), eventferry::fault::Fault>]) -> Vec<Option<Verdict>> {
    answers.iter().map(|answer| answer.as_ref().err().map(|fault| fault.verdict)).collect()
}

fn entries(input: &Json) -> Vec<&Json> {
    input["Entries"].as_array().unwrap().iter().collect()
}

/// Accepts all, but refuses any request that holds a bad body.
async fn refuses_whole_requests(_: String, input: Json) -> Answer {
    if entries(&input).iter().any(|entry| entry["MessageBody"] == "bad") {
        return Err("InvalidParameterValue");
    }
    let accepted =
        |entry: &Json| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" });
    let accepted: Vec<Json> = entries(&input).into_iter().map(accepted).collect();
    Ok(json!({ "Successful": accepted, "Failed": [] }))
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_takes_no_neighbours_along() {
    let service = FakeSqs::start(30, refuses_whole_requests).await;
    let sink = sink(&service).await;
    let answers = sink.send(&batch(sink.as_ref(), &["a", "bad", "b"])).await;
    assert_eq!(verdicts(&answers), [None, Some(Verdict::Retry { after: None }), None]);
    let text = answers[1].as_ref().unwrap_err().to_string();
    assert_eq!(text, "SendMessageBatch failed: queue: InvalidParameterValue: no");
    let sizes: Vec<_> =
        service.asked("SendMessageBatch").iter().map(|input| entries(input).len()).collect();
    assert_eq!(sizes, [3, 1, 1, 1]);
}

#[tokio::test]
async fn a_throttled_request_is_not_asked_again_by_the_connector() {
    let service = FakeSqs::start(30, |_, _| async { Err("RequestThrottled") }).await;
    let sink = sink(&service).await;
    let answers = sink.send(&batch(sink.as_ref(), &["a", "b"])).await;
    assert_eq!(verdicts(&answers), [Some(Verdict::Busy { after: None }); 2]);
    assert_eq!(service.asked("SendMessageBatch").len(), 1);
}

#[tokio::test]
async fn a_lease_that_sqs_did_not_extend_for_now_is_asked_for_again() {
    let service = FakeSqs::start(30, |_, input| async move {
        let code = |handle: &Json| match handle.as_str() {
            Some("busy") => Some("RequestThrottled"),
            Some("gone") => Some("ReceiptHandleIsInvalid"),
            _ => None,
        };
        let failed = |entry: &Json| {
            Some(json!({ "Id": entry["Id"], "SenderFault": true, "Code": code(&entry["ReceiptHandle"])? }))
        };
        let failed: Vec<Json> = entries(&input).into_iter().filter_map(failed).collect();
        Ok(json!({ "Successful": [], "Failed": failed }))
    })
    .await;
    let mut source = source(&service).await;
    let token = |handle: &str| Token::Lease { serial: 1, handle: handle.into() };
    let by = Duration::from_secs(30);
    let lost = source.settle.extend(&[token("held"), token("gone")], by).await.lost;
    assert_eq!(lost, [token("gone")]);
    let extended = source.settle.extend(&[token("held"), token("busy")], by).await;
    assert_eq!((extended.lost, extended.unknown), (vec![], vec![token("busy")]));
    let fault = extended.fault.unwrap();
    assert_eq!(fault.verdict, Verdict::Busy { after: None });
}

#[tokio::test]
async fn what_waited_past_its_lease_is_not_handed_out() {
    let (asked, late) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, held) = (asked.clone(), late.clone());
    let service = FakeSqs::start(5, move |_, input| {
        let (told, held) = (told.clone(), held.clone());
        async move {
            assert_eq!(input["VisibilityTimeout"], 5);
            told.notify_one();
            held.notified().await;
            let message = |id: &str| json!({ "MessageId": id, "ReceiptHandle": id, "Body": id });
            // The first poll is answered while nobody waits for it.
            held.notify_one();
            Ok(json!({ "Messages": [message("m")] }))
        }
    })
    .await;
    let mut source = source(&service).await;
    tokio::select! {
        received = source.receive.receive() => panic!("{received:?}"),
        () = asked.notified() => {}
    }
    late.notify_one();
    // Its lease runs out while the pipeline is full.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(source.receive.receive().await.unwrap().is_empty());
    let again = source.receive.receive().await.unwrap();
    assert_eq!(again.len(), 1);
    assert!(again[0].since.elapsed() < Duration::from_secs(5));
}
