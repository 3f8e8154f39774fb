//! Two daemons that are each other's source and sink.

use super::{Ferry, arrivals};
use crate::{clouds::shared, place::place, rig::event};

/// It ends where its hops do, in a dead-letter sink.
pub async fn two_bridges_that_point_at_each_other_do_not_carry_an_event_for_ever() {
    let _shared = shared().await;
    let (queue, azure, parked) =
        (place("sqs").await, place("storage_queue").await, place("event_hubs").await);
    let [there, back] = [("queue", &queue, "azure", &azure), ("azure", &azure, "queue", &queue)];
    let bridge = async |(from, source, to, sink)| {
        let rest = format!("routes: [{{ name: bridge, from: {from}, to: {{ all: [{to}] }} }}]\n");
        Ferry::run(&[(from, source)], &[(to, sink), ("parked", &parked)], &rest).await
    };
    let bridges = [bridge(there).await, bridge(back).await];
    queue.put(vec![event("round", r#"{"n":1}"#)]).await;
    let arrived = arrivals(&[("parked", &parked)], 1).await;
    for bridge in bridges {
        bridge.end().await;
    }
    let [looped] = arrived.as_slice() else { panic!("{} events are parked", arrived.len()) };
    assert_eq!(looped.told(), "round at parked: loop");
    assert_eq!(looped.event.body, r#"{"n":1}"#);
    let error = &looped.event.dead_letter.as_ref().unwrap().error;
    assert!(error.contains("it has passed 4 relays, and `hops_max` is 4"), "{error}");
    let left = arrivals(&[("queue", &queue), ("azure", &azure)], 0).await;
    assert!(left.is_empty(), "{} events are still on their way", left.len());
}
