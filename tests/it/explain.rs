//! `explain` and `test`: what they say about an event, before anything runs.

use std::{fs, path::Path};

use eventferry::cli::{
    self,
    event_file::{read_event, show_event},
    explain::Options,
    paint::Paint,
};
use serde_json::{Value, json};

const CONFIG: &str = "tests/it/explain/orders.yaml";

/// Tests run in the directory of the crate, so that paths are the same everywhere.
fn run_tests(config: &str, file: &str) -> (bool, String) {
    let mut out = Vec::new();
    let files = [file.into()];
    let passed = cli::test(Path::new(config), &files, Paint::Plain, &mut out).unwrap();
    (passed, String::from_utf8(out).unwrap())
}

fn explain(config: &str, event: &Value, source: Option<&str>, json: bool) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), event.to_string()).unwrap();
    let event = file.path().to_str().unwrap().to_owned();
    let options = Options { event: event.clone(), source: source.map(str::to_owned), json };
    let mut out = Vec::new();
    let said = cli::explain(Path::new(config), &options, Paint::Plain, &mut out).unwrap();
    (said, String::from_utf8(out).unwrap().replace(&event, "event.json"))
}

fn order() -> Value {
    serde_json::from_slice(&fs::read("tests/it/explain/order.json").unwrap()).unwrap()
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("explain/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_example_passes() {
    let mut count = 0;
    for entry in fs::read_dir("config/tests").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let (passed, said) = run_tests(&format!("config/{name}"), path.to_str().unwrap());
        assert!(passed, "{said}");
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn tests_that_pass_and_tests_that_fail() {
    let (passed, said) = run_tests(CONFIG, "tests/it/explain/passing.yaml");
    assert!(passed, "{said}");
    assert!(said.ends_with("5 passed, 0 failed\n"), "{said}");
    let (passed, said) = run_tests(CONFIG, "tests/it/explain/failing.yaml");
    assert!(!passed);
    settings().bind(|| insta::assert_snapshot!("failing", said));
}

#[test]
fn a_file_that_cannot_be_read_names_its_place() {
    let (passed, said) = run_tests(CONFIG, "tests/it/explain/broken.yaml");
    assert!(!passed);
    assert!(said.starts_with("tests/it/explain/broken.yaml:4:15  "), "{said}");
    assert!(said.contains("`ruted`"), "{said}");
    let (passed, said) = run_tests(CONFIG, "tests/it/explain/absent.yaml");
    assert!(!passed && said.contains("absent.yaml  cannot read: "), "{said}");
}

#[test]
fn an_event_is_explained_to_a_person() {
    let (said, text) = explain(CONFIG, &order(), None, false);
    assert!(said);
    settings().bind(|| insta::assert_snapshot!("order", text));
}

#[test]
fn what_does_not_fit_goes_to_a_stand_in_or_to_the_dead_letter() {
    // The queue counts base64, and takes 64 KiB of it.
    let event = json!({"type": "order.export", "data": "x".repeat(30_000)});
    let (_, text) = explain(CONFIG, &event, None, false);
    assert!(text.contains("to small, a Storage Queue"), "{text}");
    assert!(text.contains("dedup            none: the route has no `dedup`"), "{text}");
    let large = "x".repeat(50_000);
    let event = json!({"type": "order.export", "data": large});
    let (_, text) = explain(CONFIG, &event, None, false);
    assert!(text.contains("not to small: ") && text.contains("to queue, an SQS queue"), "{text}");
    let event = json!({"type": "order.placed", "data": {"order": 1, "items": [{"sku": large}]}});
    let (_, text) = explain(CONFIG, &event, None, false);
    assert!(text.contains("dead letter, to parked: too_large\n        small: "), "{text}");
    assert!(text.contains("characters more; --json shows all"), "{text}");
    let (_, text) = explain(CONFIG, &json!({"type": "test.x"}), None, false);
    assert!(text.contains("`tests` has taken it, and says `stop`"), "{text}");
}

#[test]
fn sinks_that_take_turns_are_told_with_their_shares() {
    let (_, text) = explain(CONFIG, &json!({"type": "order.shared"}), None, false);
    assert!(text.contains("picked           in turn, queue 66.7 %, small 33.3 %\n"), "{text}");
    let (_, text) = explain(CONFIG, &json!({"type": "order.shared"}), None, true);
    let said: Value = serde_json::from_str(&text).unwrap();
    let routes = said["sources"][0]["routes"].as_array().unwrap();
    let shared = routes.iter().find(|route| route["route"] == "shared").unwrap();
    assert_eq!(shared["outcomes"][0]["sent"]["sink"], "queue");
    assert_eq!(shared["outcomes"][0]["sent"]["or_to"], json!(["small"]));
    let (_, text) = explain(CONFIG, &json!({"type": "order.export"}), None, false);
    assert!(text.contains("picked           the first that works of small, queue\n"), "{text}");
}

#[test]
fn an_event_is_explained_as_json() {
    let (_, text) = explain(CONFIG, &order(), Some("orders"), true);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read_event(said["event"].clone()).unwrap(), read_event(order()).unwrap());
    let route = &said["sources"][0]["routes"][1];
    assert_eq!(route["route"], "shaped");
    assert_eq!(route["steps"][0]["events"][0]["subject"], "order 7");
    let sent = &route["outcomes"][1]["sent"];
    assert_eq!((&sent["sink"], &sent["wait_secs"]), (&json!("topic"), &json!(90)));
    assert_eq!(sent["labels"]["message group"], "customer-7");
    assert_eq!(sent["bytes_max"], 262_144);
    let dedup = &sent["dedup"];
    assert_eq!((&dedup["of"], &dedup["ttl"]), (&json!("/shop 7"), &json!("1day")));
    assert_eq!(dedup["scope"], "route shaped into topic");
    assert_eq!(
        (dedup["key"].as_str().unwrap().len(), &dedup["on_store_failure"]),
        (40, &json!("hold"))
    );
    let flow = json!({
        "limit": { "events_per_second": 300.0, "bytes_per_second": "1MiB" },
        "concurrency": { "min": 2, "max": 4 },
        "breaker": { "failures": 3, "open": "2s", "open_max": "1m" },
    });
    assert_eq!(sent["flow"], flow);
    // What is known of the kind, where the file says nothing.
    assert_eq!(route["outcomes"][0]["sent"]["flow"]["concurrency"], json!({ "min": 1, "max": 8 }));
    assert_eq!(said["sources"][0]["routes"][0]["outcomes"], json!([]));
    // What is sent is what the last step made.
    let event = read_event(sent["event"].clone()).unwrap();
    assert_eq!(show_event(&event), route["steps"][1]["events"][0]);
}

#[test]
fn what_cannot_be_explained_is_told() {
    for (event, source, told) in [
        (
            json!({"tpye": "x"}),
            None,
            "event.json  `tpye` is nothing that an event has; did you mean `type`?\n",
        ),
        (json!({}), Some("order"), "there is no source `order`; did you mean `orders`?\n"),
    ] {
        assert_eq!(explain(CONFIG, &event, source, false), (false, told.to_owned()));
    }
    let (said, text) = explain("config/absent.yaml", &json!({}), None, false);
    assert!(!said && text.contains("cannot read"), "{text}");
}
