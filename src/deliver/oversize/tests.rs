use bytes::Bytes;

use super::*;
use crate::{
    metadata::fit::Fit,
    sink::{Limits, memory::MemorySink},
    source::memory::{Config, Queue},
    transform,
};

/// A sink that takes bodies of 1000 bytes at most, with the root of a store if there is one.
struct Small(MemorySink, Option<&'static str>);

#[async_trait::async_trait]
impl Sink for Small {
    fn limits(&self) -> Limits {
        Limits { event_bytes: 1000, ..self.0.limits() }
    }
    fn pack(&self, event: &Event) -> Result<crate::metadata::Packed, Fault> {
        self.0.pack(event)
    }
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        self.0.send(batch).await
    }
    fn claims_root(&self) -> Option<&str> {
        self.1
    }
    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn small(root: Option<&'static str>) -> Small {
    let config = serde_json::json!({ "queue": "small" });
    let queue = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    Small(MemorySink::new(queue), root)
}

fn event(body: impl Into<Bytes>) -> Arc<Event> {
    let content_type = Some("text/plain".into());
    Arc::new(Event { body: body.into(), content_type, ..transform::tests::event() })
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn fit(sink: &dyn Sink, event: &Arc<Event>, oversize: Oversize) -> Result<Outgoing, Fault> {
    super::fit(sink, &"route".into(), event, oversize)
}

#[test]
fn what_fits_is_left_alone() {
    for oversize in [Oversize::DeadLetter, Oversize::Compress, Oversize::ClaimCheck] {
        let event = event(vec![b'x'; 1000]);
        let outgoing = fit(&small(Some("s3://b")), &event, oversize).unwrap();
        assert_eq!((&outgoing.packed.body, outgoing.event), (&event.body, event.clone()));
    }
}

#[test]
fn what_is_too_large_is_refused_by_its_size() {
    let fault = fit(&small(None), &event(vec![b'x'; 1001]), Oversize::DeadLetter).unwrap_err();
    assert_eq!(fault.class, "too_large");
    assert_eq!(fault.to_string(), "pack failed: 1001 bytes as packed, 1000 is the limit");
}

#[test]
fn a_body_is_compressed_where_that_is_enough() {
    let whole = event(vec![b'x'; 100_000]);
    let outgoing = fit(&small(None), &whole, Oversize::Compress).unwrap();
    let fitted = outgoing.event.fitted.as_ref().unwrap();
    assert_eq!((fitted.how(), fitted.whole()), (Fit::Zstd, &whole));
    assert_eq!(outgoing.event.content_type, whole.content_type);
    assert!(outgoing.packed.bytes < 100);
    let fault = fit(&small(None), &event(noise(5000)), Oversize::Compress).unwrap_err();
    let text = fault.to_string();
    assert!(text.starts_with("pack failed: 5000 bytes as packed, 50"), "{text}");
    assert!(text.ends_with(" compressed, 1000 is the limit"), "{text}");
}

#[test]
fn a_reference_takes_the_place_of_a_body() {
    let whole = event(noise(5000));
    let outgoing = fit(&small(Some("s3://b/claims")), &whole, Oversize::ClaimCheck).unwrap();
    let Some(Fitted::Claimed(found, reference)) = &outgoing.event.fitted else { panic!() };
    assert_eq!(found, &whole);
    assert!(reference.url.starts_with("s3://b/claims/"), "{}", reference.url);
    assert_eq!(Reference::read(&outgoing.packed.body).as_ref(), Ok(reference));
    assert_eq!(outgoing.event.content_type.as_deref(), Some("application/json"));
    let fault = fit(&small(None), &whole, Oversize::ClaimCheck).unwrap_err();
    assert_eq!(fault.class, "too_large");
}

#[test]
fn what_was_made_to_fit_one_sink_is_judged_anew_by_another() {
    let whole = event(vec![b'x'; 5000]);
    let first = fit(&small(Some("s3://b")), &whole, Oversize::ClaimCheck).unwrap();
    let second = fit(&small(None), &first.event, Oversize::Compress).unwrap();
    assert_eq!(second.event.fitted, Some(Fitted::Compressed(whole.clone())));
    let large = small(None).0;
    assert_eq!(fit(&large, &first.event, Oversize::DeadLetter).unwrap().event, whole);
}
