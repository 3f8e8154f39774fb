//! Storage Queues against Azurite: the contract, and what only they do.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_storage_queue::{
    QueueClient,
    models::{QueueClientGetPropertiesResultHeaders as _, QueueMessage},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::{
    cloud::{Clouds, Context, azure},
    decode::{Format, decode},
    delivery::{Outcome, Settled},
    fault::Verdict,
    sink::{Outgoing, Sink, SinkConfig},
    source::{Source, SourceConfig},
    state::StateStore,
};
use serde_json::{Value as Json, json};
use tokio::{sync::RwLockReadGuard, time::Instant};

use crate::{
    clouds::{
        azurite::{self, azurite},
        cord::Cord,
        shared, unique,
    },
    fixture::{Fixture, put, receive, receives_nothing},
    rig,
};

/// Twice what a machine under load takes to extend a lease.
const VISIBILITY: Duration = Duration::from_secs(6);

/// A queue of its own for one test.
pub struct Place {
    azure: azure::Config,
    queue: String,
    source: Json,
    sink: Json,
    cord: Cord,
    _shared: RwLockReadGuard<'static, ()>,
}

pub async fn queue() -> Place {
    let queue = unique("queue");
    let _shared = shared().await;
    azurite::queue(&queue).await;
    let (azurite, cord) = azurite().await.on_a_cord().await;
    Place {
        azure: azurite.by_key(),
        source: json!({ "queue": queue, "visibility": "6s" }),
        sink: json!({ "queue": queue }),
        queue,
        cord,
        _shared,
    }
}

impl Place {
    fn with(mut self, source: Json, sink: Json) -> Self {
        for (settings, more) in [(&mut self.source, source), (&mut self.sink, sink)] {
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        self
    }

    fn context(&self, state: &Arc<dyn StateStore>) -> Context {
        let clouds = Clouds { azure: self.azure.clone(), ..Clouds::default() };
        Context { clouds, ..rig::context("azure", state) }
    }

    /// The official SDK with a signature of its own, as a foreign program.
    async fn foreign(&self) -> QueueClient {
        azurite::queue(&self.queue).await
    }

    async fn put_text(&self, text: &str) {
        let message = QueueMessage { message_text: Some(text.to_owned()) };
        self.foreign().await.send_message(message.try_into().unwrap(), None).await.unwrap();
    }

    async fn peek_text(&self) -> String {
        let peeked = self.foreign().await.peek_messages(None).await.unwrap().into_model().unwrap();
        peeked.items.unwrap().remove(0).message_text.unwrap()
    }
}

#[async_trait]
impl Fixture for Place {
    async fn source(&self, store: &Arc<dyn StateStore>) -> Source {
        let config = json!({ "storage_queue": self.source });
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        config.build(&self.context(store)).await.unwrap()
    }
    async fn sink(&self) -> Arc<dyn Sink> {
        let config = json!({ "storage_queue": self.sink });
        let config: SinkConfig = serde_json::from_value(config).unwrap();
        config.build(&self.context(&rig::store())).await.unwrap()
    }
    fn visibility(&self) -> Option<Duration> {
        Some(VISIBILITY)
    }
    fn body_max(&self) -> usize {
        // Base64 in the envelope, and base64 around it.
        36_000
    }
    fn ordered(&self) -> bool {
        false
    }
    async fn left(&self, _: &Arc<dyn StateStore>) -> usize {
        let told = self.foreign().await.get_properties(None).await.unwrap();
        let count = told.approximate_messages_count().unwrap().unwrap();
        usize::try_from(count).unwrap()
    }
    async fn cut(&self) {
        self.cord.cut();
    }
}

mod contract {
    use super::queue as fixture;
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, returns_after_the_delay,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        survives_reconnect, drains_on_stop, loses_nothing_when_killed,
    );
}

async fn settle(source: &mut Source, deliveries: &[eventferry::delivery::Delivery]) {
    let outcome = Outcome::Delivered;
    let done = deliveries.iter().map(|d| Settled { token: d.token.clone(), outcome }).collect();
    let failed = source.settle.settle(done).await;
    assert!(failed.is_empty(), "{failed:?}");
}

