//! What holds however much is waiting.

use super::*;

const MILLION: u32 = 1_000_000;
const WIDE: Limits = Limits {
    events: 10,
    bytes: 1_000_000,
    event_bytes: 1_000_000,
    order: Order::Together,
    in_flight: 1,
};

#[test]
fn an_urgent_event_is_in_the_next_batch_before_a_million_others() {
    let mut queue = LaneQueue::new(&Weights::new([16, 4, 1]));
    let now = Instant::now();
    queue.push((0..MILLION).map(|n| in_class(2, n, "")));
    for number in [MILLION, MILLION + 1] {
        assert_eq!(queue.batch(&WIDE, now).len(), 10);
        queue.push([in_class(0, number, "")]);
        assert_eq!(queue.batch(&WIDE, now)[0].number, number);
    }
}

#[test]
fn classes_share_by_weight_and_none_starves() {
    let weights = [16, 4, 1];
    let mut queue = LaneQueue::new(&Weights::new(weights));
    let now = Instant::now();
    queue.push((0..30_000).map(|n| in_class((n % 3) as u8, n, "")));
    let mut picks = [0_u32; 3];
    for _ in 0..1000 {
        let batch = queue.batch(&WIDE, now);
        batch.iter().for_each(|item| picks[usize::from(item.class)] += 1);
    }
    for (weight, got) in weights.iter().zip(picks) {
        let expected = 10_000.0 * f64::from(*weight) / 21.0;
        assert!((f64::from(got) - expected).abs() <= expected * 0.05, "{got} of {expected}");
    }
}

#[test]
fn a_class_whose_first_key_is_in_the_batch_leaves_the_rest_to_others() {
    let mut queue = LaneQueue::new(&Weights::new([16, 1]));
    let now = Instant::now();
    let limits = Limits { order: Order::OnePerBatch, ..WIDE };
    queue.push((0..1000).map(|n| in_class(0, n, "a")));
    queue.push((1000..1020).map(|n| in_class(1, n, "")));
    assert_eq!(numbers(&queue.batch(&limits, now)), [vec![0], (1000..1009).collect()].concat());
    assert_eq!(numbers(&queue.batch(&limits, now))[..2], [1, 1009]);
}

/// Each of these would take a minute or more if it went through what waits.
#[test]
fn what_a_failure_costs_does_not_grow_with_the_backlog() {
    let mut queue = LaneQueue::new(&Weights::new([4, 1]));
    let now = Instant::now();
    let key: Arc<str> = "a".into();
    let name = |n: u32| if n.is_multiple_of(2) { "a" } else { "" };
    queue.push((0..MILLION).map(|n| in_class(1, n, name(n))));
    let limits = Limits { events: 2, order: Order::OnePerBatch, ..WIDE };
    let mut last = None;
    for _ in 0..20_000 {
        let (ordered, _): (Vec<_>, Vec<_>) =
            queue.batch(&limits, now).into_iter().partition(|item| item.key.is_some());
        let number = ordered.first().map(|item| item.number);
        assert!(number > last);
        queue.retry(failed(ordered, now));
        let again = queue.batch(&Limits { events: 1, ..limits }, now);
        assert_eq!(again.first().map(|item| item.number), number);
        queue.hold(&key);
        queue.release(&key);
        last = number;
    }
}

#[test]
fn a_hundred_thousand_events_wait_for_their_times() {
    let mut queue = plain();
    let now = Instant::now();
    let due = |n: u32| now + Duration::from_millis(u64::from((n * 7919) % 100_000) + 1);
    let key = |n: u32| if n.is_multiple_of(2) { n.to_string() } else { String::new() };
    queue.push((0..100_000).map(|n| at(due(n), n, &key(n))));
    assert!(queue.batch(&WIDE, now).is_empty());
    let mut got = 0;
    for millis in 0..=100_000 {
        let now = now + Duration::from_millis(millis);
        for item in queue.batch(&WIDE, now) {
            assert_eq!(item.not_before, Some(now));
            item.key.iter().for_each(|key| queue.release(key));
            got += 1;
        }
    }
    assert_eq!(got, 100_000);
    assert!(queue.held.is_empty() && queue.drain().is_empty());
}
