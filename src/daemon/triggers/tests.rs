use std::{os::unix::fs::symlink, path::Path};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::*;
use crate::{
    config::{environment::Environment, problem::Problems},
    daemon::reload,
};

const FILE: &str = "
reload: { watch: 1s }
sources: { near: { memory: { queue: near } } }
sinks: { far: { memory: { queue: far } } }
routes:
  - name: over
    from: near
    to: { all: [far] }
    transform: [{ validate: { schemas: { order: { 1: order.json } }, unknown: pass } }]
unmatched: drop
";

/// A file in a folder of its own, beside its schemas, and what looks at it.
struct Fixture {
    dir: tempfile::TempDir,
    triggers: Triggers,
}

fn plan(file: &Path) -> Plan {
    let checked = config::load(file, &Environment::default());
    checked.unwrap_or_else(|problems| panic!("{problems}")).plan
}

impl Fixture {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(dir.path().join("order.json"), r#"{ "$ref": "part.json" }"#).unwrap();
        std::fs::write(dir.path().join("part.json"), "true").unwrap();
        let (_, requests) = reload::requests();
        let hangup = signal(SignalKind::hangup()).unwrap();
        let running = plan(&path);
        let triggers = Triggers::new(Some(File { path, hangup }), requests, &running);
        Self { dir, triggers }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Whoever asks within so many seconds.
    async fn asked(&mut self, seconds: u64) -> Option<Request> {
        let next = timeout(Duration::from_secs(seconds), self.triggers.next()).await.ok()?;
        assert_eq!(next.by, By::Change);
        Some(next)
    }
}

fn with(more: &str) -> String {
    format!("{FILE}# {more}\n")
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_asked_for_once() {
    let mut fixture = Fixture::new(FILE);
    assert!(fixture.asked(10).await.is_none());
    fixture.write("ferry.yaml", &with("another"));
    assert!(fixture.asked(10).await.is_some());
    assert!(fixture.asked(60).await.is_none());
    fixture.write("ferry.yaml", FILE);
    assert!(fixture.asked(10).await.is_some(), "back to what it was is a change, too");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_still_being_written_is_not() {
    let mut fixture = Fixture::new(FILE);
    for more in ["a", "ab", "abc"] {
        fixture.write("ferry.yaml", &with(more));
        // Time for one look, not for two.
        let asked = timeout(Duration::from_millis(900), fixture.triggers.next());
        assert!(asked.await.is_err(), "{more}");
    }
    assert!(fixture.asked(2).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_is_not() {
    let mut fixture = Fixture::new(FILE);
    std::fs::remove_file(fixture.dir.path().join("ferry.yaml")).unwrap();
    assert!(fixture.asked(60).await.is_none());
    fixture.write("ferry.yaml", &with("again"));
    assert!(fixture.asked(3).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_leads_elsewhere_is_a_change() {
    let mut fixture = Fixture::new(FILE);
    let dir = fixture.dir.path().to_owned();
    std::fs::create_dir(dir.join("..1")).unwrap();
    std::fs::write(dir.join("..1/ferry.yaml"), with("elsewhere")).unwrap();
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/ferry.yaml", dir.join("link")).unwrap();
    std::fs::rename(dir.join("link"), dir.join("ferry.yaml")).unwrap();
    assert!(fixture.asked(3).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_changed_schema_is_a_change_also_where_another_refers_to_it() {
    let mut fixture = Fixture::new(FILE);
    let before = plan(&fixture.dir.path().join("ferry.yaml"));
    fixture.write("part.json", "false");
    assert!(fixture.asked(3).await.is_some());
    let after = plan(&fixture.dir.path().join("ferry.yaml"));
    assert_ne!(before, after, "the plans differ, though their settings do not");
    assert_ne!(before.generation, after.generation);
    fixture.triggers.applied(&after);
    assert!(fixture.asked(60).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_did_not_answer_is_tried_again_and_what_is_wrong_is_not() {
    let mut fixture = Fixture::new(FILE);
    fixture.write("ferry.yaml", &with("another"));
    let asked = fixture.asked(3).await.unwrap();
    asked.answer.send(Err(Arc::new(Refused::Unusable(Vec::new())))).unwrap();
    assert!(fixture.asked(25).await.is_none());
    let asked = fixture.asked(10).await.expect("it is tried again");
    let problems = Problems { file: "ferry.yaml".to_owned(), all: Vec::new() };
    asked.answer.send(Err(Arc::new(Refused::Invalid(problems)))).unwrap();
    assert!(fixture.asked(600).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_says_so_is_not_looked_at() {
    let mut fixture = Fixture::new(&FILE.replace("{ watch: 1s }", "on_request"));
    fixture.write("ferry.yaml", FILE);
    assert!(fixture.asked(7200).await.is_none());
}
