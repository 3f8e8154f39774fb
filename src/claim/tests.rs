use bytes::Bytes;

use super::{store::Missed, *};
use crate::{event::Event, transform};

fn event(body: &'static str) -> Event {
    let body = Bytes::from_static(body.as_bytes());
    Event { body, content_type: Some("text/plain".into()), ..transform::tests::event() }
}

async fn stored(store: &Store, body: &'static str) -> Reference {
    let event = event(body);
    let reference = Reference::to_body_of(&event, store.root());
    store.put(&reference, &event.body).await.unwrap();
    reference
}

fn files(directory: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(directory).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            names.push(file.unwrap().file_name().into_string().unwrap());
        }
    }
    names
}

#[tokio::test]
async fn a_body_is_stored_under_its_hash_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(&directory.path().join("with spaces/ü")).await.unwrap();
    assert!(store.root().starts_with("file:///"), "{}", store.root());
    assert!(store.root().ends_with("with%20spaces/%C3%BC"), "{}", store.root());
    let reference = stored(&store, "hello").await;
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(reference.url, format!("{}/2c/{hash}", store.root()));
    assert_eq!(store.get(&reference).await.unwrap(), "hello");
    let (written, media_type) = reference.write();
    assert_eq!(&*media_type, "application/json");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&written).unwrap(),
        serde_json::json!({ "claim_check": {
            "url": reference.url, "bytes": 5, "sha256": hash, "datacontenttype": "text/plain",
        }})
    );
    assert_eq!(Reference::read(&written), Ok(reference));
}

#[tokio::test]
async fn the_same_body_is_one_object_however_often_it_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        // A process that knows nothing of the last one.
        let store = Store::directory(directory.path()).await.unwrap();
        stored(&store, "one").await;
        stored(&store, "one").await;
        stored(&store, "other").await;
    }
    assert_eq!(files(directory.path()).len(), 2);
}

async fn lost(store: &Store, reference: &Reference) -> &'static str {
    match store.get(reference).await {
        Err(Missed::Lost(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_body_that_is_gone_or_another_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).await.unwrap();
    let reference = stored(&store, "hello").await;
    let file = directory.path().join(reference.name());
    for other in ["hullo", "hello, world"] {
        std::fs::write(&file, other).unwrap();
        let why = lost(&store, &reference).await;
        assert_eq!(why, "the object that it refers to holds another body", "{other}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(lost(&store, &reference).await, "the object that it refers to is gone");
}

#[tokio::test]
async fn only_what_the_store_holds_is_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let (own, other) = (directory.path().join("own"), directory.path().join("other"));
    let store = Store::directory(&own).await.unwrap();
    let foreign = Store::directory(&other).await.unwrap();
    let reference = stored(&foreign, "secret").await;
    assert_eq!(foreign.get(&reference).await.unwrap(), "secret");
    let way_out = format!("{}/../other/{}", store.root(), reference.name());
    for url in [reference.url.clone(), way_out, "http://169.254.169.254/latest".into()] {
        let reference = Reference { url, ..reference.clone() };
        let why = lost(&store, &reference).await;
        assert_eq!(why, "its reference leads out of the store of `claim_check`");
    }
    let large = Reference { bytes: BODY_MAX + 1, ..stored(&store, "x").await };
    let why = lost(&store, &large).await;
    assert_eq!(why, "the body that it refers to has more than 64 MiB");
}

#[test]
fn what_is_no_reference_is_refused() {
    let reference = |sha256: &str| {
        let text =
            format!(r#"{{"claim_check":{{"url":"s3://b/x","bytes":1,"sha256":"{sha256}"}}}}"#);
        Reference::read(text.as_bytes())
    };
    assert!(reference(&"0f".repeat(32)).is_ok());
    for hash in ["", "../../etc/passwd", &"0F".repeat(32), &"ü".repeat(32)] {
        reference(hash).unwrap_err();
    }
    Reference::read(b"hello").unwrap_err();
    Reference::read(br#"{"claim_check":{}}"#).unwrap_err();
}

#[tokio::test]
async fn a_store_that_is_away_says_so_and_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::directory(&path).await.unwrap();
    let reference = stored(&store, "hello").await;
    std::fs::rename(&path, directory.path().join("away")).unwrap();
    std::fs::write(&path, "in its place").unwrap();
    let Err(Missed::Away(fault)) = store.get(&reference).await else { panic!() };
    assert_eq!((fault.verdict, fault.class), (crate::fault::Verdict::Stop, "directory"));
    assert!(fault.to_string().starts_with("fetch body failed: file:///"), "{fault}");
    let other = event("other");
    let put = store.put(&Reference::to_body_of(&other, store.root()), &other.body).await;
    assert_eq!(put.unwrap_err().class, "directory");
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(directory.path().join("away"), &path).unwrap();
    assert_eq!(store.get(&reference).await.unwrap(), "hello");
}

#[test]
fn a_prefix_is_plain() {
    for good in ["claims", "a/b-c/d_e.f"] {
        assert!(is_prefix(good), "{good}");
    }
    for bad in ["", "/a", "a/", "a//b", "a/../b", "a b", "ü", "a%2fb"] {
        assert!(!is_prefix(bad), "{bad}");
    }
}
