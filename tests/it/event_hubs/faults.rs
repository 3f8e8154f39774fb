//! What goes wrong between a connector and its hub, over each of the clients.

use eventferry::event::Event;

use super::*;
use crate::rig::event;

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
    an_idle_link_that_was_detached_resumes,
    a_link_that_was_lost_after_a_quiet_minute_resumes,
    tokens_that_end_hold_up_nothing,
    what_is_sent_ahead_fits_the_prefetch,
    a_hub_that_refuses_is_not_stormed,
    what_does_not_fit_one_batch_goes_in_several,
    what_says_that_the_hub_is_not_there_is_no_verdict_on_an_event,
    what_is_behind_a_refused_event_of_its_key_is_not_sent_before_it,
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

/// Does what has the service detach links, waits until it has detached one, and undoes it.
async fn detached(hub: &EventHub, change: impl FnOnce(&mut Settings)) {
    let detachments = || hub.emulator.control().log().matches(r#""what":"detach""#).count();
    let before = detachments();
    let mut settings = hub.emulator.control().settings();
    change(&mut settings);
    hub.emulator.control().set_settings(settings);
    let told = async {
        while detachments() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("nothing is detached");
    hub.emulator.control().set_settings(Settings::default());
}

async fn an_idle_link_that_was_detached_resumes(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "0", "timeout": "2s" })).await;
    let mut source = hub.source(&store()).await;
    for round in 0..2 {
        sends(sink.as_ref(), &outgoing(sink.as_ref(), 3, 0)).await;
        assert_eq!(deliver_next(&mut source, 3).await, 3, "round {round}");
        // Ten minutes become 60 ms.
        detached(&hub, |settings| settings.time_scale = 10_000.0).await;
    }
    hub.append("0", 0..5);
    assert_eq!(numbers(&mut source, 5).await, [0, 1, 2, 3, 4]);
}

/// Versions of the SDK do not recover then, which no clock can be set forward for.
async fn a_link_that_was_lost_after_a_quiet_minute_resumes(client: &'static str) {
    let hub = fixture(client);
    hub.append("0", 0..5);
    let mut source = hub.source(&store()).await;
    assert_eq!(numbers(&mut source, 5).await, [0, 1, 2, 3, 4]);
    receives_nothing(&mut source, Duration::from_secs(61)).await;
    let condition = eventhubs::condition::LINK_DETACH_FORCED.to_owned();
    hub.trouble(Some(LinkKind::Recv), &Kind::Detach { condition, closed: true });
    hub.append("0", 5..10);
    assert_eq!(numbers(&mut source, 5).await, [5, 6, 7, 8, 9]);
}

async fn tokens_that_end_hold_up_nothing(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "0", "timeout": "2s" })).await;
    let mut source = hub.source(&store()).await;
    for round in 0..3 {
        sends(sink.as_ref(), &outgoing(sink.as_ref(), 3, 0)).await;
        assert_eq!(deliver_next(&mut source, 3).await, 3, "round {round}");
        detached(&hub, |settings| settings.token_ttl_ms = Some(1)).await;
    }
}

