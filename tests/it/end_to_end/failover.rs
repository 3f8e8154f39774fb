//! Sinks that stand in for one another, one of which is not there when the daemon starts.

use serde_json::json;
use tokio::time::Instant;

use super::{Arrival, Ferry, arrivals, parked_by, plan, redrive};
use crate::{
    clouds::{localstack, shared},
    place::place,
    rig::{PATIENCE, event},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_not_there_at_the_start_takes_over_once_it_is() {
    let _shared = shared().await;
    let (shop, mut first, second, parked) =
        (place("sqs").await, place("sqs").await, place("sqs").await, place("sqs").await);
    let (aws, cord) = localstack::on_a_cord().await;
    first.sink["sqs"]["aws"] = json!(aws);
    cord.part();
    let sinks = [("first", &first), ("second", &second), ("parked", &parked)];
    // A poll of the queue of dead letters that is given up may still take one.
    let read = &sinks[..2];
    let routes = "routes: [{ name: over, from: shop, to: { any: [first, second] } }]\n";
    let ferry = Ferry::run(&[("shop", &shop)], &sinks, routes).await;
    cord.refused(1).await;
    let carry = async |id: &str| {
        shop.put(vec![event(id, "{}")]).await;
        arrivals(read, 1).await.iter().map(Arrival::told).collect::<Vec<_>>()
    };
    assert_eq!(carry("early").await, ["early at second"]);
    cord.mend();
    let until = Instant::now() + 2 * PATIENCE;
    // It is asked for again with a growing pause.
    while carry("later").await != ["later at first"] {
        assert!(Instant::now() < until, "the first sink takes nothing");
    }
    assert_eq!(carry("last").await, ["last at first"]);
    ferry.end().await;

    // A redrive needs no more than one of them, either.
    cord.part();
    parked.put(vec![parked_by("over", event("again", "{}"))]).await;
    let summary = redrive(plan(&[("shop", &shop)], &sinks, routes).await, None).await;
    assert_eq!((summary.redriven, summary.left()), (1, 0), "{summary:?}");
    let arrived = arrivals(read, 1).await;
    assert_eq!(arrived.iter().map(Arrival::told).collect::<Vec<_>>(), ["again at second"]);
}
