//! A replica that stands still for longer than its partitions are its own, as a machine does that
//! is paused, and then wakes up in the middle of what it did.

use super::*;

fn signal(process: &Process, name: &str) {
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

async fn who_wakes_up_late_spoils_nothing(shared: Shared, dedup: bool) {
    let sharing = json!({ "expiry": "4s", "renew_every": "1s" });
    let mut world = World::new(shared).await;
    let one = world.start_process(&sharing, dedup).await;
    world.shared_as(&[8]).await;
    let other = world.start_process(&sharing, dedup).await;
    world.shared_as(&[4, 4]).await;
    world.feed(50);
    // In the middle of them.
    signal(&one, "-STOP");
    world.shared_as(&[8]).await;
    signal(&one, "-CONT");
    // It has noticed, and has been given others; or the same, which it begins anew.
    world.shared_as(&[4, 4]).await;
    world.feed(50);
    let repeated = world.verify().await;
    let how = if dedup { ", with dedup" } else { "" };
    note(&format!("one of two stands still, its expiry is 4 s{how}"), 8, world.all_fed(), repeated);
    let most = if dedup { IN_HAND } else { 4 * BATCH };
    assert!(repeated <= most, "{repeated} repeated, and it had four partitions");
    drop(other);
    // Whatever it has written late: who is left goes on where everybody was.
    world.shared_as(&[8]).await;
    world.feed(50);
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wakes_up_late_spoils_nothing_in_redis() {
    who_wakes_up_late_spoils_nothing(Shared::redis().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wakes_up_late_spoils_nothing_in_blobs() {
    who_wakes_up_late_spoils_nothing(Shared::blob().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wakes_up_late_spoils_nothing_where_keys_are_known() {
    who_wakes_up_late_spoils_nothing(Shared::redis().await, true).await;
}
