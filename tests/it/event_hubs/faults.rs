//! What goes wrong between a connector and its hub, over each of the clients.

use super::*;

/// Makes tests of each, over both clients.
macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        over!(own, $($test),+);
        #[cfg(feature = "eventhubs-sdk")]
        over!(sdk, $($test),+);
    };
}

macro_rules! over {
    ($client:ident, $($test:ident),+) => {
        mod $client {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(stringify!($client)).await;
                }
            )+
        }
    };
}

over_both!(
    a_lost_connection_resumes_after_the_last_event,
    a_lost_link_resumes_after_the_last_event,
    a_frozen_peer_holds_no_batch_for_ever,
    a_batch_without_an_answer_may_be_stored,
    a_lost_connection_loses_no_batch,
);

/// Events of partition 0 that come next, by their numbers, with all troubles on the way.
async fn numbers(source: &mut Source, count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = Vec::new();
    let all = async {
        while numbers.len() < count {
            // All partitions may be down at once.
            let Ok(found) = source.receive.receive().await else { continue };
            numbers.extend(bodies(&found).iter().map(|body| body.parse::<u32>().unwrap()));
            deliver(source, found).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("events are missing");
    numbers
}

async fn resumes(client: &'static str, kind: Kind) {
    let hub = fixture(client);
    hub.append("0", 0..5);
    let mut source = hub.source(&store()).await;
    assert_eq!(numbers(&mut source, 5).await, [0, 1, 2, 3, 4]);
    for round in 1..3 {
        if kind == Kind::Rst {
            hub.trouble(Some(LinkKind::Recv), &kind);
        } else {
            let links = Scope::link(LinkKind::Recv);
            hub.emulator.control().arm(Trouble::new(kind.clone()).within(links).times(4));
        }
        hub.append("0", round * 5..round * 5 + 5);
        let next: Vec<u32> = (round * 5..round * 5 + 5).collect();
        assert_eq!(numbers(&mut source, 5).await, next, "round {round}");
    }
    let text = String::from_utf8(hub.metrics.render()).unwrap();
    let reopened = |line: &str| line.starts_with("eventferry_receiver_reopened_total{class=");
    assert!(text.lines().any(reopened), "{text}");
}

async fn a_lost_connection_resumes_after_the_last_event(client: &'static str) {
    resumes(client, Kind::Rst).await;
}

async fn a_lost_link_resumes_after_the_last_event(client: &'static str) {
    let condition = eventhubs::condition::LINK_DETACH_FORCED.to_owned();
    resumes(client, Kind::Detach { condition, closed: true }).await;
}

/// The daemon's own client is tested for this in its crate, where its patience can be set.
#[cfg(feature = "eventhubs-sdk")]
#[tokio::test]
async fn a_frozen_peer_is_noticed_though_the_sdk_does_not() {
    let hub = fixture("sdk");
    hub.append("0", 0..5);
    let mut source = hub.source(&store()).await;
    assert_eq!(numbers(&mut source, 5).await, [0, 1, 2, 3, 4]);
    hub.trouble(Some(LinkKind::Recv), &Kind::Freeze);
    hub.append("0", 5..10);
    assert_eq!(numbers(&mut source, 5).await, [5, 6, 7, 8, 9]);
}

async fn a_frozen_peer_holds_no_batch_for_ever(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "2", "timeout": "1s" })).await;
    hub.trouble(None, &Kind::Freeze);
    let batch = outgoing(sink.as_ref(), 3, 0);
    let answers = sink.send(&batch).await;
    assert!(answers.iter().all(Result::is_err));
    sends(sink.as_ref(), &batch).await;
    assert!(hub.stored("2") >= 3);
}

async fn a_batch_without_an_answer_may_be_stored(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "2", "timeout": "1s" })).await;
    let links = Scope::link(LinkKind::Send);
    hub.emulator.control().arm(Trouble::new(Kind::NoDisposition).within(links));
    let batch = outgoing(sink.as_ref(), 3, 0);
    for answer in sink.send(&batch).await {
        let fault = answer.unwrap_err();
        assert_eq!(fault.class, "ambiguous", "{fault}");
        assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}");
    }
    sends(sink.as_ref(), &batch).await;
    assert_eq!(hub.stored("2"), 6, "the first three are stored as well");
}

async fn a_lost_connection_loses_no_batch(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "2", "timeout": "2s" })).await;
    let batch = outgoing(sink.as_ref(), 3, 0);
    sends(sink.as_ref(), &batch).await;
    let links = Scope::link(LinkKind::Send);
    hub.emulator.control().arm(Trouble::new(Kind::DropAfterAppend).within(links));
    sends(sink.as_ref(), &batch).await;
    hub.cut().await;
    sends(sink.as_ref(), &batch).await;
    assert!(hub.stored("2") >= 9, "{}", hub.stored("2"));
}

/// Sends until all are taken, as the daemon would.
async fn sends(sink: &dyn Sink, batch: &[Outgoing]) {
    let taken = async {
        loop {
            let answers = sink.send(batch).await;
            let faults: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
            let Some(fault) = faults.first() else { return };
            assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}");
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the batch is never taken");
}
