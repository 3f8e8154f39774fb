//! Patterns against event-ruler, the library that Amazon EventBridge matches with: `make ruler`.
//! What docs/patterns.md lists as judged otherwise is told apart by its reason; all else must be
//! the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Maker, NOW};
use crate::route::pattern::{
    Pattern,
    fields::{Fields, Wanted},
    judge::{self, worlds},
};

const PAIRS: usize = 300_000;
/// Events for each pattern.
const EVENTS: usize = 4;

/// What a judge says of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Match,
    NoMatch,
    Invalid,
    /// The library fails at the event.
    Error,
}

/// Texts and numbers that judges may take for something else.
const TEXTS: [&str; 22] = [
    "ß",
    "SS",
    "ss",
    "İ",
    "i̇",
    "ς",
    "Σ",
    "é",
    "É",
    "*",
    "\\*",
    "x*",
    "\\",
    "\"x\"",
    "null",
    "1",
    "1.0",
    "::1",
    "0:0:0:0:0:0:0:1",
    "10.0.0.01",
    "2001:db8::/32",
    "10.0.0.0/33",
];
const NUMBERS: [&str; 13] = [
    "0.1",
    "0.30000000000000004",
    "0.3",
    "1e-7",
    "1.0000001",
    "1.00",
    "10",
    "1e1",
    "5000000000",
    "5000000001",
    "9007199254740993",
    "1e300",
    "-5000000000.5",
];
const OPERATORS: [&str; 12] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "exists",
    "cidr",
    "exactly",
    "$or",
    "=",
    "odd",
];

impl Maker {
    /// The same with stranger values here and there.
    fn stir(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(|value| self.stir(value)),
            Value::Array(list) => list.iter_mut().for_each(|value| self.stir(value)),
            Value::String(text) if self.0.random_bool(0.3) => *text = self.one(&TEXTS).to_owned(),
            Value::Number(_) if self.0.random_bool(0.3) => {
                *value = serde_json::from_str(self.one(&NUMBERS)).unwrap();
            }
            _ => {}
        }
    }

    /// The same with something in one place that may make no sense there.
    fn spoil(&mut self, value: &mut Value) {
        let deeper = self.0.random_bool(0.7);
        match value {
            Value::Object(map) if deeper && !map.is_empty() => {
                let at = self.0.random_range(0..map.len());
                self.spoil(map.values_mut().nth(at).unwrap());
            }
            Value::Array(list) if deeper && !list.is_empty() => {
                let at = self.0.random_range(0..list.len());
                self.spoil(&mut list[at]);
            }
            Value::Object(map) if self.0.random_bool(0.5) => {
                map.insert(self.one(&OPERATORS).to_owned(), self.odd());
            }
            Value::Array(list) if self.0.random_bool(0.5) => list.push(self.odd()),
            other => *other = self.odd(),
        }
    }

    fn odd(&mut self) -> Value {
        match self.0.random_range(0..8) {
            0 => json!({}),
            1 => json!([]),
            2 => json!([self.odd()]),
            3 => json!([self.scalar(), self.scalar()]),
            4 | 5 => json!({self.one(&OPERATORS): self.odd()}),
            6 => json!({self.one(&OPERATORS): self.scalar()}),
            _ => self.scalar(),
        }
    }

    /// A pattern that says nothing about the age of a time: the library knows nothing of those.
    fn timeless(&mut self) -> Value {
        loop {
            let pattern = self.pattern(2);
            let text = pattern.to_string();
            if !["newer_than", "older_than", "daily"].iter().any(|clock| text.contains(clock)) {
                return pattern;
            }
        }
    }
}

fn ours(pattern: &Value, event: &Value) -> Verdict {
    let Some(Ok(pattern)) = pattern.as_object().map(Pattern::read) else { return Verdict::Invalid };
    let mut wanted = Wanted::default();
    pattern.want(&mut wanted);
    let text = event.to_string();
    let mut fields = Fields::new(&wanted, NOW);
    assert!(fields.read_json(Wanted::TOP, text.as_bytes()));
    if pattern.matches(&fields) { Verdict::Match } else { Verdict::NoMatch }
}

/// What the library says of each pair.
fn theirs(pairs: &[(Value, Value)]) -> Vec<Verdict> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ruler");
    let lines = pairs.iter().map(|(pattern, event)| {
        json!({"pattern": pattern.to_string(), "event": event.to_string()}).to_string() + "\n"
    });
    let asked = built.join("pairs.jsonl");
    fs::write(&asked, lines.collect::<String>()).expect("`make ruler` builds the judge first");
    let classes = format!("{}:{}", built.join("classes").display(), built.join("lib/*").display());
    let mut judge = Command::new("java");
    judge.args(["-cp", &classes, "Judge"]).stdin(fs::File::open(&asked).unwrap());
    let answer = judge.output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let verdict = |line: &str| match line {
        "match" => Verdict::Match,
        "no match" => Verdict::NoMatch,
        "invalid" => Verdict::Invalid,
        "error" => Verdict::Error,
        other => panic!("{other}"),
    };
    String::from_utf8(answer.stdout).unwrap().lines().map(verdict).collect()
}

