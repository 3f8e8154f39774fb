use std::{collections::BTreeMap, time::Duration};

use super::*;

mod any_order;
mod backlog;

#[derive(Debug, Clone, PartialEq)]
struct Item {
    number: u32,
    key: Option<Arc<str>>,
    bytes: usize,
    class: u8,
    not_before: Option<Instant>,
}

impl Entry for Item {
    fn order(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn priority(&self) -> Priority {
        Priority(self.class)
    }
    fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
}

fn item(number: u32, key: &str) -> Item {
    let key = (!key.is_empty()).then(|| key.into());
    Item { number, key, bytes: 10, class: 0, not_before: None }
}

fn in_class(class: u8, number: u32, key: &str) -> Item {
    Item { class, ..item(number, key) }
}

fn at(due: Instant, number: u32, key: &str) -> Item {
    Item { not_before: Some(due), ..item(number, key) }
}

/// A queue with one class.
fn plain() -> LaneQueue<Item> {
    LaneQueue::new(&Weights::default())
}

fn limits(together: bool) -> Limits {
    let order = if together { Order::Together } else { Order::OnePerBatch };
    Limits { events: 4, bytes: 35, event_bytes: 35, order, in_flight: 1 }
}

fn numbers(batch: &[Item]) -> Vec<u32> {
    batch.iter().map(|item| item.number).collect()
}

/// All of these failed, and are due then.
fn failed(items: Vec<Item>, due: Instant) -> Vec<(Item, Instant)> {
    items.into_iter().map(|item| (item, due)).collect()
}

#[test]
fn a_batch_keeps_to_events_and_bytes() {
    let mut queue = plain();
    queue.push((0..5).map(|n| item(n, "")));
    queue.push([Item { bytes: 100, ..item(5, "") }, item(6, "")]);
    let now = Instant::now();
    let batches: Vec<_> = (0..4).map(|_| numbers(&queue.batch(&limits(true), now))).collect();
    // Three of ten bytes fit into 35; one that fits into no batch travels alone.
    assert_eq!(batches, [vec![0, 1, 2], vec![3, 4], vec![5], vec![6]]);
}

#[test]
fn a_batch_holds_one_event_of_a_key_where_the_sink_may_split_it() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "a"), item(2, "b"), item(3, "a")]);
    let now = Instant::now();
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [0, 2]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [1]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [3]);
}

#[test]
fn a_failed_event_holds_back_its_own_key_only() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "b"), item(2, "a")]);
    let now = Instant::now();
    let mut batch = queue.batch(&limits(false), now);
    assert_eq!(numbers(&batch), [0, 1]);
    let later = now + Duration::from_secs(1);
    queue.retry(failed(vec![batch.remove(0)], later));
    queue.push([item(3, "a"), item(4, "b")]);
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [4]);
    assert_eq!(numbers(&queue.batch(&limits(false), later)), [0]);
    assert!(queue.batch(&limits(false), later).is_empty());
    queue.release(&"a".into());
    assert_eq!(numbers(&queue.batch(&limits(true), later)), [2, 3]);
}

#[test]
fn what_failed_together_and_fits_no_single_batch_any_more_stays_in_order() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "a"), item(2, "a")]);
    let now = Instant::now();
    let batch = queue.batch(&limits(true), now);
    assert_eq!(numbers(&batch), [0, 1, 2]);
    queue.retry(failed(batch, now));
    // The first of them goes alone, and fails once more.
    let narrow = Limits { events: 1, ..limits(true) };
    let batch = queue.batch(&narrow, now);
    assert_eq!(numbers(&batch), [0]);
    let later = now + Duration::from_secs(1);
    queue.retry(failed(batch, later));
    assert!(queue.batch(&limits(true), now).is_empty());
    assert_eq!(numbers(&queue.batch(&limits(true), later)), [0, 1, 2]);
}

#[test]
fn what_failed_in_one_batch_comes_back_with_the_last_of_its_key() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "b"), item(2, "a")]);
    let now = Instant::now();
    let batch = queue.batch(&limits(true), now);
    let due = |item: Item| (item.clone(), now + Duration::from_secs(9 - u64::from(item.number)));
    queue.retry(batch.into_iter().map(due).collect());
    assert_eq!(queue.next_due(), Some(now + Duration::from_secs(8)));
    assert_eq!(numbers(&queue.batch(&limits(true), now + Duration::from_secs(8))), [1]);
    assert_eq!(numbers(&queue.batch(&limits(true), now + Duration::from_secs(9))), [0, 2]);
}

#[test]
fn a_key_waits_for_one_that_is_parked() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "a")]);
    let now = Instant::now();
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [0]);
    queue.hold(&"a".into());
    queue.push([item(2, "a"), item(3, "")]);
    assert_eq!(numbers(&queue.batch(&limits(true), now)), [3]);
    assert!(!queue.is_ready(now) && queue.next_due().is_none());
    queue.release(&"a".into());
    assert!(queue.is_ready(now) && queue.fills(2) && !queue.fills(3));
    // It is held once more before what waited has gone.
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [1]);
    queue.hold(&"a".into());
    assert!(queue.batch(&limits(true), now).is_empty());
    queue.release(&"a".into());
    assert_eq!(numbers(&queue.batch(&limits(true), now)), [2]);
}

