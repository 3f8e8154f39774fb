//! `check --against`: what a daemon that runs one file does to take up another.

use std::{fs, path::Path};

use eventferry::cli;

const RUNNING: &str = "
sources: { near: { memory: { queue: near } }, other: { memory: { queue: other } } }
sinks: { far: { memory: { queue: far } }, parked: { memory: { queue: parked } } }
dead_letter: parked
admin: off
routes:
  - { name: over, from: near, to: { all: [far] } }
  - { name: apart, from: other, to: { all: [far] } }
";

/// What is said of a file against the one that runs, behind its guarantees; and whether it can be
/// used.
async fn against(running: &str, new: &str) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("running.yaml"), running).unwrap();
    fs::write(path("new.yaml"), new).unwrap();
    let mut out = Vec::new();
    let usable = check(&path("new.yaml"), &path("running.yaml"), &mut out).await;
    let text = String::from_utf8(out).unwrap();
    let text = text.replace(&format!("{}/", dir.path().display()), "");
    let said = text
        .split_once("apart: ")
        .map_or(&*text, |(_, rest)| rest.split_once("\n\n").map_or("", |(_, said)| said));
    (usable, said.to_owned())
}

async fn check(new: &Path, running: &Path, out: &mut Vec<u8>) -> bool {
    cli::check(new, false, Some(running), out).await.unwrap()
}

#[tokio::test]
async fn a_file_that_means_the_same_starts_nothing_anew() {
    let (usable, said) = against(RUNNING, &format!("# Why.\n{RUNNING}")).await;
    assert!(usable);
    insta::assert_snapshot!(said, @r"
    nothing differs

    new.yaml can be used; its generation is 036a081b57a1
    ");
}

#[tokio::test]
async fn what_differs_is_listed_with_what_starts_anew_for_it() {
    let new = RUNNING.replace("name: over,", "name: over, sample: { share: 10% },");
    let (usable, said) = against(RUNNING, &new).await;
    assert!(usable);
    insta::assert_snapshot!(said, @r"
    ~ route over: sample
    starting anew: near

    new.yaml can be used; its generation is f84cc7cd54c5
    ");
    // It can be used, but not without a restart.
    let (usable, said) = against(&RUNNING.replace("admin: off\n", ""), &new).await;
    assert!(usable);
    insta::assert_snapshot!(said, @r"
    where `admin` listens, and its `tls`, cannot change while the daemon runs; restart it, or set them as they were

    new.yaml can be used; its generation is f84cc7cd54c5
    ");
}

#[tokio::test]
async fn a_broken_file_is_named_whichever_it_is() {
    let broken = RUNNING.replace("to: { all: [far] }", "to: { all: [fra] }");
    let (usable, said) = against(RUNNING, &broken).await;
    assert!(!usable);
    insta::assert_snapshot!(said, @r"
    new.yaml:7:43  routes[0].to.all[0]: `fra` is not one of the sinks; did you mean `far`?
    new.yaml:8:45  routes[1].to.all[0]: `fra` is not one of the sinks; did you mean `far`?
    2 problems
    ");
    let (usable, said) = against(&broken, RUNNING).await;
    assert!(!usable);
    insta::assert_snapshot!(said, @r"
    running.yaml:7:43  routes[0].to.all[0]: `fra` is not one of the sinks; did you mean `far`?
    running.yaml:8:45  routes[1].to.all[0]: `fra` is not one of the sinks; did you mean `far`?
    2 problems
    ");
}
