//! Going back in a hub that replicas share: each in what it has, and nobody in what another has.

use eventferry::{
    source::{
        SourceConfig,
        positions::{Rewind, Rewound, rewind},
    },
    state::Checkpoint,
};

use super::*;
use crate::rig;

async fn only_what_nobody_else_has_goes_back(shared: Shared) {
    let world = World::new(shared).await;
    let group = Group { namespace: world.namespace.clone(), ..group("") };
    for partition in ["0", "1", "2"] {
        let events = (0..10).map(|number| Seed::new(number.to_string())).collect();
        let (hub, partition_key) = (NEAR.to_owned(), None);
        let append = Append { hub, partition: Some(partition.into()), partition_key, events };
        world.emulator.control().append(append).unwrap();
        let settled = Checkpoint { sequence: 9, offset: "x".into(), hub_made: None };
        world.store.store(&[(group.partition(partition), settled)]).await.unwrap();
    }
    // Another replica has 1, and 2 was given up to one that wants it.
    let other = world.shared.open().await;
    let other = other.ownership().unwrap();
    let has = Record { owner: other.replica().to_owned(), wanted_by: None };
    other.put(&group.partition("1"), &has, None).await.unwrap().unwrap();
    let had = other.put(&group.partition("2"), &has, None).await.unwrap().unwrap();
    let wants = Record { owner: String::new(), wanted_by: Some("eventferry-third".to_owned()) };
    other.put(&group.partition("2"), &wants, Some(&had.version)).await.unwrap().unwrap();

    let source = json!({ "event_hubs": world.source(&json!({})) });
    let config: SourceConfig = serde_json::from_value(source).unwrap();
    let positions = config.positions(&rig::context("near", &world.store)).unwrap().unwrap();
    let asked = async |partition: Option<&str>, to: Json| {
        let wish = json!({ "partition": partition, "to": to });
        let wish: Rewind = serde_json::from_value(wish).unwrap();
        rewind(&*positions, &wish).await
    };
    let refused = asked(Some("1"), json!("earliest")).await.unwrap_err().to_string();
    assert!(refused.contains(other.replica()) && refused.contains("partition 1"), "{refused}");
    let moved = asked(None, json!({ "time": "2020-01-01T00:00:00Z" })).await.unwrap();
    let moved: Vec<_> = moved
        .into_iter()
        .filter(|it| it.repeats > 0 || it.refused.is_some())
        .map(|Rewound { partition, repeats, refused, .. }| (partition, repeats, refused.is_some()))
        .collect();
    let of = |partition: &str, repeats, refused| (partition.to_owned(), repeats, refused);
    assert_eq!(moved, [of("0", 10, false), of("1", 0, true), of("2", 10, false)]);

    let at = async |partition: &str| {
        world.store.load(&group.partition(partition)).await.unwrap().map(|it| it.sequence)
    };
    assert_eq!((at("0").await, at("1").await, at("2").await), (Some(-1), Some(9), Some(-1)));
    let records = other.list(&group).await.unwrap();
    let me = world.store.ownership().unwrap().replica();
    assert_eq!((&*records["0"].record.owner, &*records["2"].record.owner), (me, me));
    assert_eq!(records["1"].record, has);
    let wanted_by = records["2"].record.wanted_by.as_deref();
    assert_eq!(wanted_by, Some("eventferry-third"), "it gets it once it is read again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_nobody_else_has_goes_back_by_redis() {
    only_what_nobody_else_has_goes_back(Shared::redis().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_nobody_else_has_goes_back_by_blob_storage() {
    only_what_nobody_else_has_goes_back(Shared::blob().await).await;
}
