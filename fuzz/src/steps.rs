//! Makes lists of steps of arbitrary bytes, as they would stand in a file: mostly right ones.

use arbitrary::{Arbitrary as _, Result, Unstructured};
use serde_json::{Map, Value as Json, json};

use crate::make;

/// Where schemas, keys and salts are.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files");

const STEPS_MAX: usize = 6;
const PATHS: [&str; 28] = [
    "type",
    "source",
    "subject",
    "id",
    "time",
    "key",
    "datacontenttype",
    "attributes.tenant",
    "attributes.a",
    "attributes.token",
    "attributes.content-encoding",
    "attributes[\"odd name\"]",
    "data",
    "data.a",
    "data.a.b",
    "data.b",
    "data.c",
    "data.items",
    "data.items[*]",
    "data.items[0].a",
    "data[*]",
    "data[*][*]",
    "data[0]",
    "data[\"odd name\"]",
    "data[\"\"]",
    "data.card",
    "data.iban",
    "data.data.a",
];
const PROGRAMS: [&str; 20] = [
    ".type = \"x\"",
    "del(.data)",
    ".data = null",
    ".data.a = .data.b",
    "del(.data.a)",
    ".attributes = {}",
    ".attributes.n = length(array!(.data.items))",
    ".data.a = to_float!(.data.a) * 2",
    ".data.b, err = to_int(.data.a) + 1",
    "if exists(.key) { abort }",
    ".data = parse_json!(string!(.data))",
    ".data = encode_json(.data)",
    ".data = .attributes",
    ".subject = upcase(string!(.data.a))",
    ".attributes.t = .time",
    ".data.a = push!(.data.items, .data)",
    "for_each(object!(.data)) -> |k, v| { .attributes = set!(.attributes, [k], v) }",
    ".data = map_values(object!(.data), recursive: true) -> |v| { to_string(v) ?? v }",
    ".data.c = slice!(.data.a, 1, -1)",
    ".id = sha2(string!(.data.a)); .data.a = split(.id, \"a\")",
];
const KEYS: [&str; 2] = ["a", "b"];
const CODINGS: [&str; 4] = ["json", "base64", "gzip", "zstd"];
const DETECTORS: [&str; 6] = ["key", "email", "iban", "ip", "phone", "card_number"];
const ENVELOPES: [&str; 3] = ["cloud_events", "sns", "event_bridge"];

/// Up to [`STEPS_MAX`] steps.
pub fn steps(u: &mut Unstructured<'_>) -> Result<Vec<Json>> {
    make::several(u, STEPS_MAX, step)
}

fn step(u: &mut Unstructured<'_>) -> Result<Json> {
    Ok(match u.int_in_range(0..=13)? {
        0 => json!({ "set": pairs(u, template)? }),
        1 => json!({ "remove": paths(u)? }),
        2 => json!({ "rename": pairs(u, |u| Ok(path(u)?.into()))? }),
        3 => json!({ "map": program(u)? }),
        4 => json!({ "parse": paths(u)? }),
        5 => json!({ "wrap": u.choose(&ENVELOPES)? }),
        6 => json!({ "unwrap": u.choose(&ENVELOPES)? }),
        7 => json!({ "encode": codings(u)? }),
        8 => json!({ "decode": codings(u)? }),
        9 => json!({ "encrypt": { "key": u.choose(&KEYS)?, "keys": keys(u)? } }),
        10 => json!({ "decrypt": { "keys": keys(u)? } }),
        11 => json!({ "split": { "list": path(u)?, "keep": bool::arbitrary(u)? } }),
        12 => json!({ "redact": redact(u)? }),
        _ => json!({ "validate": validate(u)? }),
    })
}

fn path(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(match u.int_in_range(0..=9)? {
        0 => format!("data.{}", make::name(u)?),
        1 => format!("{}[{}]", u.choose(&PATHS)?, u.int_in_range(0..=9)?),
        2 => make::text(u)?,
        _ => (*u.choose(&PATHS)?).to_owned(),
    })
}

fn paths(u: &mut Unstructured<'_>) -> Result<Vec<String>> {
    make::several(u, 3, path)
}

fn pairs(
    u: &mut Unstructured<'_>,
    mut value: impl FnMut(&mut Unstructured<'_>) -> Result<Json>,
) -> Result<Json> {
    let pairs = make::several(u, 3, |u| Ok((path(u)?, value(u)?)))?;
    Ok(pairs.into_iter().collect::<Map<_, _>>().into())
}

fn template(u: &mut Unstructured<'_>) -> Result<Json> {
    Ok(match u.int_in_range(0..=4)? {
        0 => format!("{{{{ {} }}}}", path(u)?).into(),
        1 => format!("{{{{ {}? }}}}", path(u)?).into(),
        2 => format!("{}{{{{{}?}}}}{{{{ data }}}}", make::text(u)?, path(u)?).into(),
        3 => json!([template(u)?, { "a": template(u)? }]),
        _ => make::json(u, 2)?,
    })
}

fn program(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(match u.int_in_range(0..=9)? {
        0 => make::text(u)?,
        1..=4 => make::several(u, 4, |u| Ok(*u.choose(&PROGRAMS)?))?.join("\n"),
        _ => (*u.choose(&PROGRAMS)?).to_owned(),
    })
}

fn codings(u: &mut Unstructured<'_>) -> Result<Vec<&'static str>> {
    make::several(u, 4, |u| Ok(*u.choose(&CODINGS)?))
}

fn keys(u: &mut Unstructured<'_>) -> Result<Json> {
    let both = make::several(u, 3, |u| u.choose(&KEYS))?;
    Ok(both.into_iter().map(|key| ((*key).to_owned(), secret(&format!("{key}.key")))).collect())
}

fn secret(file: &str) -> Json {
    format!("file:{FOLDER}/{file}").into()
}

fn redact(u: &mut Unstructured<'_>) -> Result<Json> {
    let with = match u.int_in_range(0..=3)? {
        0 => json!({ "hash": { "salt": secret("salt") } }),
        1 => "remove".into(),
        _ => "mask".into(),
    };
    let detect = make::several(u, 6, |u| Ok(*u.choose(&DETECTORS)?))?;
    let within = if u.ratio(1, 3)? { paths(u)? } else { Vec::new() };
    Ok(json!({ "paths": paths(u)?, "detect": detect, "within": within, "with": with }))
}

fn validate(u: &mut Unstructured<'_>) -> Result<Json> {
    let kind = *u.choose(&["order.placed", "x", "t"])?;
    let versions = json!({ "1": "order-1.json", "2": "order-2.json" });
    let mut validate = json!({
        "schemas": { kind: versions },
        "unknown": u.choose(&["fail", "pass"])?,
    });
    if u.ratio(1, 2)? {
        validate["upgrade"] = json!({ kind: { "1": program(u)? } });
    }
    if u.ratio(1, 4)? {
        validate["version"] = path(u)?.into();
    }
    if u.ratio(1, 8)? {
        validate["to"] = (*u.choose(&["latest", "2", "1"])?).into();
    }
    Ok(validate)
}
