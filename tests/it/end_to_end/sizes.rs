//! What is too large for its sink, from a hub into a Storage Queue and on to a hub: compressed,
//! stored and found again, or parked.

use std::collections::BTreeMap;

use eventferry::event::Event;

use super::{Arrival, Ferry, arrivals};
use crate::{
    clouds::{azurite, shared, unique},
    place::place,
    rig::event,
};

/// More than a Storage Queue holds, and a tenth of that once it is compressed.
fn text() -> String {
    "all work and no play ".repeat(10_000)
}

/// What nothing compresses, from bytes that look like chance.
fn noise() -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..200_000).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_compressed_stored_or_parked() {
    let _shared = shared().await;
    let (lake, small, far, parked) = (
        place("event_hubs").await,
        place("storage_queue").await,
        place("event_hubs").await,
        place("event_hubs").await,
    );
    let container = unique("claims");
    azurite::container(&container).await;
    let ferry = Ferry::run(
        &[("lake", &lake), ("small", &small)],
        &[("small", &small), ("far", &far), ("parked", &parked)],
        &format!(
            r"
claim_check: {{ store: {{ blob: {{ container: {container}, prefix: ferry }} }} }}
routes:
  - {{ name: parks, from: lake, when: {{ type: [dead_letter] }}, to: {{ all: [small] }} }}
  - {{ name: compresses, from: lake, when: {{ type: [compress] }}, to: {{ all: [small] }}, oversize: compress }}
  - {{ name: claims, from: lake, when: {{ type: [claim_check] }}, to: {{ all: [small] }}, oversize: claim_check }}
  - {{ name: back, from: small, to: {{ all: [far] }} }}
"
        ),
    )
    .await;
    let (fits, large) = (b"fits".to_vec(), text().into_bytes());
    let cases = [
        ("dead_letter", &fits, "far"),
        ("dead_letter", &large, "parked: too_large"),
        ("compress", &fits, "far"),
        ("compress", &large, "far"),
        ("compress", &noise(), "parked: too_large"),
        ("claim_check", &fits, "far"),
        ("claim_check", &large, "far"),
        ("claim_check", &noise(), "far"),
    ];
    let of = |(number, (kind, body, _)): (usize, &(&str, &Vec<u8>, _))| Event {
        kind: Some((*kind).into()),
        content_type: Some("text/plain".into()),
        ..event(&number.to_string(), (*body).clone())
    };
    lake.put(cases.iter().enumerate().map(of).collect()).await;
    let arrived = arrivals(&[("far", &far), ("parked", &parked)], cases.len()).await;
    ferry.end().await;
    let arrived: BTreeMap<_, _> = arrived.iter().map(|one| (&*one.event.id, one)).collect();
    assert_eq!(arrived.len(), cases.len());
    for (number, (kind, body, at)) in cases.into_iter().enumerate() {
        let arrival: &Arrival = arrived[&*number.to_string()];
        assert_eq!(arrival.told(), format!("{number} at {at}"), "{kind}");
        assert!(arrival.event.body == *body, "{kind} {number}: another body has come");
        assert_eq!(arrival.event.content_type.as_deref(), Some("text/plain"), "{kind}");
    }
}
