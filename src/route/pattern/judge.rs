//! A judge of patterns that was written for nothing but to be plain: what tests, and the fuzz target
//! `patterns`, hold all matching against. It takes patterns that have been read without an error,
//! and of daily windows those in UTC.

use std::net::IpAddr;

use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// An event with one element chosen of each array: its values by path.
pub(crate) type World = Vec<(String, Value)>;

/// As many as there are choices, all of them multiplied.
pub(crate) fn worlds(path: &str, value: &Value) -> Vec<World> {
    match value {
        Value::Object(map) => {
            let mut all = vec![World::new()];
            for (name, value) in map {
                let below = worlds(&joined(path, name), value);
                let with = |world: &World| {
                    below.iter().map(|more| [world.clone(), more.clone()].concat()).collect()
                };
                all = all.iter().flat_map(|world: &World| -> Vec<_> { with(world) }).collect();
            }
            all
        }
        Value::Array(list) => {
            let (nested, plain): (Vec<_>, Vec<_>) =
                list.iter().partition(|value| value.is_object() || value.is_array());
            let plain: World =
                plain.into_iter().map(|value| (path.to_owned(), value.clone())).collect();
            let with = |world: World| [world, plain.clone()].concat();
            match nested.is_empty() {
                true => vec![plain],
                false => {
                    nested.into_iter().flat_map(|value| worlds(path, value)).map(with).collect()
                }
            }
        }
        scalar => vec![vec![(path.to_owned(), scalar.clone())]],
    }
}

/// Whether an event matches.
pub(crate) fn matches(pattern: &Value, worlds: &[World], now: OffsetDateTime) -> bool {
    worlds.iter().any(|world| Judge { world, worlds, now }.object("", pattern))
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

struct Judge<'e> {
    world: &'e World,
    worlds: &'e [World],
    now: OffsetDateTime,
}

impl Judge<'_> {
    fn object(&self, path: &str, pattern: &Value) -> bool {
        pattern.as_object().unwrap().iter().all(|(name, value)| {
            let below = joined(path, name);
            match value {
                Value::Array(branches) if name == "$or" && are_patterns(branches) => {
                    branches.iter().any(|branch| self.object(path, branch))
                }
                Value::Array(tests) => tests.iter().any(|test| self.field(&below, test)),
                value => self.object(&below, value),
            }
        })
    }

    fn field(&self, path: &str, test: &Value) -> bool {
        if *test == json!({"exists": false}) {
            return !self.worlds.iter().flatten().any(|(at, _)| at == path);
        }
        self.world.iter().any(|(at, value)| at == path && self.holds(test, value))
    }

    fn holds(&self, test: &Value, value: &Value) -> bool {
        let Value::Object(test) = test else { return same(test, value) };
        let (operator, operand) = test.iter().next().unwrap();
        match (operator.as_str(), operand) {
            ("exists", operand) => operand == true,
            ("anything-but", Value::Object(inner)) => {
                let (operator, operand) = inner.iter().next().unwrap();
                !listed(operand).iter().any(|text| self.holds(&json!({ operator: text }), value))
            }
            ("anything-but", operand) => !listed(operand).iter().any(|other| same(other, value)),
            ("numeric", operand) => value.as_f64().is_some_and(|number| {
                operand.as_array().unwrap().chunks(2).all(|bound| {
                    let limit = bound[1].as_f64().unwrap();
                    match bound[0].as_str().unwrap() {
                        "=" => number == limit,
                        ">" => number > limit,
                        ">=" => number >= limit,
                        "<" => number < limit,
                        _ => number <= limit,
                    }
                })
            }),
            ("newer_than" | "older_than" | "daily", operand) => {
                let time = value.as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339));
                time.is_some_and(|time| time.is_ok_and(|time| self.clock(operator, operand, time)))
            }
            (_, operand) => value.as_str().is_some_and(|value| text(operator, operand, value)),
        }
    }

    fn clock(&self, operator: &str, operand: &Value, time: OffsetDateTime) -> bool {
        if operator == "daily" {
            return daily(operand, time);
        }
        let limit = humantime::parse_duration(operand.as_str().unwrap().trim()).unwrap();
        let limit = i128::try_from(limit.as_nanos()).unwrap();
        let age = (self.now - time).whole_nanoseconds();
        if operator == "newer_than" { age < limit } else { age > limit }
    }
}

/// `$or` can be the name of a field as well.
fn are_patterns(branches: &[Value]) -> bool {
    let operators =
        "prefix suffix equals-ignore-case wildcard anything-but numeric exists cidr".split(' ');
    branches.iter().any(|branch| {
        branch
            .as_object()
            .is_some_and(|branch| operators.clone().all(|name| !branch.contains_key(name)))
    })
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn listed(operand: &Value) -> Vec<Value> {
    operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()])
}

fn text(operator: &str, operand: &Value, value: &str) -> bool {
    if let Value::Object(folded) = operand
        && let Some(folded) = folded.get("equals-ignore-case")
    {
        let folded = json!(folded.as_str().unwrap().to_lowercase());
        return text(operator, &folded, &value.to_lowercase());
    }
    let operand = operand.as_str().unwrap();
    match operator {
        "prefix" => value.starts_with(operand),
        "suffix" => value.ends_with(operand),
        "equals-ignore-case" => value.to_lowercase() == operand.to_lowercase(),
        "wildcard" => wildcard(operand, value),
        "cidr" => cidr(operand, value),
        other => panic!("{other}"),
    }
}

/// Follows all places in the text at once at which what was read of the wildcard can end.
fn wildcard(wildcard: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    let mut characters = wildcard.chars();
    while let Some(character) = characters.next() {
        let literal = if character == '\\' { characters.next() } else { Some(character) };
        let before = ends.clone();
        let mut seen = false;
        for at in 0..ends.len() {
            seen |= before[at];
            ends[at] = match character {
                '*' => seen,
                _ => at > 0 && before[at - 1] && Some(text[at - 1]) == literal,
            };
        }
    }
    ends[text.len()]
}

/// By the digits of the addresses in base 2.
fn cidr(network: &str, address: &str) -> bool {
    let digits = |address: &str| match address.parse() {
        Ok(IpAddr::V4(address)) => Some(format!("{:032b}", address.to_bits())),
        Ok(IpAddr::V6(address)) => Some(format!("{:0128b}", address.to_bits())),
        Err(_) => None,
    };
    let (network, bits) = network.split_once('/').unwrap();
    let (network, bits) = (digits(network).unwrap(), bits.parse::<usize>().unwrap());
    digits(address)
        .is_some_and(|address| address.len() == network.len() && address[..bits] == network[..bits])
}

fn daily(window: &Value, time: OffsetDateTime) -> bool {
    // The calendar of the windows ends a day early.
    const END: i64 = 253_402_207_200;
    if time.unix_timestamp() > END {
        return false;
    }
    let time = time.to_offset(UtcOffset::UTC);
    let minute = |name: &str| {
        let (hour, minute) = window[name].as_str().unwrap().split_once(':').unwrap();
        hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap()
    };
    let now = u16::from(time.hour()) * 60 + u16::from(time.minute());
    let begins = |day: time::Weekday| {
        let day = day.to_string().to_lowercase();
        let days = window.get("days").and_then(Value::as_array);
        days.is_none_or(|days| days.contains(&json!(day[..3])))
    };
    let (today, yesterday) = (begins(time.weekday()), begins(time.weekday().previous()));
    let (from, to) = (minute("from"), minute("to"));
    match from < to {
        true => today && from <= now && now < to,
        false => (today && from <= now) || (yesterday && now < to),
    }
}
