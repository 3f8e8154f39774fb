use std::path::Path;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::{
    delivery::{Received, Token},
    event::{Event, Fitted},
    fault::Verdict,
    metadata::amqp_properties,
    transform,
};

/// A source that hands out these batches.
struct Batches(VecDeque<Vec<Delivery>>);

#[async_trait]
impl Receive for Batches {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        Ok(self.0.pop_front().unwrap_or_default())
    }
}

fn event(body: impl Into<Bytes>) -> Event {
    Event { body: body.into(), ..transform::tests::event() }
}

/// `event` with a reference in place of its body, which is stored.
async fn claimed(store: &Store, event: Event) -> Event {
    let reference = Reference::to_body_of(&event, store.root());
    store.put(&reference, &event.body).await.unwrap();
    referring(event, reference)
}

fn referring(whole: Event, reference: Reference) -> Event {
    let (body, media_type) = reference.write();
    let fitted = Some(Fitted::Claimed(Arc::new(whole.clone()), reference));
    Event { body, content_type: Some(media_type), fitted, ..whole }
}

fn delivery(event: &Event, key: &str) -> Delivery {
    let received = Received {
        attributes: amqp_properties(event).into_iter().collect(),
        message_id: Some(event.id.clone()),
        subject: event.subject.clone(),
        content_type: event.content_type.clone(),
        key: Some(key.into()),
        ..Received::bare(event.body.clone())
    };
    let token = Token::Lease { serial: 1, handle: "h".into() };
    Delivery { received: Arc::new(received), attempt: 1, token, since: Instant::now(), ties: None }
}

async fn open(directory: &Path) -> Arc<Store> {
    Arc::new(Store::directory(directory).await.unwrap())
}

fn resolving(store: &Arc<Store>, batches: Vec<Vec<Delivery>>) -> ResolvingReceive {
    ResolvingReceive::new(Box::new(Batches(batches.into())), store.clone(), Format::Auto)
}

fn decoded(delivery: &Delivery) -> Result<Event, String> {
    decode::decode(&delivery.received, Format::Auto).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_body_is_put_back_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let whole = event(vec![b'x'; 50_000]);
    let batch =
        vec![delivery(&event("small"), "k"), delivery(&claimed(&store, whole.clone()).await, "k")];
    let mut source = resolving(&store, vec![batch]);
    let received = source.receive().await.unwrap();
    assert_eq!(decoded(&received[0]).unwrap().body, "small");
    let arrived = decoded(&received[1]).unwrap();
    assert_eq!((&arrived.body, &arrived.content_type), (&whole.body, &whole.content_type));
    assert_eq!(arrived.fitted, None);
    assert!(received[1].received.bytes() > 50_000);
}

#[tokio::test]
async fn what_only_looks_like_a_reference_is_a_body() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let claimed = claimed(&store, event("secret")).await;
    let lookalike = event(claimed.body.clone());
    let mut source = resolving(&store, vec![vec![delivery(&lookalike, "k")]]);
    let received = source.receive().await.unwrap();
    assert_eq!(received[0].received.claimed, None);
    assert_eq!(decoded(&received[0]).unwrap().body, claimed.body);
}

#[tokio::test]
async fn what_cannot_be_had_is_undecodable_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("own")).await;
    let foreign = open(&directory.path().join("foreign")).await;
    let nowhere = event("never stored");
    let reference = Reference::to_body_of(&nowhere, store.root());
    let batch = vec![
        delivery(&referring(nowhere, reference), "k"),
        delivery(&claimed(&foreign, event("secret")).await, "k"),
        delivery(&event("small"), "k"),
    ];
    assert_eq!(
        decoded(&batch[0]).unwrap_err(),
        "its body is in an object store; name the store in `claim_check`"
    );
    let mut source = resolving(&store, vec![batch]);
    let received = source.receive().await.unwrap();
    let errors: Vec<_> = received.iter().map(|delivery| decoded(delivery).err()).collect();
    let expected = [
        "the object that it refers to is gone",
        "its reference leads out of the store of `claim_check`",
    ];
    assert_eq!(errors, [Some(expected[0].into()), Some(expected[1].into()), None]);
}

#[tokio::test]
async fn while_the_store_is_away_a_key_goes_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).await;
    let large = claimed(&store, event(vec![b'x'; 5000])).await;
    let batch = || {
        let small = event("small");
        let rest = ["a", "b", "a"].map(|key| delivery(&small, key));
        [vec![delivery(&small, "a"), delivery(&large, "a")], rest.to_vec()].concat()
    };
    std::fs::rename(&path, directory.path().join("away")).unwrap();
    std::fs::write(&path, "in its place").unwrap();
    let mut source = resolving(&store, vec![batch(), batch()]);
    let away = |received: &[Delivery]| -> Vec<bool> {
        received.iter().map(|it| it.received.claimed == Some(Claimed::Away)).collect()
    };
    let received = source.receive().await.unwrap();
    assert_eq!(away(&received), [false, true, true, false, true]);
    let fault = source.receive().await.unwrap_err();
    assert_eq!((fault.verdict, fault.class), (Verdict::Stop, "directory"));
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(directory.path().join("away"), &path).unwrap();
    let received = source.receive().await.unwrap();
    assert_eq!(away(&received), [false; 5]);
    assert_eq!(decoded(&received[1]).unwrap().body.len(), 5000);
}

#[tokio::test]
async fn bodies_are_fetched_in_portions() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let promised = |bytes| {
        let whole = event("x");
        let reference = Reference { bytes, ..Reference::to_body_of(&whole, store.root()) };
        delivery(&referring(whole, reference), "k")
    };
    let (half, most, more) = (BODY_MAX / 2, BODY_MAX, BODY_MAX + 1);
    let batch = vec![promised(half), promised(half), promised(most), promised(more), promised(1)];
    let mut source = resolving(&store, vec![batch]);
    let mut portions = Vec::new();
    for _ in 0..4 {
        portions.push(source.receive().await.unwrap().len());
    }
    assert_eq!(portions, [2, 1, 1, 1]);
}

#[tokio::test]
async fn a_dropped_call_loses_nothing_and_hands_nothing_out_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let large = claimed(&store, event(vec![b'x'; 5000])).await;
    let batch = vec![delivery(&large, "k"), delivery(&event("small"), "k")];
    let mut source = resolving(&store, vec![batch.clone(), batch]);
    // Nearly always dropped while it waits for the disk; a disk may also answer at once.
    let received = match source.receive().now_or_never() {
        None => source.receive().await,
        at_once => at_once.unwrap(),
    };
    let received = received.unwrap();
    assert_eq!(received.len(), 2);
    assert_eq!(decoded(&received[0]).unwrap().body.len(), 5000);
    let received = source.receive().now_or_never().map_or(0, |received| received.unwrap().len());
    assert_eq!(received + source.close().await.len(), 2);
}
