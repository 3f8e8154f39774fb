use bytes::Bytes;
use tokio::time::{Duration, timeout};

use super::*;
use crate::state::memory::MemoryStore;

const PARTITION: &str = "0";
const RETURNED: Outcome = Outcome::Returned { after: Some(Duration::from_secs(5)) };

fn received(key: Option<&str>, body: Bytes) -> Received {
    Received { key: key.map(Into::into), ..Received::bare(body) }
}

fn key() -> PartitionKey {
    PartitionKey {
        namespace: "n".into(),
        hub: "h".into(),
        group: "g".into(),
        partition: PARTITION.into(),
    }
}

async fn log() -> Log {
    log_of(&Tenure::begin()).await
}

async fn log_of(tenure: &Tenure) -> Log {
    let log = Log::new(Arc::new(MemoryStore::default()));
    assert!(log.open(&PARTITION.into(), key(), tenure, None).await.unwrap().is_none());
    log
}

/// Hands in events of `key` and answers the numbers and attempts of those that go out.
fn read(log: &Log, events: std::ops::Range<i64>, key: Option<&str>) -> Vec<(i64, u32)> {
    let events = events.map(|n| (n, n.to_string(), received(key, Bytes::from_static(b"x"))));
    numbers(&log.receive(&PARTITION.into(), events))
}

fn numbers(deliveries: &[Delivery]) -> Vec<(i64, u32)> {
    let number = |delivery: &Delivery| match delivery.token {
        Token::Position { sequence, .. } => (sequence, delivery.attempt),
        Token::Lease { .. } => panic!("a log leases nothing"),
    };
    deliveries.iter().map(number).collect()
}

fn end(log: &Log, sequence: i64, outcome: Outcome) {
    let tenure = log.tracks()[PARTITION].tenure.number();
    let token = Token::Position { partition: PARTITION.into(), tenure, sequence };
    log.settle(&[Settled { token, outcome }]);
}

#[tokio::test(start_paused = true)]
async fn a_returned_event_comes_again_with_its_attempts_counted() {
    let log = log().await;
    assert_eq!(read(&log, 0..1, None), [(0, 1)]);
    for attempt in 2..5 {
        end(&log, 0, RETURNED);
        assert!(timeout(Duration::from_secs(4), log.redeliver()).await.is_err(), "too early");
        assert_eq!(numbers(&log.redeliver().await), [(0, attempt)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_returned_event_of_its_key_waits_with_it() {
    let log = log().await;
    assert_eq!(read(&log, 0..1, Some("a")), [(0, 1)]);
    end(&log, 0, RETURNED);
    assert_eq!(read(&log, 1..3, Some("a")), []);
    assert_eq!(read(&log, 3..4, Some("b")), [(3, 1)]);
    assert_eq!(numbers(&log.redeliver().await), [(0, 2), (1, 1), (2, 1)]);
    assert_eq!(read(&log, 4..5, Some("a")), [(4, 1)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_out_behind_a_returned_event_overtakes_it() {
    let log = log().await;
    let events = (0..3).map(|n| (n, n.to_string(), received(Some("a"), Bytes::from_static(b"x"))));
    let out = log.receive(&PARTITION.into(), events);
    let is_cut = |at: usize| out[at].ties.as_ref().unwrap().are_cut(at as i64);
    assert!(!(0..3).any(is_cut));
    let row = out[1].ties.as_ref().unwrap().row.as_ref().unwrap();
    // As soon as it goes back, before the log is told.
    row.break_at(1);
    assert_eq!([0, 1, 2].map(is_cut), [false, false, true]);
    assert_eq!(read(&log, 3..4, Some("a")), [], "what comes later has to wait");
    assert_eq!(read(&log, 4..5, Some("b")), [(4, 1)]);
    end(&log, 1, Outcome::Returned { after: None });
    end(&log, 0, Outcome::Delivered);
    let again = timeout(Duration::from_secs(3_600), log.redeliver());
    assert!(again.await.is_err(), "one behind it is still out");
    end(&log, 2, Outcome::Returned { after: None });
    assert_eq!(numbers(&log.redeliver().await), [(1, 2), (2, 2), (3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_not_read_on_while_too_much_waits_behind_an_event() {
    let log = log().await;
    assert_eq!(read(&log, 0..1, Some("a")), [(0, 1)]);
    end(&log, 0, RETURNED);
    let large = Bytes::from(vec![0; WAITING_BYTES_MAX]);
    let follower = (1, String::new(), received(Some("a"), large));
    assert!(log.receive(&PARTITION.into(), [follower]).is_empty());
    let mut stalls = 0;
    let room = log.room(PARTITION, || stalls += 1);
    assert!(timeout(Duration::from_secs(60), room).await.is_err());
    assert_eq!(stalls, 1);
    assert_eq!(numbers(&log.redeliver().await), [(0, 2), (1, 1)]);
    // They are in the pipeline now, whose own budget bounds it.
    log.room(PARTITION, || panic!("it may be read on")).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_not_read_on_far_past_its_oldest_unsettled_event() {
    let log = log().await;
    let all = AHEAD_MAX as i64;
    assert_eq!(log.position(PARTITION), None);
    assert_eq!(read(&log, 0..all, None).len(), AHEAD_MAX);
    (1..all).for_each(|sequence| end(&log, sequence, Outcome::Delivered));
    assert_eq!(log.position(PARTITION), Some(-1));
    let room = log.room(PARTITION, || ());
    tokio::pin!(room);
    assert!(timeout(Duration::from_secs(60), &mut room).await.is_err());
    end(&log, 0, Outcome::Delivered);
    room.await;
    assert_eq!(log.position(PARTITION), Some(all - 1));
}

#[tokio::test(start_paused = true)]
async fn of_a_lost_partition_nothing_is_settled_or_written() {
    let tenure = Tenure::begin();
    let log = log_of(&tenure).await;
    let events = (0..3).map(|n| (n, n.to_string(), received(None, Bytes::from_static(b"x"))));
    let mut open = log.receive(&PARTITION.into(), events);
    end(&log, 0, Outcome::Delivered);
    log.checkpoint().await.unwrap();
    end(&log, 1, Outcome::Delivered);
    log.lose(PARTITION, &tenure);
    log.checkpoint().await.unwrap();
    assert!(open.iter().all(|delivery| delivery.ties.as_ref().unwrap().tenure.is_over()));

    // It is ours again: what was received before is no part of it.
    let again = Tenure::begin();
    let at = log.open(&PARTITION.into(), key(), &again, None).await.unwrap();
    assert_eq!(at.map(|at| at.sequence), Some(0));
    assert_eq!(read(&log, 1..3, None), [(1, 1), (2, 1)]);
    let late = Settled { token: open.remove(2).token, outcome: Outcome::Delivered };
    log.settle(&[late]);
    end(&log, 1, Outcome::Delivered);
    assert_eq!(log.position(PARTITION), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_closing_partition_hands_out_nothing_and_waits_for_what_is_out() {
    let log = log().await;
    assert_eq!(read(&log, 0..3, None), [(0, 1), (1, 1), (2, 1)]);
    end(&log, 0, Outcome::Delivered);
    end(&log, 1, RETURNED);
    {
        let closed = log.close(PARTITION);
        tokio::pin!(closed);
        assert!(timeout(Duration::from_secs(60), &mut closed).await.is_err());
        assert_eq!(read(&log, 3..5, None), []);
        assert!(timeout(Duration::from_secs(60), log.redeliver()).await.is_err());
        end(&log, 2, Outcome::Delivered);
        closed.await;
    }
    assert_eq!(log.position(PARTITION), Some(0));
}
