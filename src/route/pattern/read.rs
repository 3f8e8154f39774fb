//! Reads patterns, and says what is wrong with one.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Map, Value};

use crate::config::{problem::Finding, tree::Step};

use super::{Bound, Cidr, Field, Literal, Pattern, Range, Test, Text, fold, wildcard::Wildcard};

mod clock;

/// Errors before their way to the top is known: their innermost steps come first.
#[derive(Default)]
struct Wrong(Vec<Finding>);

impl Wrong {
    fn at(self, name: &str) -> Self {
        self.below(&Step::Name(name.to_owned()))
    }

    fn at_item(self, index: usize) -> Self {
        self.below(&Step::Index(index))
    }

    fn below(mut self, step: &Step) -> Self {
        self.0.iter_mut().for_each(|error| error.path.0.push(step.clone()));
        self
    }

    /// Keeps what is right, and notes what is not.
    fn note<T>(&mut self, result: Result<T, Self>) -> Option<T> {
        result.map_err(|more| self.0.extend(more.0)).ok()
    }

    fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(vec![Finding::new(text)]))
}

const OR: &str = "$or";
const OPERATORS: [&str; 8] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "exists",
    "cidr",
];
/// Our own: the tests of times.
const CLOCKS: [&str; 3] = ["newer_than", "older_than", "daily"];
/// Ways to match that `$or` may open up, all of them multiplied. EventBridge has the same bound.
const WAYS_MAX: usize = 1000;

pub(super) fn pattern(map: &Map<String, Value>) -> Result<Pattern, Vec<Finding>> {
    let read = object("", map).and_then(|draft| match draft.count() {
        count if count > WAYS_MAX => {
            wrong(format!("its `$or`s open {count} ways to match; {WAYS_MAX} are allowed"))
        }
        _ => Ok(Pattern { ways: draft.ways() }),
    });
    read.map_err(|Wrong(mut errors)| {
        errors.iter_mut().for_each(|error| error.path.0.reverse());
        errors
    })
}

/// A pattern as it is written.
#[derive(Default)]
struct Draft {
    /// All of these must match.
    fields: Vec<Arc<Field>>,
    /// Of each of these `$or`, one must match as well.
    choices: Vec<Vec<Draft>>,
}

impl Draft {
    /// How many ways there are to match.
    fn count(&self) -> usize {
        let of = |choice: &Vec<Self>| choice.iter().map(Self::count).fold(0, usize::saturating_add);
        self.choices.iter().map(of).fold(1, usize::saturating_mul)
    }

    /// Every way to match.
    fn ways(&self) -> Vec<Vec<Arc<Field>>> {
        let mut ways = vec![self.fields.clone()];
        for choice in &self.choices {
            let branches: Vec<_> = choice.iter().flat_map(Self::ways).collect();
            let with = |way: &Vec<_>, branch: &Vec<_>| [way.as_slice(), branch].concat();
            ways = ways
                .iter()
                .flat_map(|way| branches.iter().map(move |branch| with(way, branch)))
                .collect();
        }
        ways
    }
}

/// Reads the fields below `path`.
fn object(path: &str, map: &Map<String, Value>) -> Result<Draft, Wrong> {
    if map.is_empty() {
        return wrong("is empty; name a field and the values it may have");
    }
    let (mut pattern, mut wrong) = (Draft::default(), Wrong::default());
    for (name, value) in map {
        wrong.note(field(&mut pattern, path, name, value).map_err(|wrong| wrong.at(name)));
    }
    wrong.or(pattern)
}

fn field(pattern: &mut Draft, above: &str, name: &str, value: &Value) -> Result<(), Wrong> {
    let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
    match value {
        Value::Array(branches) if name == OR && is_or(branches) => {
            pattern.choices.push(choice(above, branches)?);
        }
        Value::Array(tests) => {
            let tests = each(tests, test)?;
            if tests.is_empty() {
                return wrong("is an empty list, which nothing can match; list a value or a test");
            }
            pattern.fields.push(Arc::new(Field { path: path.into(), tests }));
        }
        Value::Object(map) => {
            let below = object(&path, map)?;
            pattern.fields.extend(below.fields);
            pattern.choices.extend(below.choices);
        }
        _ => return wrong("is a single value; put it into a list, as in `[value]`"),
    }
    Ok(())
}

