//! Patterns and the index against the plain judge: random patterns on random events, of so few names
//! and values that they often meet.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, macros::datetime};

use super::{
    Pattern,
    fields::{Fields, Wanted},
    index::Index,
    judge::{matches, worlds},
};

mod ruler;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// Makes patterns and events.
struct Maker(StdRng);

const NAMES: [&str; 4] = ["a", "b", "c", "a.b"];
const TEXTS: [&str; 8] = ["", "x", "xy", "X", "yx", "y", "xyx", "XY"];
const OTHERS: [&str; 5] = [
    "10.0.0.1",
    "10.2.0.0",
    "2026-11-21T11:59:30Z",
    "2026-11-21T11:59:00Z",
    "2026-11-20T13:00:00Z",
];
const NUMBERS: [f64; 6] = [0.0, 1.0, 2.0, -1.0, 1.5, -0.0];

impl Maker {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.0).unwrap()
    }

    fn number(&mut self) -> f64 {
        *NUMBERS.choose(&mut self.0).unwrap()
    }

    fn scalar(&mut self) -> Value {
        match self.0.random_range(0..12) {
            0 => Value::Null,
            1 => json!(self.0.random_bool(0.5)),
            2..5 => json!(self.number()),
            5..7 => json!(self.one(&OTHERS)),
            _ => json!(self.one(&TEXTS)),
        }
    }

    fn event(&mut self, depth: usize) -> Value {
        let names = self.0.random_range(2..7);
        let entry = |maker: &mut Self| (maker.one(&NAMES).to_owned(), maker.value(depth));
        (0..names).map(|_| entry(self)).collect::<Map<_, _>>().into()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.0.random_range(0..10) {
            0..3 if depth > 0 => self.event(depth - 1),
            3..6 if depth > 0 => {
                let count = self.0.random_range(0..4);
                (0..count).map(|_| self.value(depth - 1)).collect::<Vec<_>>().into()
            }
            _ => self.scalar(),
        }
    }

    fn pattern(&mut self, depth: usize) -> Value {
        let mut pattern = Map::new();
        for _ in 0..self.0.random_range(1..3) {
            let (name, value) = match self.0.random_range(0..10) {
                0..4 if depth > 0 => (self.one(&NAMES), self.pattern(depth - 1)),
                4 if depth > 0 => {
                    let branches = self.0.random_range(2..4);
                    let branches = (0..branches).map(|_| self.pattern(depth - 1));
                    ("$or", branches.collect::<Vec<_>>().into())
                }
                _ => {
                    let tests = self.0.random_range(1..5);
                    let tests = (0..tests).map(|_| self.test()).collect::<Vec<_>>();
                    (self.one(&NAMES), tests.into())
                }
            };
            pattern.insert(name.to_owned(), value);
        }
        pattern.into()
    }

    fn test(&mut self) -> Value {
        let (number, text) = (self.number(), self.one(&TEXTS));
        let wildcard = self.one(&["*", "x*", "*x", "*y*", "x*x", "xy", "*X*y"]);
        match self.0.random_range(0..22) {
            0 => json!({"prefix": text}),
            1 => json!({"suffix": text}),
            2 => json!({"equals-ignore-case": text}),
            3 => json!({"prefix": {"equals-ignore-case": text}}),
            4 => json!({"suffix": {"equals-ignore-case": text}}),
            5 => json!({"wildcard": wildcard}),
            6 => json!({"anything-but": [text, self.one(&TEXTS)]}),
            7 => json!({"anything-but": number}),
            8 => {
                let operator = self.one(&["prefix", "suffix", "equals-ignore-case"]);
                json!({"anything-but": {operator: [self.one(&["x", "y"]), "xyx"]}})
            }
            9 => json!({"anything-but": {"wildcard": wildcard}}),
            10 => {
                let comparison = self.one(&["=", ">", ">=", "<", "<="]);
                json!({"numeric": [comparison, number]})
            }
            11 => {
                let (above, below) = (self.one(&[">", ">="]), self.one(&["<", "<="]));
                json!({"numeric": [above, number, below, number + 1.0]})
            }
            12 => json!({"exists": true}),
            13 => json!({"exists": false}),
            14 => json!({"cidr": self.one(&["10.0.0.0/8", "10.0.0.0/31"])}),
            15 => json!({self.one(&["newer_than", "older_than"]): "1m"}),
            16 => json!({"daily": {"from": "00:00", "to": "12:00"}}),
            _ => self.scalar(),
        }
    }
}

