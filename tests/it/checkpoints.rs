//! What every store of checkpoints does with those of a hub that was deleted and made again.

use std::sync::Arc;

use eventferry::state::{
    Checkpoint, PartitionKey, StateStore, embedded::EmbeddedStore, memory::MemoryStore,
};

use crate::{blob_state, redis};

/// One that is written late, by a replica that still has the old hub, is left out however far it is,
/// and one of the new hub takes its place however near.
async fn newer_hubs_come_first(store: Arc<dyn StateStore>) {
    let partition = PartitionKey {
        namespace: "n".into(),
        hub: "h".into(),
        group: "$Default".into(),
        partition: "0".into(),
    };
    let of = |hub_made: Option<i64>, sequence: i64| Checkpoint {
        sequence,
        offset: format!("o{sequence}"),
        hub_made,
    };
    let (old, new) = (Some(1_700_000_000_000), Some(1_700_000_000_001));
    let written = [
        (of(old, 500), of(old, 500)),
        (of(new, 3), of(new, 3)),
        (of(old, 900), of(new, 3)),
        (of(new, 2), of(new, 3)),
        // Another SDK says nothing of it, and its word is taken.
        (of(None, 4), of(None, 4)),
        (of(new, 5), of(new, 5)),
    ];
    for (next, expected) in written {
        store.store(&[(partition.clone(), next.clone())]).await.unwrap();
        assert_eq!(store.load(&partition).await.unwrap(), Some(expected), "after {next:?}");
    }
    // Of those that begin, the first one does: what it is instead of has to be there still.
    let newest = Some(1_700_000_000_002);
    let left = [None, Some(of(new, 4)), Some(of(old, 5)), Some(of(None, 5))];
    for (made, instead_of) in [newest, old, None].into_iter().zip(left.iter().cycle()) {
        store.begin(&partition, &of(made, 9), instead_of.as_ref()).await.unwrap();
        assert_eq!(store.load(&partition).await.unwrap(), Some(of(new, 5)), "it has begun");
    }
    store.begin(&partition, &of(newest, -1), Some(&of(new, 5))).await.unwrap();
    store.begin(&partition, &of(newest, 7), Some(&of(new, 5))).await.unwrap();
    assert_eq!(store.load(&partition).await.unwrap(), Some(of(newest, -1)));
    // A hub of this name may be older than the one before it.
    store.begin(&partition, &of(old, 2), Some(&of(newest, -1))).await.unwrap();
    assert_eq!(store.load(&partition).await.unwrap(), Some(of(old, 2)));
    store.begin(&partition, &of(new, 6), Some(&of(old, 2))).await.unwrap();
    store.store(&[(partition.clone(), of(new, 7))]).await.unwrap();
    assert_eq!(store.load(&partition).await.unwrap(), Some(of(new, 7)), "and it goes on");
    store.forget(&partition).await.unwrap();
    store.begin(&partition, &of(new, 1), Some(&of(new, 7))).await.unwrap();
    assert_eq!(store.load(&partition).await.unwrap(), Some(of(new, 1)), "there is none");
}

#[tokio::test]
async fn newer_hubs_come_first_in_memory() {
    newer_hubs_come_first(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn newer_hubs_come_first_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    newer_hubs_come_first(Arc::new(EmbeddedStore::open(dir.path()).unwrap())).await;
}

#[tokio::test]
async fn newer_hubs_come_first_in_redis() {
    let server = redis::Server::start().await;
    newer_hubs_come_first(Arc::new(server.open().await)).await;
}

#[tokio::test]
async fn newer_hubs_come_first_in_blobs() {
    newer_hubs_come_first(Arc::new(blob_state::container().await.open().await)).await;
}