#[test]
fn what_is_returned_takes_its_followers_along() {
    let mut queue = plain();
    queue.push([item(0, "a"), item(1, "b"), item(2, "a")]);
    let now = Instant::now();
    let batch = queue.batch(&limits(true), now);
    queue.retry(failed(batch.into_iter().filter(|item| item.number == 0).collect(), now));
    queue.push([item(3, "a"), item(4, "b")]);
    assert_eq!(numbers(&queue.take_behind(&"a".into())), [0, 3]);
    assert_eq!(queue.next_due(), None);
    assert_eq!(numbers(&queue.drain()), [4]);
    assert!(queue.drain().is_empty());
}

#[test]
fn an_event_waits_for_its_time_and_its_key_waits_with_it() {
    let mut queue = plain();
    let now = Instant::now();
    let [soon, late] = [5, 60].map(|seconds| now + Duration::from_secs(seconds));
    queue.push([at(late, 0, ""), at(soon, 1, "a"), item(2, "a"), at(late, 3, "a"), item(4, "b")]);
    assert_eq!(numbers(&queue.batch(&limits(true), now)), [4]);
    assert!(!queue.is_ready(now));
    assert_eq!(queue.next_due(), Some(soon));
    assert_eq!(numbers(&queue.batch(&limits(true), soon)), [1]);
    queue.release(&"a".into());
    assert_eq!(numbers(&queue.batch(&limits(true), soon)), [2]);
    assert_eq!(numbers(&queue.batch(&limits(true), late)), [0, 3]);
}

#[test]
fn a_failed_event_does_not_wait_for_the_time_of_the_next() {
    let mut queue = plain();
    let now = Instant::now();
    let [soon, late] = [5, 60].map(|seconds| now + Duration::from_secs(seconds));
    queue.push([item(0, "a"), at(late, 1, "a")]);
    let batch = queue.batch(&limits(true), now);
    assert_eq!(numbers(&batch), [0]);
    queue.retry(failed(batch, soon));
    assert_eq!(numbers(&queue.batch(&limits(true), soon)), [0]);
    queue.release(&"a".into());
    assert!(queue.batch(&limits(true), soon).is_empty());
    assert_eq!(numbers(&queue.batch(&limits(true), late)), [1]);
}

#[test]
fn a_key_stays_in_its_class_until_nothing_of_it_is_left() {
    let mut queue = LaneQueue::new(&Weights::new([1, 9]));
    let now = Instant::now();
    let narrow = Limits { events: 1, ..limits(false) };
    queue.push([
        in_class(0, 0, "a"),
        in_class(0, 1, "b"),
        in_class(1, 2, "b"),
        in_class(1, 3, "c"),
    ]);
    // The second event of b would overtake the first, were it in its own class.
    let next = |queue: &mut LaneQueue<Item>| numbers(&queue.batch(&narrow, now));
    assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [[3], [0], [1]]);
    // One is under way, one is here.
    queue.push([in_class(1, 4, "b"), in_class(1, 5, "d")]);
    assert_eq!(next(&mut queue), [5]);
    assert_eq!([next(&mut queue), next(&mut queue)], [[2], [4]]);
    // One is parked.
    queue.hold(&"b".into());
    queue.end_batch();
    queue.push([in_class(1, 6, "b")]);
    assert_eq!(queue.members.class(&"b".into()), Some(0));
    queue.release(&"b".into());
    assert_eq!(next(&mut queue), [6]);
    queue.end_batch();
    queue.push([in_class(1, 7, "b")]);
    assert_eq!(queue.members.class(&"b".into()), Some(1));
}

#[test]
fn a_class_that_nobody_has_is_the_last() {
    let mut queue = LaneQueue::new(&Weights::new([4, 1]));
    queue.push([in_class(7, 0, ""), in_class(1, 1, ""), in_class(0, 2, "")]);
    assert_eq!(numbers(&queue.batch(&limits(true), Instant::now())), [2, 0, 1]);
}

#[test]
fn what_is_taken_out_takes_its_key_along_wherever_it_waits() {
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    let mut queue = plain();
    let items = [item(0, "a"), item(1, "b"), at(later, 2, ""), item(3, ""), at(later, 4, "c")];
    queue.push(items);
    let first = queue.batch(&limits(false), now);
    assert_eq!(numbers(&first), [0, 1, 3]);
    // `a` and `b` wait as held keys, 2 and `c` until their time has come.
    queue.retry(failed(first.into_iter().filter(|item| item.key.is_some()).collect(), later));
    queue.end_batch();
    queue.push([item(5, "a"), item(6, "b"), item(7, "c"), item(8, "")]);
    let mut taken = numbers(&queue.take_out(|item| [0, 2, 7].contains(&item.number)));
    taken.sort_unstable();
    assert_eq!(taken, [0, 2, 4, 5, 7], "`a` and `c` altogether, and 2");
    assert_eq!(numbers(&queue.batch(&limits(false), now)), [8]);
    queue.push([item(9, "a"), item(10, "c")]);
    let mut left = numbers(&queue.batch(&limits(false), later));
    left.sort_unstable();
    assert_eq!(left, [1, 9, 10], "the keys are free");
    queue.release(&"b".into());
    assert_eq!(numbers(&queue.batch(&limits(false), later)), [6]);
}