/// Why one of the two refuses the pattern, where docs/patterns.md says so.
fn refused(pattern: &Value, by_us: bool) -> Option<&'static str> {
    let operands = [("exactly", "`exactly`"), ("", "`anything-but` of nothing")];
    let of_texts = ["wildcard", "prefix", "suffix", "equals-ignore-case"];
    let wrong = |name: &str, value: &Value, in_or: bool| match (name, value) {
        ("exactly", Value::String(_)) => by_us.then_some(operands[0].1),
        (name, Value::Array(list)) if list.is_empty() && of_texts.contains(&name) => {
            by_us.then_some(operands[1].1)
        }
        _ if by_us => None,
        ("$or", Value::Array(list)) if !list.iter().all(Value::is_object) => {
            Some("`$or` as a field")
        }
        (name, Value::Array(_) | Value::Object(_)) if in_or && OPERATORS.contains(&name) => {
            Some("an operator as a field below `$or`")
        }
        (name, Value::Object(map)) if map.contains_key("$or") && OPERATORS.contains(&name) => {
            Some("an operator as a field above `$or`")
        }
        _ => None,
    };
    found(pattern, false, &wrong).or_else(|| {
        let inexact = |number: &Value| number.as_i64().is_some_and(|n| n as f64 as i64 != n);
        (!by_us && any(pattern, &inexact)).then_some("a number that is none of 64 bits")
    })
}

/// What `wrong` says of a member of this value, or of one below it.
fn found(
    value: &Value,
    in_or: bool,
    wrong: &impl Fn(&str, &Value, bool) -> Option<&'static str>,
) -> Option<&'static str> {
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| {
            wrong(name, value, in_or).or_else(|| found(value, in_or || name == "$or", wrong))
        }),
        Value::Array(list) => list.iter().find_map(|value| found(value, in_or, wrong)),
        _ => None,
    }
}

fn any(value: &Value, is: &impl Fn(&Value) -> bool) -> bool {
    match value {
        Value::Object(map) => map.values().any(|value| any(value, is)),
        Value::Array(list) => list.iter().any(|value| any(value, is)),
        scalar => is(scalar),
    }
}

/// A path and its tests.
type Tests = (String, Vec<Value>);

/// Every way to match: the fields of the pattern with one branch of each `$or`.
fn ways(path: &str, pattern: &Value) -> Vec<Vec<Tests>> {
    let mut ways = vec![Vec::new()];
    for (name, value) in pattern.as_object().unwrap() {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let more: Vec<Vec<Tests>> = match value {
            Value::Array(branches) if name == "$or" => {
                branches.iter().flat_map(|branch| self::ways(path, branch)).collect()
            }
            Value::Array(tests) => vec![vec![(below, tests.clone())]],
            value => self::ways(&below, value),
        };
        let with = |way: &Vec<Tests>| {
            more.iter().map(|more| [way.as_slice(), more].concat()).collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(with).collect();
    }
    ways
}

/// The patterns of one test for each field that are this one together.
fn parts(pattern: &Value) -> Vec<Value> {
    let mut parts = Vec::new();
    for way in ways("", pattern) {
        let mut of_way = vec![json!({})];
        for (path, tests) in way {
            let with = |part: &Value| {
                let one = |test: &Value| {
                    let mut part = part.clone();
                    part[&path] = json!([test]);
                    part
                };
                tests.iter().map(one).collect::<Vec<_>>()
            };
            of_way = of_way.iter().flat_map(with).collect();
        }
        parts.extend(of_way);
    }
    parts
}

/// How the names of each path of an event are spelled: `a.b` may be one name, or two.
fn spellings(
    path: &str,
    spelling: &str,
    value: &Value,
    found: &mut BTreeMap<String, BTreeSet<String>>,
) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                spellings(&below, &format!("{spelling}/{name}"), value, found);
            }
        }
        Value::Array(list) => {
            list.iter().for_each(|value| spellings(path, spelling, value, found));
        }
        _ => _ = found.entry(path.to_owned()).or_default().insert(spelling.to_owned()),
    }
}

