use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::sink::Order;

#[derive(Debug, Clone, PartialEq)]
struct Item(u32, Option<Arc<str>>, usize);

impl Entry for Item {
    fn order(&self) -> Option<&Arc<str>> {
        self.1.as_ref()
    }
    fn bytes(&self) -> usize {
        self.2
    }
}

fn item(number: u32, key: &str) -> Item {
    Item(number, (!key.is_empty()).then(|| key.into()), 10)
}

fn limits(together: bool) -> Limits {
    let order = if together { Order::Together } else { Order::OnePerBatch };
    Limits { events: 4, bytes: 35, event_bytes: 35, order, in_flight: 1 }
}

fn numbers(batch: &[Item]) -> Vec<u32> {
    batch.iter().map(|item| item.0).collect()
}

#[test]
fn a_batch_keeps_to_events_and_bytes() {
    let mut queue = LaneQueue::default();
    queue.push((0..5).map(|n| item(n, "")));
    queue.push([Item(5, None, 100), item(6, "")]);
    let now = Instant::now();
    let batches: Vec<_> = (0..4).map(|_| numbers(&queue.batch(&limits(true), now))).collect();
    // Three of ten bytes fit into 35; one that fits into no batch travels alone.
    assert_eq!(batches, [vec![0, 1, 2], vec![3, 4], vec![5], vec![6]]);
}

#[test]
fn a_batch_holds_one_event_of_a_key_where_the_sink_may_split_it() {
    let mut queue = LaneQueue::default();
    queue.push([item(0, "a"), item(1, "a"), item(2, "b"), item(3, "a")]);
    let now = Instant::now();
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [0, 2]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [1]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [3]);
}

#[test]
fn a_failed_event_holds_back_its_own_key_only() {
    let mut queue = LaneQueue::default();
    queue.push([item(0, "a"), item(1, "b"), item(2, "a")]);
    let now = Instant::now();
    let mut batch = queue.batch(&limits(false), now);
    assert_eq!(numbers(&batch), [0, 1]);
    let later = now + Duration::from_secs(1);
    queue.retry(vec![batch.remove(0)], later);
    queue.push([item(3, "a"), item(4, "b")]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [4]);
    assert_eq!(numbers(&queue.batch(&limits(false), later)), [0]);
    assert!(queue.batch(&limits(false), later).is_empty());
    queue.release(&"a".into());
    assert_eq!(numbers(&queue.batch(&limits(true), later)), [2, 3]);
}

#[test]
fn what_is_returned_takes_its_followers_along() {
    let mut queue = LaneQueue::default();
    queue.push([item(0, "a"), item(1, "b"), item(2, "a")]);
    let now = Instant::now();
    let batch = queue.batch(&limits(true), now);
    queue.retry(batch.into_iter().filter(|item| item.0 == 0).collect(), now);
    queue.push([item(3, "a")]);
    assert_eq!(numbers(&queue.take_behind(&"a".into())), [0, 3]);
    assert!(queue.drain().is_empty());
}

proptest! {
    /// Whatever fails, in a sink that is atomic per key or not: every event is accepted exactly
    /// once, in order per key, and no batch is over its limits.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        keys in proptest::collection::vec(0u8..4, 1..60),
        fails in proptest::collection::vec(any::<bool>(), 400),
        atomic in any::<bool>(),
    ) {
        let name = |key: u8| if key == 0 { String::new() } else { format!("k{key}") };
        let mut queue = LaneQueue::default();
        let count = keys.len();
        let mut incoming = keys.iter().enumerate().map(|(n, key)| item(n as u32, &name(*key)));
        let (mut accepted, mut fails) = (Vec::new(), fails.into_iter());
        let mut now = Instant::now();
        while accepted.len() < count {
            queue.push(incoming.by_ref().take(3));
            now += Duration::from_millis(10);
            let batch = queue.batch(&limits(atomic), now);
            prop_assert!(batch.len() <= 4 && batch.iter().map(|i| i.2).sum::<usize>() <= 35);
            let mut failing: BTreeMap<Option<Arc<str>>, bool> = BTreeMap::new();
            let (mut failed, mut released) = (Vec::new(), Vec::new());
            for item in batch {
                let coin = fails.next().unwrap_or(false);
                // An atomic sink takes or refuses a key's events together.
                let fail = if atomic && item.1.is_some() {
                    *failing.entry(item.1.clone()).or_insert(coin)
                } else {
                    coin
                };
                if fail {
                    failed.push(item);
                } else {
                    released.extend(item.1.clone());
                    accepted.push(item);
                }
            }
            queue.retry(failed, now + Duration::from_millis(15));
            released.iter().for_each(|key| queue.release(key));
        }
        let mut by_key: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for item in &accepted {
            by_key.entry(item.1.clone()).or_default().push(item.0);
        }
        for (key, order) in by_key {
            prop_assert!(key.is_none() || order.is_sorted(), "{key:?}: {order:?}");
        }
        let mut all = numbers(&accepted);
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len(), count);
    }
}