/// Whether a list below `$or` is one of patterns, and not a field of that name.
fn is_or(branches: &[Value]) -> bool {
    let is_test = |name: &String| OPERATORS.contains(&name.as_str());
    branches.iter().any(|branch| match branch {
        Value::Object(map) => !map.keys().any(is_test),
        _ => false,
    })
}

fn choice(above: &str, branches: &[Value]) -> Result<Vec<Draft>, Wrong> {
    if branches.len() < 2 {
        return wrong("has one branch only; write at least two, or leave `$or` out");
    }
    each(branches, |branch| match branch {
        Value::Object(map) => object(above, map),
        _ => wrong("is no pattern; each branch of `$or` is a mapping of fields"),
    })
}

fn each<T>(values: &[Value], read: impl Fn(&Value) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    let mut wrong = Wrong::default();
    let item = |(index, value)| wrong.note(read(value).map_err(|wrong| wrong.at_item(index)));
    let read = values.iter().enumerate().filter_map(item).collect();
    wrong.or(read)
}

/// One of the tests of a field.
fn test(value: &Value) -> Result<Test, Wrong> {
    match value {
        Value::Array(_) => wrong("is a list within a list; list the values of a field once"),
        Value::Object(map) => {
            let (operator, operand) = only(map)?;
            operation(operator, operand).map_err(|wrong| wrong.at(operator))
        }
        scalar => Ok(Test::Equals(literal(scalar)?)),
    }
}

fn only(map: &Map<String, Value>) -> Result<(&str, &Value), Wrong> {
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        _ => wrong("must have exactly one operator; for several, list one mapping for each"),
    }
}

fn operation(operator: &str, operand: &Value) -> Result<Test, Wrong> {
    Ok(match operator {
        "anything-but" => return anything_but(operand),
        "numeric" => Test::Numeric(numeric(operand)?),
        "exists" => match operand {
            Value::Bool(exists) => Test::Exists(*exists),
            _ => return wrong("must be `true` or `false`"),
        },
        "cidr" => Test::Cidr(cidr(string(operand)?)?),
        time if CLOCKS.contains(&time) => Test::Clock(clock::clock(time, operand)?),
        _ => Test::Text(text(operator, operand)?),
    })
}

/// An operator that looks at text.
fn text(operator: &str, operand: &Value) -> Result<Text, Wrong> {
    // `prefix` and `suffix` may be told to ignore case.
    if let (Value::Object(map), "prefix" | "suffix") = (operand, operator) {
        let ("equals-ignore-case", folded) = only(map)? else {
            return wrong("is text, or `{ equals-ignore-case: text }`");
        };
        let folded = fold(string(folded).map_err(|wrong| wrong.at("equals-ignore-case"))?);
        return Ok(match operator {
            "prefix" => Text::PrefixFolded(folded),
            _ => Text::SuffixFolded(folded),
        });
    }
    Ok(match operator {
        "prefix" => Text::Prefix(string(operand)?.into()),
        "suffix" => Text::Suffix(string(operand)?.into()),
        "equals-ignore-case" => Text::Equal(fold(string(operand)?)),
        "wildcard" => match Wildcard::read(string(operand)?) {
            Ok(wildcard) => Text::Wildcard(wildcard),
            Err(text) => return wrong(text),
        },
        unknown => {
            let known = OPERATORS.into_iter().chain(CLOCKS);
            let known = known.map(|operator| format!("`{operator}`")).collect::<Vec<_>>();
            return wrong(format!("`{unknown}` is no operator; there are {}", known.join(", ")));
        }
    })
}

fn anything_but(operand: &Value) -> Result<Test, Wrong> {
    match operand {
        Value::Object(map) => {
            let (operator, operand) = only(map)?;
            but_text(operator, operand).map(Test::AnythingButText).map_err(|w| w.at(operator))
        }
        Value::Array(values) if values.is_empty() => wrong("is an empty list; list a value"),
        Value::Array(values) => {
            let literals = each(values, but_literal)?;
            let numbers = literals.iter().filter(|one| matches!(one, Literal::Number(_))).count();
            if numbers != 0 && numbers != literals.len() {
                return wrong("mixes numbers and text; write an `anything-but` for each");
            }
            Ok(Test::AnythingBut(literals))
        }
        single => Ok(Test::AnythingBut(vec![but_literal(single)?])),
    }
}