/// Receives until as many different events have come, with all troubles on the way; a send without
/// an answer is sent again.
async fn deliver_next(source: &mut Source, count: usize) -> usize {
    let mut found = BTreeSet::new();
    let all = async {
        while found.len() < count {
            let Ok(deliveries) = source.receive.receive().await else { continue };
            found.extend(bodies(&deliveries));
            deliver(source, deliveries).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("events are missing");
    found.len()
}

/// AMQP counts events, and what is sent ahead lies in memory.
async fn what_is_sent_ahead_fits_the_prefetch(client: &'static str) {
    const SIZE: usize = 1_000_000;
    let hub = fixture(client);
    let large = || Seed::new("x".repeat(SIZE));
    for partition in ["0", "1", "2", "3"] {
        let append = Append {
            hub: HUB.into(),
            partition: Some(partition.into()),
            partition_key: None,
            events: (0..12).map(|_| large()).collect(),
        };
        hub.emulator.control().append(append).unwrap();
    }
    let prefetch = json!({ "prefetch": { "events": 8000, "bytes": "8MiB" } });
    let mut source = hub.source_with(&store(), prefetch).await.unwrap();
    let sent = || -> usize {
        let links = hub.emulator.control().state().links;
        let receivers = links.iter().filter(|link| link.kind == Some(LinkKind::Recv));
        receivers.map(|link| usize::try_from(link.events).unwrap()).sum()
    };
    let mut taken = 0;
    while taken < 48 {
        let found = tokio::time::timeout(PATIENCE, source.receive.receive()).await.unwrap();
        taken += found.unwrap().len();
        // What may still be on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let ahead = sent().saturating_sub(taken);
        assert!(ahead <= 16, "{ahead} MB were sent ahead after {taken} events");
    }
}

/// Each partition, and the sink, tries again after a pause that grows.
async fn a_hub_that_refuses_is_not_stormed(client: &'static str) {
    let hub = fixture(client);
    hub.append("0", 0..1);
    let mut source = hub.source(&store()).await;
    assert_eq!(numbers(&mut source, 1).await, [0]);
    let links = Scope::link(LinkKind::Recv);
    let condition = eventhubs::condition::SERVER_BUSY.to_owned();
    let refuse = Kind::AttachRefuse { condition };
    hub.emulator.control().arm(Trouble::new(refuse).within(links).times(10_000));
    let tries = || hub.emulator.control().log().matches("attach_refuse").count();
    hub.trouble(Some(LinkKind::Recv), &Kind::Rst);
    let refused = async {
        loop {
            let _ = source.receive.receive().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(4), refused).await;
    let tries = tries();
    // Four partitions, at 0, 0.2, 0.6, 1.4 and 3 s, or later.
    assert!((4..=24).contains(&tries), "{tries} times in four seconds");
    hub.emulator.control().disarm();
    hub.append("0", 1..2);
    assert_eq!(numbers(&mut source, 1).await, [1]);
}

async fn what_does_not_fit_one_batch_goes_in_several(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "2" })).await;
    let large = |number: usize| {
        let event = Event {
            body: format!("{number}{}", "x".repeat(400_000)).into(),
            ..event(&format!("e{number}"), "")
        };
        let packed = sink.pack(&event).unwrap();
        Outgoing { route: "test".into(), event: Arc::new(event), packed }
    };
    let batch: Vec<_> = (0..7).map(large).collect();
    assert!(sink.send(&batch).await.iter().all(Result::is_ok));
    let stored = hub.emulator.control().events(HUB, "2", 0).unwrap();
    let numbers: Vec<_> = stored.iter().map(|event| event.body().unwrap()[0] - b'0').collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6], "each of them once, and in their order");
}

/// Of a batch that is refused and then sent one by one, again with its first event refused, nothing
/// of that event's key is taken before it.
async fn what_is_behind_a_refused_event_of_its_key_is_not_sent_before_it(client: &'static str) {
    for condition in ["com.example:no", "com.microsoft:argument-error"] {
        let hub = fixture(client);
        let sink = hub.sink_with(json!({ "partition": "0" })).await;
        let links = Scope::link(LinkKind::Send);
        let reject = Kind::Reject { condition: condition.into() };
        hub.emulator.control().arm(Trouble::new(reject).within(links).times(2));
        let batch = outgoing(sink.as_ref(), 6, 2);
        let answers = sink.send(&batch).await;
        let verdicts: Vec<_> =
            answers.iter().map(|it| it.as_ref().map_err(|it| it.verdict)).collect();
        // Every other one is of the key of the first.
        let (retry, behind) = (Verdict::Retry { after: None }, Verdict::Behind);
        assert_eq!(verdicts, [Err(retry), Ok(&()), Err(behind), Ok(&()), Err(behind), Ok(&())]);
        let again: Vec<_> = batch.into_iter().step_by(2).collect();
        assert!(sink.send(&again).await.iter().all(Result::is_ok));
        let stored = hub.emulator.control().events(HUB, "0", 0).unwrap();
        assert_eq!(stored.len(), 6);
        let first = again[0].event.key.as_deref();
        let of_first = stored.into_iter().filter(|event| event.partition_key.as_deref() == first);
        let bodies: Vec<_> = of_first.map(|event| event.body().unwrap()).collect();
        let expected: Vec<_> = again.iter().map(|one| one.event.body.to_vec()).collect();
        assert_eq!(bodies, expected, "in their order");
    }
}

/// What the service gives back is among these too, but for the SDK: see `shortcomings`.
async fn what_says_that_the_hub_is_not_there_is_no_verdict_on_an_event(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "timeout": "2s" })).await;
    let batch = outgoing(sink.as_ref(), 1, 1);
    let reject = |condition: &str| Kind::Reject { condition: condition.into() };
    let mut kinds = vec![
        reject("com.microsoft:server-busy"),
        reject("com.microsoft:timeout"),
        reject("amqp:internal-error"),
        Kind::DropAfterAppend,
    ];
    if client == "own" {
        kinds.push(Kind::Released);
    }
    for kind in kinds {
        sends(sink.as_ref(), &batch).await;
        hub.emulator.control().arm(Trouble::new(kind.clone()).within(Scope::link(LinkKind::Send)));
        let fault = sink.send(&batch).await.remove(0).expect_err("it was told to fail");
        assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{kind:?}: {fault}");
    }
    sends(sink.as_ref(), &batch).await;
    drop(hub);
    let fault = sink.send(&batch).await.remove(0).expect_err("nobody is there");
    assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}");
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
    let sink = hub.sink_with(json!({ "partition": "2", "timeout": "4s" })).await;
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
