//! What FIFO queues take for repeats: an event that a route sends again, and nothing else.

use std::sync::Arc;

use eventferry::{
    dead_letter::DeadLetter,
    event::Event,
    redrive::{self, Request, Task, filter::Filter, reading::Via},
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{Ferry, arrivals, plan};
use crate::{clouds::shared, place::place, rig};

const ROUTES: &str = r#"
routes:
  - { name: whole, from: shop, to: { all: [fifo] } }
  - { name: short, from: shop, transform: [{ remove: [data.lines] }], to: { all: [fifo] } }
"#;

fn order() -> Event {
    Event { key: Some("k".into()), ..rig::event("order", r#"{"lines":[1],"n":1}"#) }
}

/// The same, as a route has parked it.
fn parked_by(route: &str) -> Event {
    let now = OffsetDateTime::now_utc();
    let record = DeadLetter {
        route: Some(route.into()),
        sink: Some("fifo".into()),
        class: "refused".into(),
        error: "no".into(),
        attempts: 1,
        received: 1,
        source: "shop".into(),
        resource: "aws:sqs:shop".into(),
        position: route.into(),
        hops: 0,
        made: false,
        arrived: now,
        first: now,
        last: now,
        redriven: 0,
        run: None,
    };
    Event { dead_letter: Some(Arc::new(record)), ..order() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_routes_make_of_an_event_arrives_and_what_one_sends_again_does_not() {
    let _shared = shared().await;
    let (shop, fifo, straight, parked) = (
        place("sqs").await,
        place("sqs.fifo").await,
        place("sqs.fifo").await,
        place("sqs").await,
    );
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
    let routes = ["whole", "short"].map(parked_by);
    let redrive = async |to: Option<&str>| {
        parked.put(routes.to_vec()).await;
        let sinks = [("fifo", &fifo), ("straight", &straight), ("parked", &parked)];
        let request = Request {
            plan: plan(&sources, &sinks, ROUTES).await,
            sinks: Vec::new(),
            via: Via::default(),
            filter: Filter::default(),
            max: None,
            rate: None,
            task: Task::Redrive { to: to.map(str::to_owned), without_dedup: false },
            dry_run: false,
        };
        let summary = redrive::run(request, CancellationToken::new(), &mut |_| {}).await.unwrap();
        assert_eq!((summary.meant, summary.redriven, summary.left()), (2, 2, 0));
    };
    redrive(None).await;
    assert!(arrivals(&[("fifo", &fifo)], 0).await.is_empty(), "it has them");
    // A sink that has seen neither keeps what each of the routes had given up.
    for count in [2, 0] {
        redrive(Some("straight")).await;
        assert_eq!(arrivals(&[("straight", &straight)], count).await.len(), count);
    }
}
