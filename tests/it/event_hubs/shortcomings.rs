//! What the official SDK does not hold however it is watched. Each wish here fails, and shall fail
//! in the way that is written down; the day one comes true, its test does not pass any more: then it
//! goes among those of both clients, and its line out of `docs/connectors/event_hubs.md`.

use std::panic::AssertUnwindSafe;

use eventferry::event::{Attributes, Event, Value};
use futures::FutureExt;

use super::*;
use crate::rig::event;

/// Expects that a wish does not come true, because of this.
async fn not_yet(upstream: &str, symptom: &str, wish: impl Future<Output = ()>) {
    let Err(panic) = AssertUnwindSafe(wish).catch_unwind().await else {
        panic!("the SDK holds now what it did not: see whether {upstream} is done");
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    let text = text.unwrap_or_default();
    assert!(text.contains(symptom), "{upstream} shows itself in another way: {text}");
}

const PULL: &str = "https://github.com/Azure/azure-sdk-for-rust/pull";
const ISSUE: &str = "https://github.com/Azure/azure-sdk-for-rust/issues";

/// Only the SDK's producer with a buffer of its own, of 0.16, tells.
#[tokio::test]
async fn what_the_service_gives_back_is_not_taken_for_stored() {
    for kind in [Kind::Released, Kind::Modified] {
        not_yet(&format!("{PULL}/4873"), "given back, and taken for stored", async {
            let hub = fixture("sdk");
            let sink = hub.sink_with(json!({ "partition": "2" })).await;
            let links = Scope::link(LinkKind::Send);
            hub.emulator.control().arm(Trouble::new(kind).within(links));
            let answers = sink.send(&outgoing(sink.as_ref(), 3, 0)).await;
            assert_eq!(hub.stored("2"), 0, "the emulator has kept them");
            assert!(answers.iter().all(Result::is_err), "given back, and taken for stored");
        })
        .await;
    }
}

#[tokio::test]
async fn an_epoch_reaches_the_service() {
    not_yet(&format!("{PULL}/4805"), "a receiver without an epoch", async {
        let hub = fixture("sdk");
        hub.append("0", 0..1);
        let mut source = hub.source(&store()).await;
        receive(&mut source, 1).await;
        let links = hub.emulator.control().state().links;
        let receivers: Vec<_> =
            links.iter().filter(|link| link.kind == Some(LinkKind::Recv)).collect();
        assert!(!receivers.is_empty());
        let all = receivers.iter().all(|link| link.epoch == Some(0));
        assert!(all, "a receiver without an epoch");
    })
    .await;
}

/// Where no store is shared, the service decides who reads.
#[tokio::test]
async fn of_two_readers_the_older_one_stops() {
    not_yet(&format!("{ISSUE}/4821"), "both have read it", async {
        let hub = fixture("sdk");
        hub.append("0", 0..1);
        let (mut older, mut newer) = (hub.source(&store()).await, hub.source(&store()).await);
        receive(&mut older, 1).await;
        receive(&mut newer, 1).await;
        hub.append("0", 1..2);
        receive(&mut newer, 1).await;
        let found = tokio::time::timeout(Duration::from_secs(30), receive(&mut older, 1)).await;
        assert!(found.is_err(), "both have read it");
    })
    .await;
}

/// One lock a partition, which is held until the service has answered; 0.16 shares the connection
/// without one, and has that one yet.
#[tokio::test]
async fn a_batch_need_not_wait_for_the_answer_to_another() {
    not_yet(&format!("{ISSUE}/2243"), "it has waited for the one before it", async {
        let hub = fixture("sdk");
        let sink = hub.sink_with(json!({ "partition": "2", "timeout": "3s" })).await;
        sink.send(&outgoing(sink.as_ref(), 1, 0)).await.remove(0).unwrap();
        let links = Scope::link(LinkKind::Send);
        hub.emulator.control().arm(Trouble::new(Kind::NoDisposition).within(links));
        let (one, other) = (outgoing(sink.as_ref(), 1, 0), outgoing(sink.as_ref(), 1, 0));
        let first = sink.send(&one);
        let second = async {
            while hub.stored("2") < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sink.send(&other).await
        };
        tokio::select! {
            biased;
            answers = second => answers.into_iter().for_each(|answer| answer.unwrap()),
            _ = first => panic!("it has waited for the one before it"),
        }
    })
    .await;
}

/// The SDK's conversion of such a time, of the pull request named, panics; so it is refused before.
/// Nobody has complained yet.
#[tokio::test]
async fn a_time_before_1970_is_carried() {
    not_yet(&format!("{PULL}/1892"), "the SDK cannot write a time", async {
        let hub = fixture("sdk");
        let sink = hub.sink().await;
        let mut attributes = Attributes::default();
        attributes.set("born", Value::Timestamp(-1));
        let event = Event { attributes, ..event("early", "x") };
        let packed = sink.pack(&event).unwrap();
        let answers =
            sink.send(&[Outgoing { event: Arc::new(event), packed, route: "over".into() }]).await;
        answers.into_iter().for_each(|answer| answer.unwrap());
    })
    .await;
}
