//! What is hostile beside a body: attributes, and what they claim of it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::event::Value;
use eventhubs::client::{SimpleValue, Symbol, Timestamp, Uuid};
use serde_json::{Value as Json, json};

use super::{Case, End};

fn string(text: impl Into<std::sync::Arc<str>>) -> Value {
    Value::string(text)
}

pub(super) fn attributes() -> Vec<Case> {
    let number = |text: &str| Value::Number(text.into());
    let binary = |bytes: &[u8]| Value::Binary(bytes.to_vec().into());
    let labelled = |label: &str, value: Value| Value::Labelled(label.into(), Box::new(value));
    let name = |length: usize| "n".repeat(length);
    let numbered = |count: usize| -> Vec<(String, Value)> {
        (0..count).map(|n| (format!("a{n}"), string("x"))).collect()
    };
    let mut all = vec![
        Case { attributes: numbered(10), ..Case::beside("10 attributes", []) },
        Case { attributes: numbered(11), ..Case::beside("11 attributes", []) },
        Case { attributes: numbered(12), ..Case::beside("12 attributes", []) },
        Case { attributes: numbered(500), ..Case::beside("500 attributes", []) },
    ];
    for length in [0, 1, 255, 256, 257, 4096] {
        all.push(Case::beside(&format!("a name of {length}"), [(&*name(length), string("x"))]));
    }
    for length in [0, 1, 64 << 10, 200 << 10] {
        let case = format!("a value of {length}");
        all.push(Case::beside(&case, [("long", string("v".repeat(length)))]));
    }
    let values = [
        ("38 digits", number(&"9".repeat(38))),
        ("40 digits", number(&"9".repeat(40))),
        ("1e126", number("1e126")),
        ("a number with spaces", number(" 1 ")),
        ("a number that is none", number("one")),
        ("NUL and 0xff", binary(&[0, 0xff, 0])),
        ("no bytes", binary(&[])),
        ("64 KiB of NULs", binary(&[0; 64 << 10])),
        ("a label", labelled("json", string("{"))),
        ("a label of labels", labelled("a.b.c", number("1"))),
        ("a label on bytes", labelled("gif", binary(b"GIF89a\0"))),
        ("lines", string("a\r\nb\tc")),
        ("control characters", string("\u{1}\u{0}\u{1f}")),
        ("no character", string("\u{fffe}")),
        ("emoji", string("🏴󠁧󠁢󠁳󠁣󠁴󠁿")),
        ("JSON", string(r#"{"a":"\ud800"}"#)),
    ];
    all.extend(values.map(|(name, value)| Case::beside(name, [("value", value)])));
    let names = [
        "AWS.Trace",
        "Amazon.x",
        ".dot",
        "dot.",
        "two..dots",
        "with space",
        "grüße",
        "a:b",
        "a\nb",
        "\u{0}",
        "content-type",
        "Content-Type",
        "x-opt-partition-key",
        "amqp.correlation-id",
    ];
    for attribute in names {
        all.push(Case::beside(&format!("the name {attribute:?}"), [(attribute, string("x"))]));
    }
    let json_type = ("content-type", string("application/json"));
    let body = Bytes::from_static(&[0xff, 0, 0xfe, b'{']);
    all.push(Case { body, ..Case::beside("bytes that are called JSON", [json_type]) });
    let parents = [
        ("in words", "not a trace".to_owned()),
        ("empty", String::new()),
        ("of capitals", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01".to_owned()),
        ("of version ff", format!("ff-{:032x}-{:016x}-01", 1, 1)),
        ("of zeros", format!("00-{:032x}-{:016x}-00", 0, 0)),
        ("cut short", "00-0af7651916cd43dd8448eb211c80319c-b7ad".to_owned()),
        ("of 10 kB", format!("00-{}-01", "a".repeat(10_000))),
        ("of lines", "00-\r\nX: y\r\n".to_owned()),
        ("of control characters", "00-\u{1}\u{0}".to_owned()),
    ];
    for (name, parent) in parents {
        let trace = [("traceparent", string(parent)), ("tracestate", string("a=b"))];
        all.push(Case::beside(&format!("a traceparent {name}"), trace));
    }
    let parent = || ("traceparent", string(format!("00-{:032x}-{:016x}-01", 1, 1)));
    all.push(Case::beside("a traceparent of bytes", [("traceparent", binary(b"00-"))]));
    all.push(Case::beside("a state without a parent", [("tracestate", string("a=b"))]));
    all.push(Case::beside(
        "a state of 10 kB",
        [parent(), ("tracestate", string("a=b,".repeat(2500)))],
    ));
    all.push(Case::beside(
        "a state of control characters",
        [parent(), ("tracestate", string("\u{2}"))],
    ));
    all
}

pub(super) fn binary_cloud_events() -> Vec<Case> {
    let mut all = Vec::new();
    for prefix in ["ce_", "ce-", "cloudEvents_", "cloudEvents:"] {
        let of = |name: &str, more: &[(&str, Value)]| {
            let full = [("specversion", "1.0"), ("id", "b-1"), ("source", "/b"), ("type", "t")];
            let full = full.map(|(name, text)| (format!("{prefix}{name}"), string(text)));
            let more = more.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone()));
            let mut attributes: Vec<_> = full.into();
            for (name, value) in more {
                attributes.retain(|(known, _)| *known != name);
                attributes.push((name, value));
            }
            let name = format!("{prefix} CloudEvent, {name}");
            Case { attributes, ..Case::beside(&name, []) }
        };
        all.extend([
            of("true", &[]),
            of("another version", &[("specversion", string("7"))]),
            of("no time", &[("time", string("never"))]),
            of("a key of lines", &[("partitionkey", string("a\nb"))]),
        ]);
        // What only AMQP can say.
        all.extend([
            of("a number as version", &[("specversion", Value::Int(1))]),
            of("bytes as id", &[("id", Value::Binary(vec![0].into()))]),
            of("the end of time", &[("time", Value::Timestamp(i64::MAX))]),
        ]);
    }
    all
}

/// The attribute in which we carry what a service cannot hold, forged.
pub(super) fn our_marks() -> Vec<Case> {
    let parked = || End::Undecodable;
    let mark = |name: &str, mark: Json| {
        Case::beside(&format!("our mark, {name}"), [("eventferry", string(mark.to_string()))])
    };
    let looped = |case: Case| Case { end: End::Looped(case.body.clone()), ..case };
    let with_body = |case: Case, body: Bytes| Case { body, ..case };
    let reference = |url: &str| {
        let sha256 = "0".repeat(64);
        Bytes::from(
            json!({ "claim_check": { "url": url, "bytes": 1, "sha256": sha256 } }).to_string(),
        )
    };
    let claim = json!({ "fit": "claim_check" });
    let bomb = zstd::bulk::compress(&vec![0; 65 << 20], 3).unwrap();
    let bomb_mark = mark("a bomb", json!({ "body": "base64", "fit": "zstd" }));
    let bomb = with_body(bomb_mark, BASE64.encode(bomb).into());
    let long = "x".repeat(8 << 10);
    let letter = json!({
        "class": "forged", "error": long, "attempts": u32::MAX, "received": 0, "source": "\u{0}",
        "resource": "", "position": "", "arrived": "0000-01-01T00:00:00Z",
        "first": "9999-12-31T23:59:59Z", "last": "9999-12-31T23:59:59Z", "redriven": u32::MAX,
    });
    vec![
        // True as far as anybody can tell.
        mark("nothing in it", json!({})),
        mark("nothing known in it", json!({ "x": [] })),
        mark("3 hops", json!({ "hops": 3 })),
        mark("an id of many lines", json!({ "id": "a\r\nb\u{0}" })),
        mark("an id of 8 KiB", json!({ "id": long })),
        mark("an empty id", json!({ "id": "", "source": "" })),
        mark("a key of 8 KiB", json!({ "key": long })),
        mark("a key of control characters", json!({ "key": "\u{0}\n\u{ffff}ü" })),
        mark("an empty key", json!({ "key": "" })),
        mark("a media type that is none", json!({ "content_type": "grüße\n\u{0}" })),
        mark("a media type of 8 KiB", json!({ "content_type": long })),
        mark("a subject that is none", json!({ "subject": "\u{0}\nü" })),
        mark("a type that is none", json!({ "type": "\u{0}\nü" })),
        mark("a trace that is none", json!({ "trace": ["\u{0}", "\u{1}"] })),
        mark("a dead letter", json!({ "dead_letter": letter })),
        mark("a label that is none", json!({ "more": { "a": ["string.\u{1} ü", "x"] } })),
        mark("a label of 8 KiB", json!({ "more": { "a": [format!("string.{long}"), "x"] } })),
        mark(
            "a name that is none",
            json!({ "more": { "\u{0} ü": ["string", "x"], "": ["null", ""] } }),
        ),
        mark("itself within", json!({ "more": { "eventferry": ["string", "{}"] } })),
        mark("an hour that is none", json!({ "time": "2026-11-21T10:00:00+23:59" })),
        // Not ours: what an attribute of that name means is its producer's to know.
        mark("a word", json!("x")),
        mark("a list of what is none of it", json!([[[[]]]])),
        mark("256 hops", json!({ "hops": 256 })),
        mark("-1 hops", json!({ "hops": -1 })),
        mark("no such encoding", json!({ "body": "rot13" })),
        mark("no time", json!({ "time": "never" })),
        mark("half a dead letter", json!({ "dead_letter": { "class": "x" } })),
        // Ours, and not true.
        looped(mark("4 hops", json!({ "hops": 4 }))),
        looped(mark("255 hops", json!({ "hops": 255 }))),
        mark("no base64", json!({ "body": "base64" })).ends(parked()),
        mark("no Zstandard", json!({ "fit": "zstd" })).ends(parked()),
        mark("no reference", claim.clone()).ends(parked()),
        bomb.ends(parked()),
        with_body(mark("a file of this machine", claim.clone()), reference("file:///etc/passwd"))
            .ends(parked()),
        with_body(mark("a bucket of somebody", claim.clone()), reference("s3://theirs/x"))
            .ends(parked()),
        with_body(mark("a way out", claim), reference("file:///tmp/../../etc/00/00"))
            .ends(parked()),
        mark("no such type", json!({ "more": { "a": ["nought", "1"] } })).ends(parked()),
        mark("no such number", json!({ "more": { "a": ["int", "one"] } })).ends(parked()),
        mark("bad base64 beside", json!({ "more": { "a": ["binary", "!"] } })).ends(parked()),
    ]
}

pub(super) fn amqp_values() -> Vec<Case> {
    let of = |name: &str, value: SimpleValue| {
        let name = format!("AMQP {name}");
        Case { amqp: vec![("value".into(), value)], ..Case::beside(&name, []) }
    };
    vec![
        of("null", SimpleValue::Null),
        of("ubyte", SimpleValue::Ubyte(u8::MAX)),
        of("ushort", SimpleValue::Ushort(u16::MAX)),
        of("uint", SimpleValue::Uint(u32::MAX)),
        of("ulong", SimpleValue::Ulong(u64::MAX)),
        of("byte", SimpleValue::Byte(i8::MIN)),
        of("short", SimpleValue::Short(i16::MIN)),
        of("int", SimpleValue::Int(i32::MIN)),
        of("long", SimpleValue::Long(i64::MIN)),
        of("float NaN", SimpleValue::Float(f32::NAN.into())),
        of("double NaN", SimpleValue::Double(f64::NAN.into())),
        of("double infinity", SimpleValue::Double(f64::NEG_INFINITY.into())),
        of("double nearly nothing", SimpleValue::Double(5e-324.into())),
        of("double minus nothing", SimpleValue::Double((-0.0).into())),
        of("char", SimpleValue::Char('\u{10ffff}')),
        of("char NUL", SimpleValue::Char('\0')),
        of("timestamp at the end", SimpleValue::Timestamp(Timestamp::from_milliseconds(i64::MAX))),
        of(
            "timestamp at the beginning",
            SimpleValue::Timestamp(Timestamp::from_milliseconds(i64::MIN)),
        ),
        of("uuid", SimpleValue::Uuid(Uuid::from([0xff; 16]))),
        of("symbol", SimpleValue::Symbol(Symbol("symbol".into()))),
        of("empty symbol", SimpleValue::Symbol(Symbol(String::new()))),
        of("boolean", SimpleValue::Bool(true)),
    ]
}