/// Rounds of `patterns` against twenty events each.
fn agree(seed: u64, pairs: usize, patterns: usize) {
    const EVENTS: usize = 20;
    let mut maker = Maker(StdRng::seed_from_u64(seed));
    let mut matched = 0;
    for _ in 0..pairs / patterns / EVENTS {
        let written: Vec<_> = (0..patterns).map(|_| maker.pattern(2)).collect();
        let read = |pattern: &Value| Pattern::read(pattern.as_object().unwrap());
        let read: Vec<_> = written.iter().map(|written| read(written).unwrap()).collect();
        let index = Index::new(read.iter().map(Some));
        let mut wanted = Wanted::default();
        read.iter().rev().for_each(|pattern| pattern.want(&mut wanted));
        for _ in 0..EVENTS {
            let event = maker.event(2);
            let text = event.to_string();
            let mut fields = Fields::new(index.wanted(), NOW);
            assert!(fields.read_json(Wanted::TOP, text.as_bytes()));
            let mut other = Fields::new(&wanted, NOW);
            assert!(other.read_json(Wanted::TOP, text.as_bytes()));
            let worlds = worlds("", &event);
            let (found, others) = (index.matches(&fields), index.matches(&other));
            for (at, pattern) in written.iter().enumerate() {
                let expected = matches(pattern, &worlds, NOW);
                assert_eq!(read[at].matches(&other), expected, "{pattern} on {event}");
                assert_eq!(found.contains(&at), expected, "index: {pattern} on {event}");
                let failed = read[at].first_failure(&other);
                assert_eq!(failed.is_none(), expected, "explained: {pattern} on {event}");
                assert_eq!(others.contains(&at), expected, "by other numbers: {pattern}");
                matched += usize::from(expected);
            }
        }
    }
    assert!((pairs / 20..pairs / 2).contains(&matched), "{matched} of {pairs} pairs match");
}

/// They would be filed as two numbers, and looked up as one.
#[test]
fn zero_is_found_whatever_its_sign() {
    let patterns = ["0", "-0.0", "-0"].map(|zero| format!(r#"{{"a": [{zero}]}}"#));
    let read = |text: &String| Pattern::read(&serde_json::from_str(text).unwrap()).unwrap();
    let patterns: Vec<_> = patterns.iter().cycle().take(12).map(read).collect();
    let index = Index::new(patterns.iter().map(Some));
    for event in [r#"{"a": 0}"#, r#"{"a": -0.0}"#] {
        let mut fields = Fields::new(index.wanted(), NOW);
        assert!(fields.read_json(Wanted::TOP, event.as_bytes()));
        assert_eq!(index.matches(&fields).len(), 12, "{event}");
    }
}

#[test]
fn random_pairs_are_judged_as_the_definition_says() {
    agree(1, 2_000, 2);
    agree(2, 8_000, 20);
    agree(3, 10_000, 250);
}

#[test]
fn a_million_random_pairs_are_judged_as_the_definition_says() {
    for seed in 0..10 {
        agree(10 + seed, 50_000, 10 + seed as usize * 10);
        agree(30 + seed, 50_000, 500);
    }
}

/// The pattern with something left out, or let pass, or asked otherwise.
fn loosened(maker: &mut Maker, pattern: &Value) -> Value {
    let mut loose = Map::new();
    for (name, value) in pattern.as_object().unwrap() {
        let mut value = match value {
            _ if maker.0.random_bool(0.2) => continue,
            Value::Object(_) => loosened(maker, value),
            value => value.clone(),
        };
        if let Value::Array(tests) = &mut value
            && name != "$or"
        {
            let at = maker.0.random_range(0..tests.len());
            match maker.0.random_range(0..3) {
                0 => tests.push(maker.test()),
                1 => tests[at] = maker.test(),
                _ => {}
            }
        }
        loose.insert(name.clone(), value);
    }
    loose.into()
}

#[test]
fn what_a_pattern_covers_it_matches() {
    let mut maker = Maker(StdRng::seed_from_u64(7));
    let (mut covered, mut matched) = (0, 0);
    for _ in 0..20_000 {
        let less = maker.pattern(1);
        let more = loosened(&mut maker, &less);
        let read = |pattern: &Value| Pattern::read(pattern.as_object().unwrap());
        let (Ok(more_read), Ok(less_read)) = (read(&more), read(&less)) else { continue };
        if more == less || !more_read.covers(&less_read) {
            continue;
        }
        covered += 1;
        for _ in 0..20 {
            let event = maker.event(2);
            let worlds = worlds("", &event);
            let is_matched = matches(&less, &worlds, NOW);
            matched += u32::from(is_matched);
            assert!(!is_matched || matches(&more, &worlds, NOW), "{more} {less} {event}");
        }
    }
    assert!(covered > 1_000 && matched > 1_000, "{covered} {matched}");
}
