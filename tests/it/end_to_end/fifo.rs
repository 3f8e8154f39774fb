//! What FIFO queues take for repeats: an event that a route sends again, and nothing else.

use eventferry::event::Event;

use super::{Ferry, arrivals, parked_by, plan, redrive};
use crate::{clouds::shared, place::place, rig};

const ROUTES: &str = r#"
routes:
  - { name: whole, from: shop, to: { all: [fifo] } }
  - { name: short, from: shop, transform: [{ remove: [data.lines] }], to: { all: [fifo] } }
"#;

fn order() -> Event {
    Event { key: Some("k".into()), ..rig::event("order", r#"{"lines":[1],"n":1}"#) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_routes_make_of_an_event_arrives_and_what_one_sends_again_does_not() {
    let _shared = shared().await;
    let (shop, fifo, straight, parked) =
        (place("sqs").await, place("sqs.fifo").await, place("sqs.fifo").await, place("sqs").await);
    let sources = [("shop", &shop)];
    let sinks = [("fifo", &fifo), ("parked", &parked)];
    let ferry = Ferry::run(&sources, &sinks, ROUTES).await;
    shop.put(vec![order()]).await;
    let arrived = arrivals(&[("fifo", &fifo)], 2).await;
    ferry.end().await;
    let mut bodies: Vec<_> = arrived.iter().map(|arrival| arrival.event.body.clone()).collect();
    bodies.sort();
    assert_eq!(bodies, [r#"{"lines":[1],"n":1}"#, r#"{"n":1}"#]);

    // As if the answer of the sink had been lost, the routes had given up, and somebody has sent
    // again what they have parked.
    let again = async |to: Option<&str>| {
        parked.put(["whole", "short"].map(|route| parked_by(route, order())).into()).await;
        let sinks = [("fifo", &fifo), ("straight", &straight), ("parked", &parked)];
        let summary = redrive(plan(&sources, &sinks, ROUTES).await, to).await;
        assert_eq!((summary.meant, summary.redriven, summary.left()), (2, 2, 0));
    };
    again(None).await;
    assert!(arrivals(&[("fifo", &fifo)], 0).await.is_empty(), "it has them");
    // A sink that has seen neither keeps what each of the routes had given up.
    for count in [2, 0] {
        again(Some("straight")).await;
        assert_eq!(arrivals(&[("straight", &straight)], count).await.len(), count);
    }
}