async fn send(sink: &dyn Sink, body: impl Into<Bytes>) -> Result<(), eventferry::fault::Fault> {
    let event = rig::event("e", body);
    let packed = sink.pack(&event)?;
    assert!(packed.bytes <= sink.limits().event_bytes, "{} bytes", packed.bytes);
    sink.send(&[Outgoing { route: "test".into(), event: Arc::new(event), packed }]).await.remove(0)
}

#[tokio::test]
async fn base64_and_text_of_a_foreign_producer_are_both_understood() {
    let place = queue().await;
    let texts = [r#"{"a":1}"#, "plain <text> & more", "grüße, 世界", "12345678", " spaced\t\n"];
    for text in texts {
        place.put_text(text).await;
        place.put_text(&BASE64.encode(text)).await;
    }
    let mut source = place.source(&rig::store()).await;
    let mut bodies: Vec<_> = receive(&mut source, texts.len() * 2).await;
    bodies.sort_by_key(|delivery| delivery.received.body.clone());
    let mut bodies: Vec<_> = bodies.iter().map(|d| d.received.body.clone()).collect();
    for text in texts {
        let before = bodies.len();
        bodies.retain(|body| *body != text);
        assert_eq!(before - bodies.len(), 2, "{text:?}: {bodies:?}");
    }
}

#[tokio::test]
async fn a_raw_body_arrives_byte_for_byte() {
    let encodings = json!({ "encoding": "base64" });
    let place = queue().await.with(encodings, json!({ "format": "raw" }));
    let sink = place.sink().await;
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"x"),
        Bytes::from_static(&[0, 255, 254]),
        Bytes::from(vec![7; 48 << 10]),
    ];
    for body in &bodies {
        send(&*sink, body.clone()).await.unwrap();
    }
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, bodies.len()).await;
    for body in &bodies {
        assert!(deliveries.iter().any(|d| d.received.body == body), "{} bytes", body.len());
    }
}

#[tokio::test]
async fn text_stands_in_the_queue_as_it_is() {
    let place = queue().await.with(json!({}), json!({ "format": "raw", "encoding": "text" }));
    let sink = place.sink().await;
    send(&*sink, "<a> & \"b\"\nc").await.unwrap();
    assert_eq!(place.peek_text().await, "<a> & \"b\"\nc");
    let fault = send(&*sink, &b"\xff"[..]).await.unwrap_err();
    assert_eq!(fault.verdict, Verdict::Reject);
    let text = vec![b'a'; 64 << 10];
    send(&*sink, text).await.unwrap();
}

#[tokio::test]
async fn size_is_counted_after_encoding() {
    let place = queue().await.with(json!({}), json!({ "format": "raw" }));
    let sink = place.sink().await;
    let limit = sink.limits().event_bytes;
    let packed = |bytes: usize| sink.pack(&rig::event("e", vec![0; bytes])).unwrap().bytes;
    assert_eq!(packed(48 << 10), limit);
    assert!(packed((48 << 10) + 1) > limit);
}

#[tokio::test]
async fn a_message_never_expires_unless_asked() {
    for (sink, forever) in [(json!({}), true), (json!({ "ttl": "1h" }), false)] {
        let place = queue().await.with(json!({}), sink);
        put(&place, rig::events("e", 1, 0)).await;
        let foreign = place.foreign().await;
        let peeked = foreign.peek_messages(None).await.unwrap().into_model().unwrap();
        let expires = peeked.items.unwrap()[0].expiration_time.unwrap();
        let soon = time::OffsetDateTime::now_utc() + time::Duration::hours(2);
        assert_eq!(expires.year() == 9999, forever, "{expires}");
        assert_eq!(expires < soon, !forever, "{expires}");
    }
}

