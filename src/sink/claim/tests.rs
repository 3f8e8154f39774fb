use std::{path::Path, sync::atomic::AtomicUsize};

use super::*;
use crate::{
    deliver::oversize::{self, Oversize},
    sink::memory::{MemorySink, Script},
    source::memory::{Config, Queue},
    transform,
};

fn queue() -> Queue {
    let config = serde_json::json!({ "queue": "far" });
    Queue::new(&serde_json::from_value::<Config>(config).unwrap())
}

async fn claiming(directory: &Path, queue: &Queue, script: Script) -> ClaimingSink {
    let inner = MemorySink::scripted(queue.clone(), script);
    let limits = Limits { event_bytes: 1000, ..inner.limits() };
    let store = Store::directory(directory).await.unwrap();
    ClaimingSink::new(Arc::new(inner.with_limits(limits)), Arc::new(store))
}

/// Two events, the second of which is too large.
fn batch(sink: &ClaimingSink) -> Vec<Outgoing> {
    let events = [b'a', b'b'].into_iter().zip([10, 2000]).map(|(letter, length)| {
        let body = vec![letter; length].into();
        Arc::new(Event { body, ..transform::tests::event() })
    });
    events
        .map(|event| oversize::fit(sink, &"test".into(), &event, Oversize::ClaimCheck).unwrap())
        .collect()
}

fn objects(directory: &Path) -> usize {
    let folders = std::fs::read_dir(directory).unwrap();
    folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test]
async fn a_body_is_stored_before_its_reference_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let (path, queue) = (directory.path().to_owned(), queue());
    let script = Box::new(move |_: &Outgoing| {
        assert_eq!(objects(&path), 1, "sent before it was stored");
        Ok(())
    });
    let sink = claiming(directory.path(), &queue, script).await;
    let answers = sink.send(&batch(&sink)).await;
    assert!(answers.iter().all(Result::is_ok));
    let contents = queue.contents();
    assert_eq!((contents.len(), &*contents[0].body), (2, &[b'a'; 10][..]));
    assert!(contents[1].body.starts_with(br#"{"claim_check":{"url":"file:///"#));
}

#[tokio::test]
async fn nothing_is_sent_while_the_store_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let (path, queue) = (directory.path().join("store"), queue());
    let sink = claiming(&path, &queue, Box::new(|_| Ok(()))).await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "in its place").unwrap();
    let batch = batch(&sink);
    let answers = sink.send(&batch).await;
    assert!(answers.iter().all(Result::is_err) && answers.len() == 2);
    assert!(queue.contents().is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(sink.send(&batch).await.iter().all(Result::is_ok));
    assert_eq!((queue.contents().len(), objects(&path)), (2, 1));
}

#[tokio::test]
async fn what_was_stored_and_not_sent_is_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    let queue = queue();
    let asked = Arc::new(AtomicUsize::new(0));
    for crash in [true, false] {
        let asked = asked.clone();
        let script = Box::new(move |_: &Outgoing| {
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match crash {
                true => Err(Fault::busy("send", "unreachable", "no answer")),
                false => Ok(()),
            }
        });
        // A process of its own each time.
        let sink = claiming(directory.path(), &queue, script).await;
        assert_eq!(sink.send(&batch(&sink)).await.iter().all(Result::is_err), crash);
        assert_eq!(objects(directory.path()), 1);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 4);
    assert_eq!(queue.contents().len(), 2);
}
