#![no_main]
//! Patterns and an event in JSON or YAML, parted by zero bytes, the event last: reading says what is
//! wrong or makes a pattern, and all ways to match agree with the plain judge.

use eventferry::{
    cli::event_file::read_event,
    route::{
        self, When,
        pattern::{
            Pattern,
            fields::{Fields, Wanted},
            index::Index,
        },
    },
};
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use time::{OffsetDateTime, macros::datetime};

#[path = "../../src/route/pattern/judge.rs"]
mod judge;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
/// An index of fewer ways has no tree.
const WAYS_MIN: usize = 8;
/// The plain judge looks at every choice of one element from each array.
const WORLDS_MAX: usize = 200;
/// And at every way to match, one after the other.
const WORK_MAX: usize = 20_000;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut texts: Vec<_> = text.split('\0').collect();
    let Some(event) = texts.pop() else { return };
    let written: Vec<Map<String, Value>> = texts.into_iter().filter_map(document).collect();
    let (mut patterns, mut read) = (Vec::new(), Vec::new());
    for written in written {
        _ = When::read(&written);
        if let Ok(pattern) = Pattern::read(&written) {
            patterns.push(Value::Object(written));
            read.push(pattern);
        }
    }
    if let Some(event) = document::<Value>(event) {
        judged(&patterns, &read, &event);
        routed(&patterns, event);
    }
    malformed(&read, event);
});

/// JSON, else YAML.
fn document<T: DeserializeOwned>(text: &str) -> Option<T> {
    if let Ok(document) = serde_json::from_str(text) {
        return Some(document);
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).ok()
}

/// Every way to match comes to the same end.
fn judged(patterns: &[Value], read: &[Pattern], event: &Value) {
    let copies = WAYS_MIN.div_ceil(read.len().max(1));
    let index = Index::new((0..copies).flat_map(|_| read).map(Some));
    let mut wanted = Wanted::default();
    read.iter().rev().for_each(|pattern| pattern.want(&mut wanted));
    // What was read twice is not rounded twice.
    let text = event.to_string();
    let Ok(event) = serde_json::from_str::<Value>(&text) else { return };
    let mut fields = Fields::new(index.wanted(), NOW);
    assert!(fields.read_json(Wanted::TOP, text.as_bytes()));
    let mut other = Fields::new(&wanted, NOW);
    assert!(other.read_json(Wanted::TOP, text.as_bytes()));
    let found = index.matches(&fields);
    assert_eq!(found, index.matches(&other), "by other numbers");
    let worlds = (worlds(&event) <= WORLDS_MAX).then(|| judge::worlds("", &event));
    for (at, pattern) in patterns.iter().enumerate() {
        let one = read[at].matches(&other);
        for copy in 0..copies {
            assert_eq!(
                found.contains(&(at + copy * read.len())),
                one,
                "index: {pattern} on {event}"
            );
        }
        let failed = read[at].first_failure(&other);
        assert_eq!(failed.is_none(), one, "explained: {pattern} on {event}");
        let Some(worlds) = &worlds else { continue };
        // The judge knows no other zone than UTC.
        let written = pattern.to_string();
        if !written.contains("zone") && written.len() * worlds.len() <= WORK_MAX {
            let expected = judge::matches(pattern, worlds, NOW);
            assert_eq!(one, expected, "judged: {pattern} on {event}");
        }
    }
}

fn worlds(event: &Value) -> usize {
    match event {
        Value::Object(map) => map.values().map(worlds).fold(1, usize::saturating_mul),
        Value::Array(list) => list.iter().map(worlds).fold(0, usize::saturating_add).max(1),
        _ => 1,
    }
}

/// As routes see an event, with its own attributes beside the body.
fn routed(patterns: &[Value], event: Value) {
    let Ok(event) = read_event(event) else { return };
    for pattern in patterns.iter().filter_map(Value::as_object) {
        if let Ok(when) = When::read(pattern) {
            let mut wanted = Wanted::default();
            when.want(&mut wanted);
            let fields = route::fields(&event, &wanted, NOW);
            let accepted = when.accepts(&event, &fields);
            let failed = when.pattern().and_then(|pattern| pattern.first_failure(&fields));
            assert_eq!(accepted, Ok(failed.is_none()), "{pattern:?}");
        }
    }
}

/// What is no JSON has no fields, whatever came before the mistake.
fn malformed(read: &[Pattern], event: &str) {
    let index = Index::new(read.iter().map(Some));
    let mut fields = Fields::new(index.wanted(), NOW);
    let before = index.matches(&fields);
    if !fields.read_json(Wanted::TOP, event.as_bytes()) {
        assert_eq!(index.matches(&fields), before);
    }
}
