//! Checkpoints in Blob Storage, against Azurite.

use std::collections::HashMap;

use azure_storage_blob::{
    BlobContainerClient,
    models::{BlobClientGetPropertiesResultHeaders as _, BlobClientUploadOptions},
};
use eventferry::{
    cloud::Clouds,
    fault::Verdict,
    state::{
        Checkpoint, PartitionKey, StateStore as _,
        blob::{BlobStore, Config},
    },
};
use serde_json::json;

use crate::clouds::{azurite, unique};

/// A container, which also a foreign SDK looks into.
pub struct Container {
    name: String,
    foreign: BlobContainerClient,
}

pub async fn container() -> Container {
    let name = unique("checkpoints");
    Container { foreign: azurite::container(&name).await, name }
}

impl Container {
    /// A process that knows nothing of the others.
    pub async fn open(&self) -> BlobStore {
        open(&self.name).await.unwrap()
    }

    async fn metadata(&self, blob: &str) -> HashMap<String, String> {
        let answer = self.foreign.blob_client(blob).get_properties(None).await.unwrap();
        answer.metadata().unwrap()
    }

    /// What another SDK would have written.
    async fn put_foreign(&self, blob: &str, sequence: i64) {
        let metadata = [("sequencenumber", sequence.to_string()), ("offset", "0".to_owned())];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
        let options = BlobClientUploadOptions { metadata: Some(metadata), ..Default::default() };
        let blob = self.foreign.blob_client(blob);
        blob.upload(bytes::Bytes::new().into(), Some(options)).await.unwrap();
    }
}

async fn open(container: &str) -> Result<BlobStore, eventferry::fault::Fault> {
    let config: Config = serde_json::from_value(json!({ "container": container })).unwrap();
    let clouds = Clouds { azure: azurite::settings().await, ..Clouds::default() };
    config.open(&clouds).await
}

fn key(partition: &str) -> PartitionKey {
    PartitionKey {
        namespace: "Demo.servicebus.windows.net".into(),
        hub: "Orders".into(),
        group: "$Default".into(),
        partition: partition.into(),
    }
}

const LOWER: &str = "demo.servicebus.windows.net/orders/$default/checkpoint/0";
const VERBATIM: &str = "Demo.servicebus.windows.net/Orders/$Default/checkpoint/0";

fn at(sequence: i64) -> Checkpoint {
    Checkpoint { sequence, offset: format!("offset-{sequence}"), hub_made: Some(7) }
}

#[tokio::test]
async fn checkpoints_stand_where_every_sdk_looks_for_them() {
    let container = container().await;
    let store = container.open().await;
    assert_eq!(store.load(&key("0")).await.unwrap(), None);
    let partitions: Vec<_> = (0..20).map(|n| (key(&n.to_string()), at(n))).collect();
    store.store(&partitions).await.unwrap();
    for (key, checkpoint) in &partitions {
        let found = container.open().await.load(key).await.unwrap();
        assert_eq!(found.as_ref(), Some(checkpoint));
    }
    let metadata = container.metadata(LOWER).await;
    assert_eq!((&*metadata["sequencenumber"], &*metadata["offset"]), ("0", "offset-0"));
}

#[tokio::test]
async fn a_checkpoint_is_never_lowered() {
    let container = container().await;
    let store = container.open().await;
    for (sequence, expected) in [(10, 10), (9, 10), (10, 10), (11, 11)] {
        store.store(&[(key("0"), at(sequence))]).await.unwrap();
        assert_eq!(store.load(&key("0")).await.unwrap(), Some(at(expected)));
    }
}

#[tokio::test]
async fn the_late_write_of_a_zombie_does_not_rewind_its_successor() {
    let container = container().await;
    let (zombie, successor) = (container.open().await, container.open().await);
    zombie.store(&[(key("0"), at(10))]).await.unwrap();
    successor.store(&[(key("0"), at(20))]).await.unwrap();
    zombie.store(&[(key("0"), at(15))]).await.unwrap();
    assert_eq!(container.metadata(LOWER).await["sequencenumber"], "20");
    // Whoever is further on is right, whatever it knew before.
    zombie.store(&[(key("0"), at(25))]).await.unwrap();
    successor.store(&[(key("0"), at(24))]).await.unwrap();
    assert_eq!(container.metadata(LOWER).await["sequencenumber"], "25");
}

#[tokio::test]
async fn the_first_writes_of_two_processes_leave_the_higher_one() {
    let container = container().await;
    let (one, other) = (container.open().await, container.open().await);
    assert!(one.load(&key("0")).await.unwrap().is_none());
    assert!(other.load(&key("0")).await.unwrap().is_none());
    let (high, low) = ([(key("0"), at(8))], [(key("0"), at(7))]);
    let (high, low) = tokio::join!(one.store(&high), other.store(&low));
    high.unwrap();
    low.unwrap();
    assert_eq!(container.metadata(LOWER).await["sequencenumber"], "8");
}

