//! As much of JSON Schema as our own schema uses, to hold examples against it.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};

/// What of `value` the schema does not allow, each with its path.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    check(schema, schema, value, "")
}

/// The names of all settings in the schema.
pub fn settings(schema: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(schema, &mut names);
    names
}

fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                names.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let schema = match schema {
        Value::Bool(true) => return Vec::new(),
        Value::Object(schema) => schema,
        _ => return vec![format!("{path}: not allowed")],
    };
    let mut wrong = Vec::new();
    if let Some(Value::String(reference)) = schema.get("$ref") {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        wrong.extend(check(root, target, value, path));
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(Value::Array(choices)) = schema.get(word) {
            let fits =
                choices.iter().filter(|one| check(root, one, value, path).is_empty()).count();
            if fits == 0 || (word == "oneOf" && fits > 1) {
                wrong.push(format!("{path}: {value} fits {fits} of {word}"));
            }
        }
    }
    let is_listed = match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => only == value,
        (None, Some(Value::Array(all))) => all.contains(value),
        _ => true,
    };
    if !is_listed || !has_type(schema, value) {
        wrong.push(format!("{path}: {value} is not {schema:?}"));
    }
    match value {
        Value::Object(map) => wrong.extend(check_object(root, schema, map, path)),
        Value::Array(list) => {
            let items = schema.get("items").unwrap_or(&Value::Bool(true));
            let each = list.iter().enumerate();
            wrong
                .extend(each.flat_map(|(i, one)| check(root, items, one, &format!("{path}[{i}]"))));
        }
        _ => {}
    }
    wrong
}

fn check_object(
    root: &Value,
    schema: &Map<String, Value>,
    map: &Map<String, Value>,
    path: &str,
) -> Vec<String> {
    let names = |word| schema.get(word).and_then(Value::as_array).into_iter().flatten();
    let required = names("required").filter_map(Value::as_str);
    let missing = required.filter(|name| !map.contains_key(*name));
    let mut wrong: Vec<_> = missing.map(|name| format!("{path}: {name} is missing")).collect();
    let others = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
    for (name, value) in map {
        let known = schema.get("properties").and_then(|properties| properties.get(name));
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        let known = known.or_else(|| {
            let fits = |pattern: &str| Regex::new(pattern).unwrap().is_match(name);
            patterns?.iter().find(|(pattern, _)| fits(pattern)).map(|(_, schema)| schema)
        });
        wrong.extend(check(root, known.unwrap_or(others), value, &format!("{path}.{name}")));
    }
    wrong
}

fn has_type(schema: &Map<String, Value>, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("the schema has an unknown type {name}"),
    };
    match schema.get("type") {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}