#[tokio::test]
async fn an_extended_message_is_deleted_with_its_new_receipt() {
    let place = queue().await;
    put(&place, rig::events("e", 40, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 40).await;
    let tokens: Vec<_> = deliveries.iter().map(|d| d.token.clone()).collect();
    for _ in 0..2 {
        let lost = source.settle.extend(&tokens, VISIBILITY).await.lost;
        assert!(lost.is_empty(), "{lost:?}");
    }
    settle(&mut source, &deliveries).await;
    let left = source.settle.backlog().await.unwrap();
    assert_eq!((left[0].events, left[0].oldest), (0, None));
    put(&place, rig::events("waits", 1, 0)).await;
    let left = source.settle.backlog().await.unwrap();
    let age = time::OffsetDateTime::now_utc() - left[0].oldest.unwrap();
    assert!(left[0].events == 1 && age < time::Duration::minutes(5), "{age}");
}

#[tokio::test]
async fn an_extension_says_which_leases_are_lost() {
    let place = queue().await;
    put(&place, rig::events("e", 2, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 2).await;
    settle(&mut source, &deliveries[..1]).await;
    let tokens: Vec<_> = deliveries.iter().map(|d| d.token.clone()).collect();
    let lost = source.settle.extend(&tokens, VISIBILITY).await.lost;
    assert_eq!(lost, tokens[..1]);
}

#[tokio::test]
async fn deleting_what_is_gone_counts_as_done() {
    let place = queue().await;
    put(&place, rig::events("e", 1, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 1).await;
    settle(&mut source, &deliveries).await;
    settle(&mut source, &deliveries).await;
    // Another consumer's by now: its receipt counts, ours does not.
    put(&place, rig::events("f", 1, 0)).await;
    let ours = receive(&mut source, 1).await;
    let theirs = receive(&mut source, 1).await;
    settle(&mut source, &ours).await;
    settle(&mut source, &theirs).await;
    receives_nothing(&mut source, VISIBILITY + Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_full_queue_is_read_by_several_gets() {
    let place = queue().await;
    put(&place, rig::events("e", 500, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let began = Instant::now();
    let mut largest = 0;
    let mut count = 0;
    while count < 500 {
        let deliveries = source.receive.receive().await.unwrap();
        largest = largest.max(deliveries.len());
        count += deliveries.len();
        settle(&mut source, &deliveries).await;
    }
    assert!(largest > 32, "never more than {largest} at once, {:?}", began.elapsed());
}

#[tokio::test]
async fn a_signature_does_as_well_as_a_key() {
    let mut place = queue().await;
    place.azure = azurite().await.by_signature();
    put(&place, rig::events("e", 3, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 3).await;
    let shown = &*decode(&deliveries[0].received, Format::Raw).unwrap().source;
    assert!(shown.ends_with(&place.queue), "no signature in {shown}");
    settle(&mut source, &deliveries).await;
}

#[tokio::test]
async fn what_is_missing_or_denied_is_named_with_what_to_do() {
    let mut place = queue().await;
    place.azure = azurite().await.by("AccountName=devstoreaccount1;AccountKey=d3Jvbmc=");
    let build = |place: &Place| {
        let config = json!({ "storage_queue": place.sink });
        let (config, context) =
            (serde_json::from_value::<SinkConfig>(config).unwrap(), place.context(&rig::store()));
        async move { config.build(&context).await.err().unwrap() }
    };
    let fault = build(&place).await;
    assert_eq!((fault.verdict, fault.class), (Verdict::Stop, "denied"), "{fault}");
    place.azure = azurite::settings().await;
    place.sink["queue"] = "no-such-queue".into();
    let fault = build(&place).await;
    assert_eq!((fault.verdict, fault.class), (Verdict::Stop, "not_found"));
    let url = format!("{}/no-such-queue", azurite().await.queues);
    let text = format!(
        "GetQueueMetadata failed: {url}: 404 QueueNotFound; create it, or mend its name or the account"
    );
    assert_eq!(fault.to_string(), text);
    place.azure.queue_endpoint = Some("http://127.0.0.1:1/devstoreaccount1".into());
    let fault = build(&place).await;
    assert_eq!(fault.verdict, Verdict::Busy { after: None }, "{fault}");
    assert!(fault.to_string().contains("Connection refused"), "{fault}");
}
