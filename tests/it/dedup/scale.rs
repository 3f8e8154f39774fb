//! The embedded store with ten million keys: memory, disk, time to open, claims, commits while keys
//! are forgotten. `docs/deduplication.md` has the command.

use std::{ops::Range, time::Duration};

use eventferry::{
    dedup::{KEY_BYTES, Key},
    state::{DedupStore, Found, embedded::EmbeddedStore},
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::{figures, rig};

const KEYS: u64 = 10_000_000;
/// Forgotten while as many others are added.
const BRIEF: u64 = 1_000_000;
const BRIEF_TTL: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Keys in a commit, and in a claim: what comes together where many lanes are busy.
const TOGETHER: usize = 500;

/// As random as a digest.
fn key(number: u64) -> Key {
    let mut bytes = [0; KEY_BYTES];
    for (part, of) in bytes.chunks_mut(8).zip(0..) {
        let mut word = number.wrapping_mul(3).wrapping_add(of).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..part.len()]);
    }
    Key(bytes)
}

fn requests(numbers: Range<u64>) -> impl Iterator<Item = Vec<Key>> {
    let end = numbers.end;
    numbers
        .step_by(TOGETHER)
        .map(move |first| (first..(first + TOGETHER as u64).min(end)).map(key).collect())
}

/// Commits keys, and answers how many milliseconds each request took, the quickest first.
async fn commit(store: &EmbeddedStore, numbers: Range<u64>, ttl: Duration) -> Vec<f64> {
    let mut took = Vec::new();
    for keys in requests(numbers) {
        let done: Vec<_> = keys.into_iter().map(|key| (key, ttl)).collect();
        let begun = Instant::now();
        store.commit(&done).await.unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    took
}

/// Half of them, 99 of 100, and all took so long at most.
fn spread(took: &[f64]) -> String {
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    format!("{:.1} / {:.1} / {:.1}", at(0.5), at(0.99), at(1.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and a gigabyte"]
async fn ten_million_keys() {
    // On a disk, as opposed to where many a machine has its temporary files.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let resident = || rig::resident(std::process::id()).unwrap();
    let empty = resident();
    let store = EmbeddedStore::open(dir.path()).unwrap();

    let begun = Instant::now();
    let first = commit(&store, 0..BRIEF, BRIEF_TTL).await;
    let brief_until = Instant::now() + BRIEF_TTL + Duration::from_secs(1);
    let more = commit(&store, BRIEF..KEYS, DAY).await;
    let filled = begun.elapsed().as_secs_f64();
    sleep_until(brief_until).await;
    let forgetting = commit(&store, KEYS..KEYS + BRIEF, DAY).await;
    let longest = forgetting.last().unwrap();
    assert!(*longest < 1_000.0, "a commit has waited for {longest} ms while others were forgotten");
    let forgotten = store.claim(&[key(0), key(BRIEF - 1)]).await.unwrap();
    assert_eq!(forgotten, [Found::Ours; 2]);
    let full = resident();
    let bytes = dir.path().join("state.redb").metadata().unwrap().len();

    let begun = Instant::now();
    for wanted in requests(BRIEF..KEYS + BRIEF) {
        let found = store.claim(&wanted).await.unwrap();
        assert!(found.iter().all(|found| *found == Found::Done));
    }
    let claimed = begun.elapsed().as_secs_f64();
    drop(store);
    let begun = Instant::now();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let (last, new) = (key(KEYS + BRIEF - 1), key(KEYS + BRIEF));
    assert_eq!(store.claim(&[last, new]).await.unwrap(), [Found::Done, Found::Ours]);

    let figures = json!({
        "keys": KEYS,
        "MiB of memory": full - empty,
        "MiB on disk": bytes >> 20,
        "opened after s": (opened * 10.0).round() / 10.0,
        "claims a second": (KEYS as f64 / claimed).round(),
        "commits a second": (KEYS as f64 / filled).round(),
        "ms of a commit: first million": spread(&first),
        "the others": spread(&more),
        "while a million are forgotten": spread(&forgetting),
    });
    figures::note("dedup", &format!("requests of {TOGETHER} keys"), figures);
}