#[tokio::test]
async fn the_higher_of_both_spellings_counts_and_lower_case_is_written() {
    let container = container().await;
    container.put_foreign(VERBATIM, 30).await;
    container.put_foreign(LOWER, 20).await;
    let store = container.open().await;
    assert_eq!(store.load(&key("0")).await.unwrap().unwrap().sequence, 30);
    store.store(&[(key("0"), at(25))]).await.unwrap();
    assert_eq!(container.metadata(LOWER).await["sequencenumber"], "20");
    store.store(&[(key("0"), at(31))]).await.unwrap();
    assert_eq!(container.metadata(LOWER).await["sequencenumber"], "31");
    assert_eq!(container.metadata(VERBATIM).await["sequencenumber"], "30");
}

#[tokio::test]
async fn a_forgotten_partition_starts_again_under_both_spellings() {
    let container = container().await;
    container.put_foreign(VERBATIM, 30).await;
    let store = container.open().await;
    store.store(&[(key("0"), at(40))]).await.unwrap();
    store.forget(&key("0")).await.unwrap();
    assert_eq!(store.load(&key("0")).await.unwrap(), None);
    store.store(&[(key("0"), at(1))]).await.unwrap();
    assert_eq!(store.load(&key("0")).await.unwrap(), Some(at(1)));
}

#[tokio::test]
async fn who_goes_back_goes_back_under_both_spellings_whether_there_was_a_checkpoint_or_not() {
    let container = container().await;
    container.put_foreign(VERBATIM, 30).await;
    container.put_foreign(LOWER, 20).await;
    let store = container.open().await;
    for (back, next) in [(7, 9), (0, 1)] {
        store.put_back(&key("0"), &at(back)).await.unwrap();
        let other = container.open().await;
        assert_eq!(other.load(&key("0")).await.unwrap(), Some(at(back)));
        store.store(&[(key("0"), at(next))]).await.unwrap();
        assert_eq!(other.load(&key("0")).await.unwrap(), Some(at(next)));
    }
    store.put_back(&key("1"), &at(5)).await.unwrap();
    assert_eq!(store.load(&key("1")).await.unwrap(), Some(at(5)));
}

#[tokio::test]
async fn what_another_sdk_has_left_of_a_hub_that_is_gone_sets_nobody_forward() {
    for (verbatim, lower) in [(30, 200), (200, 30)] {
        let container = container().await;
        container.put_foreign(VERBATIM, verbatim).await;
        container.put_foreign(LOWER, lower).await;
        let (store, other) = (container.open().await, container.open().await);
        let old = store.load(&key("0")).await.unwrap().unwrap();
        assert_eq!(old.sequence, 200);
        let begun = Checkpoint { hub_made: Some(1_700_000_000_000), ..at(10) };
        store.begin(&key("0"), &begun, Some(&old)).await.unwrap();
        assert_eq!(other.load(&key("0")).await.unwrap(), Some(begun.clone()));
        // Another replica has seen the old one as well.
        let late = Checkpoint { sequence: 12, ..begun.clone() };
        other.begin(&key("0"), &late, Some(&old)).await.unwrap();
        assert_eq!(store.load(&key("0")).await.unwrap(), Some(begun));
    }
}

#[tokio::test]
async fn of_several_that_begin_at_once_in_a_recreated_hub_one_says_where() {
    let container = container().await;
    let seed = container.open().await;
    let begun = |sequence| Checkpoint { hub_made: Some(1_700_000_000_000), ..at(sequence) };
    let replicas = futures::future::join_all((0..4).map(|_| container.open())).await;
    for partition in (0..20).map(|number| key(&number.to_string())) {
        seed.store(&[(partition.clone(), at(200))]).await.unwrap();
        let begin = replicas.iter().enumerate().map(async |(number, replica)| {
            let first = begun(10 + i64::try_from(number).unwrap());
            replica.begin(&partition, &first, Some(&at(200))).await.unwrap();
            // From here on it reads.
            replica.load(&partition).await.unwrap().unwrap().sequence
        });
        let told = futures::future::join_all(begin).await;
        let stands = seed.load(&partition).await.unwrap().unwrap().sequence;
        assert!((10..14).contains(&stands) && told.iter().all(|it| *it == stands), "{told:?}");
    }
}

#[tokio::test]
async fn a_missing_container_is_named_with_what_to_do() {
    let fault = open("no-such-container").await.err().unwrap();
    assert_eq!(fault.verdict, Verdict::Stop);
    let text = fault.to_string();
    assert!(text.contains("/no-such-container: 404"), "{text}");
    assert!(text.ends_with("create it, or mend its name or the account"), "{text}");
}
