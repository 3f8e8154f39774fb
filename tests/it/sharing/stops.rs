//! Replicas that end as they should, at any moment: what they have goes to others at once, and what
//! they have asked for does not wait for them.

use super::*;

async fn a_graceful_stop_hands_partitions_over_at_once(shared: Shared) {
    let mut world = World::new(shared).await;
    let one = world.start(&patient(), false).await;
    world.shared_as(&[8]).await;
    let other = world.start(&patient(), false).await;
    world.shared_as(&[4, 4]).await;
    // What is given up is not waited for until it expires: nothing does.
    one.stop().await;
    world.shared_as(&[8]).await;
    world.feed(50);
    let repeated = world.verify().await;
    note("a graceful stop of one of two", 12, world.all_fed(), repeated);
    assert_eq!(repeated, 0, "moves by agreement repeat nothing");
    other.stop().await;
    assert!(world.shares().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_hands_partitions_over_at_once_in_redis() {
    a_graceful_stop_hands_partitions_over_at_once(Shared::redis().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_hands_partitions_over_at_once_in_blobs() {
    a_graceful_stop_hands_partitions_over_at_once(Shared::blob().await).await;
}

async fn who_stops_while_partitions_change_hands_repeats_nothing(shared: Shared) {
    let mut world = World::new(shared).await;
    let one = world.start(&patient(), false).await;
    world.shared_as(&[8]).await;
    // The one that gives partitions up, and then the one that has begun to get them.
    let other = world.start(&patient(), false).await;
    world.shared_by_two().await;
    one.stop().await;
    world.shared_as(&[8]).await;
    let third = world.start(&patient(), false).await;
    world.shared_by_two().await;
    third.stop().await;
    world.shared_as(&[8]).await;
    world.feed(50);
    let repeated = world.verify().await;
    note("a stop while partitions change hands", 10, world.all_fed(), repeated);
    assert_eq!(repeated, 0, "moves by agreement repeat nothing");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_while_partitions_change_hands_repeats_nothing_in_redis() {
    who_stops_while_partitions_change_hands_repeats_nothing(Shared::redis().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_while_partitions_change_hands_repeats_nothing_in_blobs() {
    who_stops_while_partitions_change_hands_repeats_nothing(Shared::blob().await).await;
}

/// What it asked for waits for it, and must not once it has gone.
async fn who_stops_after_it_has_asked_leaves_everything_to_the_others(shared: Shared) {
    let mut world = World::new(shared).await;
    let one = world.start(&patient(), false).await;
    world.shared_as(&[8]).await;
    let other = world.start(&patient(), false).await;
    world.asked().await;
    other.stop().await;
    world.all_of_one().await;
    world.feed(50);
    let repeated = world.verify().await;
    note("a stop after others were asked", 8, world.all_fed(), repeated);
    assert_eq!(repeated, 0, "moves by agreement repeat nothing");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_after_it_has_asked_leaves_everything_to_the_others_in_redis() {
    who_stops_after_it_has_asked_leaves_everything_to_the_others(Shared::redis().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_after_it_has_asked_leaves_everything_to_the_others_in_blobs() {
    who_stops_after_it_has_asked_leaves_everything_to_the_others(Shared::blob().await).await;
}