fn but_text(operator: &str, operand: &Value) -> Result<Vec<Text>, Wrong> {
    if !["prefix", "suffix", "equals-ignore-case", "wildcard"].contains(&operator) {
        return wrong(format!(
            "`{operator}` cannot stand here; after `anything-but` there are `prefix`, `suffix`, \
             `equals-ignore-case` and `wildcard`"
        ));
    }
    let read = |operand: &Value| match (operator, operand) {
        ("prefix" | "suffix", Value::String(empty)) if empty.is_empty() => {
            wrong("is empty, which all text begins and ends with; nothing would match")
        }
        (_, Value::String(_)) => text(operator, operand),
        _ => wrong("must be text, or a list of text"),
    };
    match operand {
        Value::Array(values) if values.is_empty() => wrong("is an empty list; list a text"),
        Value::Array(values) => each(values, read),
        single => Ok(vec![read(single)?]),
    }
}

fn but_literal(value: &Value) -> Result<Literal, Wrong> {
    match value {
        Value::String(_) | Value::Number(_) => literal(value),
        _ => wrong("must be text or a number, or a list of them"),
    }
}

fn literal(value: &Value) -> Result<Literal, Wrong> {
    Ok(match value {
        Value::Null => Literal::Null,
        Value::Bool(value) => Literal::Bool(*value),
        Value::Number(_) => Literal::Number(number(value)?),
        Value::String(text) => Literal::Text(Arc::from(text.as_str())),
        Value::Array(_) | Value::Object(_) => return wrong("must be a single value"),
    })
}

fn string(value: &Value) -> Result<&str, Wrong> {
    value.as_str().map_or_else(|| wrong("must be text"), Ok)
}

fn number(value: &Value) -> Result<f64, Wrong> {
    match value.as_f64() {
        // 0 and -0 are one number, and become so here.
        Some(number) if number.is_finite() => Ok(number + 0.0),
        _ => wrong("must be a number"),
    }
}

/// `["=", 5]`, `[">", 0]` or `[">", 0, "<=", 5]`.
fn numeric(operand: &Value) -> Result<Range, Wrong> {
    const FORM: &str = "must be like `[\">\", 0]`, `[\"=\", 5]` or `[\">\", 0, \"<=\", 5]`";
    let Value::Array(parts) = operand else { return wrong(FORM) };
    let mut range = Range { above: None, below: None };
    let mut bounds = parts.chunks(2);
    for at in 0.. {
        let Some(bound) = bounds.next() else { break };
        let [Value::String(comparison), bound] = bound else { return wrong(FORM) };
        let number = number(bound).map_err(|wrong| wrong.at_item(2 * at + 1))?;
        let bound = |inclusive| Some(Bound { number, inclusive });
        match (comparison.as_str(), range) {
            ("=", Range { above: None, below: None }) if parts.len() == 2 => {
                range = Range { above: bound(true), below: bound(true) };
            }
            (">" | ">=", Range { above: None, below: None }) => {
                range.above = bound(comparison == ">=");
            }
            ("<" | "<=", Range { below: None, .. }) => range.below = bound(comparison == "<="),
            _ => return wrong(FORM),
        }
    }
    match range {
        Range { above: None, below: None } => wrong(FORM),
        Range { above: Some(above), below: Some(below) }
            if parts.len() == 4 && above.number >= below.number =>
        {
            wrong("has its lower bound above its upper one, so that nothing can match")
        }
        range => Ok(range),
    }
}

fn cidr(text: &str) -> Result<Cidr, Wrong> {
    const FORM: &str = "must be a network, as in `10.0.0.0/24` or `2001:db8::/32`";
    let Some((network, bits)) = text.split_once('/') else { return wrong(FORM) };
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u8>()) else {
        return wrong(FORM);
    };
    let width = if network.is_ipv4() { 32 } else { 128 };
    if bits > width {
        return wrong(format!("keeps {bits} bits of an address that has {width}"));
    }
    Ok(Cidr { network, bits })
}