/// Why the two judge a pair differently, where docs/patterns.md says that they do.
fn reason(pattern: &Value, event: &Value, ours: Verdict, library: Verdict) -> Option<&'static str> {
    if ours == Verdict::Invalid || library == Verdict::Invalid {
        return refused(pattern, ours == Verdict::Invalid);
    }
    let twice = |way: &Vec<Tests>| {
        (1..way.len()).any(|at| way[..at].iter().any(|(path, _)| *path == way[at].0))
    };
    if ways("", pattern).iter().any(twice) {
        return Some("a field that is named twice");
    }
    let text = |value: &Value, texts: &[&str]| {
        any(value, &|value| value.as_str().is_some_and(|text| texts.contains(&text)))
    };
    if ours == Verdict::NoMatch
        && text(event, &["10.0.0.01"])
        && pattern.to_string().contains("10.")
    {
        return Some("an address with a zero in front");
    }
    let addresses = ["10.0.0.01", "10.0.0.1", "::1", "0:0:0:0:0:0:0:1"];
    if ours == Verdict::NoMatch && text(event, &addresses) && text(pattern, &addresses) {
        return Some("an address that is written otherwise");
    }
    let folded = pattern.to_string().contains("equals-ignore-case");
    let cases = ["ς", "Σ", "İ", "i̇", "ß", "SS", "ss"];
    if folded && text(event, &cases) && text(pattern, &cases) {
        return Some("a letter of more than two cases");
    }
    let inexact = |number: &Value| number.as_i64().is_some_and(|n| n as f64 as i64 != n);
    if ours == Verdict::Match && any(event, &inexact) && pattern.to_string().contains("numeric") {
        return Some("a number of more than 53 bits");
    }
    let mut spelled = BTreeMap::new();
    spellings("", "", event, &mut spelled);
    let is_twice = |path: &str| spelled.get(path).is_some_and(|spellings| spellings.len() > 1);
    // The field, or one that it lies in.
    let is_below = |path: &str| {
        path.match_indices('.').any(|(end, _)| is_twice(&path[..end])) || is_twice(path)
    };
    // What is lost is taken for absent.
    let may_be_lost = ours == Verdict::Match || pattern.to_string().contains("\"exists\":false");
    let twice = |way: &Vec<Tests>| way.iter().any(|(path, _)| is_below(path));
    if may_be_lost && ways("", pattern).iter().any(twice) {
        return Some("an event that spells a field in two ways");
    }
    // Alone, the choice of one element from each list has no more than what lies in these.
    let mut alone = worlds("", event).into_iter();
    if ours == Verdict::NoMatch && alone.any(|world| judge::matches(pattern, &[world], NOW)) {
        return Some("a field that other elements of a list have");
    }
    // A list of tests matches if one of them does: asked of each by itself, the library has to say
    // what it says of all together.
    let pairs: Vec<_> = parts(pattern).into_iter().map(|part| (part, event.clone())).collect();
    let matched = theirs(&pairs).contains(&Verdict::Match);
    (matched == (ours == Verdict::Match)).then_some("the library contradicts itself")
}

#[test]
#[ignore = "needs Java and Maven: `make ruler`"]
fn random_pairs_are_judged_as_event_ruler_does() {
    let seed =
        std::env::var("RULER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("RULER_SEED={seed}");
    let mut maker = Maker(StdRng::seed_from_u64(seed));
    let mut pairs = Vec::new();
    for number in 0..PAIRS / EVENTS {
        let (strange, spoilt) = (number % 3 != 0, number % 3 == 2);
        let mut pattern = maker.timeless();
        if strange {
            maker.stir(&mut pattern);
        }
        if spoilt {
            maker.spoil(&mut pattern);
        }
        for _ in 0..EVENTS {
            let mut event = maker.event(2);
            if strange {
                maker.stir(&mut event);
            }
            pairs.push((pattern.clone(), event));
        }
    }
    let theirs = theirs(&pairs);
    assert_eq!(theirs.len(), pairs.len());
    let (mut verdicts, mut explained) = (BTreeMap::new(), BTreeMap::new());
    let mut unexplained = Vec::new();
    for ((pattern, event), theirs) in pairs.iter().zip(theirs) {
        let ours = ours(pattern, event);
        *verdicts.entry(theirs).or_insert(0) += 1;
        if ours != theirs {
            match reason(pattern, event, ours, theirs) {
                Some(reason) => *explained.entry(reason).or_insert(0) += 1,
                None => {
                    unexplained.push(format!("{ours:?}, theirs {theirs:?}: {pattern} on {event}"))
                }
            }
        }
    }
    println!("{} pairs: {verdicts:?}; judged otherwise: {explained:#?}", pairs.len());
    let count = unexplained.len();
    unexplained.sort_by_key(String::len);
    unexplained.truncate(40);
    assert!(count == 0, "{count} pairs:\n{}", unexplained.join("\n"));
}
