//! What a sender says of each event that it was given.

use super::*;

async fn send_one(bench: &Bench) -> Result<(), Error> {
    let options = SenderOptions { timeout: Duration::from_secs(3), ..SenderOptions::default() };
    let sender = bench.hub.sender(options);
    sender.send_events(Target::Partition("0".into()), &["one".into()]).await
}

#[tokio::test]
async fn every_outcome_but_accepted_is_an_error_and_stores_nothing() {
    for (kind, expected) in [
        (Kind::Released, ErrorKind::Released),
        (Kind::Modified, ErrorKind::Modified),
        (Kind::Reject { condition: condition::SERVER_BUSY.into() }, ErrorKind::ServerBusy),
        (Kind::Reject { condition: "com.example:no".into() }, ErrorKind::Rejected),
    ] {
        let bench = bench();
        bench.arm_link(LinkKind::Send, kind);
        let error = send_one(&bench).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert_eq!(bench.stored("0"), 0);
        send_one(&bench).await.unwrap();
        assert_eq!(bench.stored("0"), 1);
    }
}

#[tokio::test]
async fn a_send_that_is_never_answered_is_ambiguous() {
    let bench = bench();
    bench.arm_link(LinkKind::Send, Kind::NoDisposition);
    assert_eq!(soon(send_one(&bench)).await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(bench.stored("0"), 1, "it was stored all the same");
    bench.arm_link(LinkKind::Send, Kind::DropAfterAppend);
    assert_eq!(soon(send_one(&bench)).await.unwrap_err().kind(), ErrorKind::Ambiguous);
    soon(send_one(&bench)).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_is_told_at_once() {
    let bench = bench();
    bench.arm_link(LinkKind::Send, Kind::DropAfterAppend);
    let options = SenderOptions { timeout: Duration::from_secs(3600), ..SenderOptions::default() };
    let sender = bench.hub.sender(options);
    let event = ["one".into()];
    let target = || Target::Partition("0".into());
    assert_eq!(
        soon(sender.send_events(target(), &event)).await.unwrap_err().kind(),
        ErrorKind::Ambiguous
    );
    soon(sender.send_events(target(), &event)).await.unwrap();
}

#[tokio::test]
async fn a_send_without_credit_times_out_with_nothing_sent() {
    let bench = bench();
    bench.arm_link(LinkKind::Send, Kind::CreditZero);
    let options = SenderOptions { timeout: Duration::from_secs(1), ..SenderOptions::default() };
    let sender = bench.hub.sender(options);
    let target = Target::Partition("0".into());
    let mut batch = sender.batch(target).await.unwrap();
    assert!(batch.try_add(&"one".into()).unwrap());
    // The emulator takes its first credit back right after the attach.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(soon(sender.send(&batch)).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(bench.stored("0"), 0);
}

#[tokio::test]
async fn a_sender_that_lost_its_link_while_idle_sends_on_a_new_one() {
    for kind in [
        Kind::Rst,
        Kind::Detach { condition: condition::LINK_DETACH_FORCED.into(), closed: true },
        Kind::AmqpClose { condition: condition::CONNECTION_FORCED.into() },
    ] {
        let bench = bench();
        let sender = bench.hub.sender(SenderOptions::default());
        let target = Target::Partition("0".into());
        sender.send_events(target.clone(), &["one".into()]).await.unwrap();
        let scope = match kind {
            Kind::Detach { .. } => Scope::link(LinkKind::Send),
            _ => Scope::default(),
        };
        bench.emulator.control().arm(Fault::new(kind).within(scope));
        tokio::time::sleep(Duration::from_secs(1)).await;
        soon(sender.send_events(target, &["two".into()])).await.unwrap();
        assert_eq!(bench.stored("0"), 2);
    }
}

#[tokio::test]
async fn several_batches_are_under_way_at_once_and_keep_their_order() {
    let settings = Settings { disposition_delay_ms: 1_000, ..Settings::default() };
    let bench = bench_with(settings, options());
    let sender = bench.hub.sender(SenderOptions::default());
    let target = Target::Partition("0".into());
    sender.batch(target.clone()).await.unwrap();
    let start = tokio::time::Instant::now();
    let sends = (0..20).map(|number| {
        let (sender, target) = (&sender, target.clone());
        async move { sender.send_events(target, &[number.to_string().into()]).await.unwrap() }
    });
    soon(futures::future::join_all(sends)).await;
    assert!(start.elapsed() < Duration::from_secs(10), "not one after the other");
    let events = bench.emulator.control().events(HUB, "0", 0).unwrap();
    let bodies = events.iter().map(|event| String::from_utf8(event.body().unwrap()).unwrap());
    assert!(bodies.eq((0..20).map(|number| number.to_string())));
}

/// A sender has less time than a link is given to attach, and the connection less than it is given to
/// fall silent.
#[tokio::test]
async fn a_broker_that_is_frozen_before_the_link_is_attached_is_left() {
    let patient = Duration::from_secs(3600);
    let options = Options { call_timeout: patient, idle_timeout: patient, ..options() };
    let bench = bench_with(Settings::default(), options);
    bench.hub.properties().await.unwrap();
    bench.arm(Kind::Freeze);
    let options = SenderOptions { timeout: Duration::from_millis(500), ..SenderOptions::default() };
    let sender = bench.hub.sender(options);
    let target = Target::Partition("0".into());
    let error = sender.send_events(target.clone(), &[EventData::default()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    soon(async {
        while let Err(error) = sender.send_events(target.clone(), &[EventData::default()]).await {
            assert!(error.is_transient(), "{error}");
        }
    })
    .await;
    assert!(bench.stored("0") >= 1);
}
