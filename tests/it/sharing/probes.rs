//! What the probes of a replica say while partitions change hands, and while it is told to end in
//! the middle of that.

use super::*;
use crate::clouds::free_port;

async fn who_is_told_to_end_while_partitions_move_lives_until_then(shared: Shared) {
    let mut world = World::new(shared).await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut config = world.file(&patient(), false).await;
    config["admin"] = json!(address);
    let file = world.dir.path().join("probed.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut one = Process::start(&file, world.dir.path().join("probed.log"));
    world.shared_as(&[8]).await;
    let probes = tokio::spawn(async move {
        let (mut not_alive, mut not_ready, mut asked) = (Vec::new(), Vec::new(), 0);
        let ask = |page| reqwest::get(format!("http://{address}/{page}"));
        loop {
            let (Ok(lives), Ok(ready)) = tokio::join!(ask("livez"), ask("readyz")) else {
                return (not_alive, not_ready, asked);
            };
            asked += 1;
            if lives.status() != 200 {
                not_alive.push(lives.status());
            }
            // As long as it does not end, it is ready whatever it has.
            if ready.status() != 200 {
                not_ready.push(ready.text().await.unwrap_or_default());
            }
            sleep(LOOK_EVERY / 10).await;
        }
    });
    let other = world.start(&patient(), false).await;
    world.shared_by_two().await;
    let pid = one.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    world.shared_as(&[8]).await;
    let (not_alive, not_ready, asked) = probes.await.unwrap();
    assert!(not_alive.is_empty() && asked > 1, "{not_alive:?} of {asked}");
    // It may end in the middle of an answer, or before it is asked once more; that it says so while
    // it drains is in `daemon::ending`.
    let for_another_reason = |text: &&String| !text.is_empty() && !text.contains("draining");
    assert_eq!(not_ready.iter().find(for_another_reason), None);
    let ended = tokio::task::spawn_blocking(move || one.child.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    world.feed(50);
    let repeated = world.verify().await;
    note("told to end while partitions move", 8, world.all_fed(), repeated);
    assert_eq!(repeated, 0, "moves by agreement repeat nothing");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_end_while_partitions_move_lives_until_then_in_redis() {
    who_is_told_to_end_while_partitions_move_lives_until_then(Shared::redis().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_end_while_partitions_move_lives_until_then_in_blobs() {
    who_is_told_to_end_while_partitions_move_lives_until_then(Shared::blob().await).await;
}
