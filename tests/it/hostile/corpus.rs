//! Messages that nobody should send: a table of what goes in, and what must come out of it.

use bytes::Bytes;
use eventferry::event::Value;
use eventhubs::client::SimpleValue;
use serde_json::{Value as Json, json};

mod beside;
mod nearly;

/// One of them.
pub struct Case {
    pub name: String,
    pub body: Bytes,
    /// What SQS and SNS call message attributes and Event Hubs application properties. A Storage
    /// Queue has none, and is not given such a case.
    pub attributes: Vec<(String, Value)>,
    /// More application properties, of types that only AMQP has.
    pub amqp: Vec<(String, SimpleValue)>,
    pub end: End,
}

/// What must become of it.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It is delivered as it came.
    AsItIs,
    /// An envelope that we know is taken off, and this is what it holds.
    Opened(Bytes),
    /// The same, where the envelope is SNS's: a subscription that puts one around it hides it.
    OpenedOnce(Bytes),
    /// It bears a mark of ours that is not true: it is dead-lettered as it came.
    Undecodable,
    /// It says that it has passed too many relays: it is dead-lettered, as this.
    Looped(Bytes),
}

impl Case {
    fn new(name: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (name, body) = (name.into(), body.into());
        Self { name, body, attributes: Vec::new(), amqp: Vec::new(), end: End::AsItIs }
    }

    fn ends(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// One whose body is nothing but its name: what matters stands beside it.
    fn beside<'a>(name: &str, attributes: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
        Self { attributes: attributes.collect(), ..Self::new(name, format!("beside: {name}")) }
    }
}

/// All of them. No two are alike.
pub fn corpus() -> Vec<Case> {
    [
        sizes(),
        texts(),
        bytes(),
        json_documents(),
        sns_envelopes(),
        cloud_events(),
        event_bridge(),
        our_envelopes(),
        nearly::json_documents(),
        nearly::cloud_events(),
        nearly::sns_envelopes(),
        nearly::our_envelopes(),
        nearly::texts(),
        beside::attributes(),
        beside::binary_cloud_events(),
        beside::our_marks(),
        beside::amqp_values(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cases<'a>(kind: &str, bodies: impl IntoIterator<Item = (&'a str, String)>) -> Vec<Case> {
    let case = |(name, body): (&str, String)| Case::new(format!("{kind}: {name}"), body);
    bodies.into_iter().map(case).collect()
}

/// At, one below and one above the limits that somebody has.
fn sizes() -> Vec<Case> {
    let edges = [255, 4096, 48 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter();
    let around = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
    let sizes = [0, 1, 2, 1_000_000, (1 << 20) - 4096, 2 << 20].into_iter().chain(around);
    sizes.map(|size| Case::new(format!("{size} bytes"), vec![b'a'; size])).collect()
}

/// What is text to one of us and something else to another.
fn texts() -> Vec<Case> {
    let texts = [
        ("not quite base64", "abc"),
        ("padding alone", "===="),
        ("padding within", "ab==cd=="),
        ("base64 without padding", "aGVsbG8gd29ybGQ"),
        ("base64 for URLs", "-_-_-_-_"),
        ("base64 in lines", "aGVsbG8g\r\nd29ybGQh"),
        ("base64 of base64", "YUdWc2JHOGdkMjl5YkdRaA=="),
        ("base64 with stray bits", "aGVsbG9="),
        ("a number that is base64", "12345678"),
        ("a word that is base64", "deadbeef"),
        ("percent", "%00%0a%ff%zz"),
        ("quoted-printable", "=C3=BC=\r\n=00"),
        ("UTF-7", "+ADw-script+AD4-"),
        ("entities", "&#0; &#x1; &lt;x&gt; &nbsp; &amp;amp;"),
        ("markup", "<QueueMessage><MessageText>x</MessageText></QueueMessage>"),
        ("the end of CDATA", "]]> <![CDATA[ ]]>"),
        (
            "a bomb of entities",
            "<!DOCTYPE b [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><b>&b;</b>",
        ),
        ("an outer entity", "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>"),
        ("format codes", "%s%n%x {} {0} ${jndi:ldap://x/y} {{7*7}} $(reboot) `id`"),
        ("a header more", "x\r\nSet-Cookie: a=b\r\n\r\n<html>"),
        ("SQL", "'; DROP TABLE events; --"),
        ("a path", "../../../../etc/passwd\u{2028}"),
        ("YAML", "- &a [*a, *a]\n- !!python/object/apply:os.system ['id']"),
        ("spaces alone", "   "),
        ("line feeds alone", "\n\n\n"),
        ("carriage returns", "a\rb\r\nc\r"),
        ("space around", " \t x \t "),
        ("a byte order mark alone", "\u{feff}"),
        ("a byte order mark in front", "\u{feff}text"),
        ("emoji", "👩‍👩‍👧‍👦🏴󠁧󠁢󠁳󠁣󠁴󠁿🚢"),
        ("right to left", "\u{202e}txet\u{202c}\u{200f}"),
        ("marks upon marks", "Z̸̡̛͎a̵̢͝l̶̨̛g̷͉̈o̸̳͠"),
        ("one letter in two ways", "é e\u{301}"),
        ("no characters", "\u{fdd0}\u{1ffff}"),
        ("no characters in XML", "\u{fffe}\u{ffff}"),
        ("private use", "\u{e000}\u{f8ff}\u{10fffd}"),
        ("the last character", "\u{10ffff}"),
        ("line separators", "a\u{85}b\u{2028}c\u{2029}d"),
        ("DEL and C1", "\u{7f}\u{80}\u{9f}"),
        ("one NUL", "\0"),
        ("NUL within", "before\0after"),
        ("many NULs", "\0\0\0\0\0\0\0\0"),
        ("bell, backspace, escape", "\u{7}\u{8}\u{1b}[2J"),
        ("unit separators", "\u{1c}\u{1d}\u{1e}\u{1f}"),
        ("a lone hyphen, as for nothing", "-"),
        ("null", "null"),
        ("true", "true"),
    ];
    cases("text", texts.map(|(name, body)| (name, body.to_owned())))
}

/// What is no text at all.
fn bytes() -> Vec<Case> {
    let utf16 = |text: &str, of: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(of).collect();
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
    let mut state = 7_u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<(&str, Vec<u8>)> = vec![
        ("0xff", vec![0xff]),
        ("every byte", (0..=255).collect()),
        ("every byte downwards", (0..=255).rev().collect()),
        ("a stray continuation", vec![b'a', 0x80, b'b']),
        ("cut in a character", "grüß🚢".as_bytes()[..8].to_vec()),
        ("overlong NUL", vec![0xc0, 0x80]),
        ("overlong slash", vec![0xe0, 0x80, 0xaf]),
        ("an encoded surrogate", vec![0xed, 0xa0, 0x80]),
        ("a pair of encoded surrogates", vec![0xed, 0xa0, 0xbd, 0xed, 0xb0, 0x80]),
        ("past the last character", vec![0xf4, 0x90, 0x80, 0x80]),
        ("Latin-1", b"gr\xfc\xdfe".to_vec()),
        ("UTF-16, little end first", utf16("\u{feff}{\"n\":1}", u16::to_le_bytes)),
        ("UTF-16, big end first", utf16("\u{feff}{\"n\":1}", u16::to_be_bytes)),
        ("JSON of Latin-1", b"{\"name\":\"gr\xfc\xdfe\"}".to_vec()),
        ("JSON with an encoded surrogate", b"{\"a\":\"\xed\xa0\x80\"}".to_vec()),
        ("JSON with NULs behind", b"{\"a\":1}\0\0\0".to_vec()),
        ("gzip that is cut", b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec()),
        ("a frame of Zstandard", zstd::bulk::compress(b"hello", 3).unwrap()),
        ("a bomb of Zstandard", bomb),
        ("Avro", b"Obj\x01\x02\x16avro.schema".to_vec()),
        ("Parquet", b"PAR1\x15\x04\x15".to_vec()),
        ("a program", b"\x7fELF\x02\x01\x01\0".to_vec()),
        ("protobuf", vec![0x08, 0x96, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("an AMQP body", vec![0x00, 0x53, 0x75, 0xa0, 0xff]),
        ("a pickle", b"\x80\x04cos\nsystem\n".to_vec()),
        ("NULs, 64 KiB", vec![0; 64 << 10]),
        ("noise, 100 kB", (0..100_000).map(|_| noise()).collect()),
    ];
    bytes.into_iter().map(|(name, body)| Case::new(format!("bytes: {name}"), body)).collect()
}

fn nested(levels: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

fn json_documents() -> Vec<Case> {
    let documents = [
        ("nothing in it", "{}".to_owned()),
        ("an empty list", "[]".to_owned()),
        ("an empty string", r#""""#.to_owned()),
        ("127 levels", nested(127, "[", "]")),
        ("129 levels", nested(129, r#"{"a":"#, "}")),
        ("10,000 lists", nested(10_000, "[", "]")),
        ("10,000 objects", nested(10_000, r#"{"a":"#, "}")),
        ("10,000 of both", nested(5_000, r#"[{"a":"#, "}]")),
        ("10,000 lists that are not closed", "[".repeat(10_000)),
        ("10,000 lists that were not opened", "]".repeat(10_000)),
        ("100,000 lists", nested(100_000, "[", "]")),
        ("400 digits", format!(r#"{{"n":{}}}"#, "9".repeat(400))),
        ("400 decimals", format!(r#"{{"n":0.{}}}"#, "3".repeat(400))),
        ("1e400", r#"{"n":1e400}"#.to_owned()),
        ("-1e400", r#"{"n":-1e400}"#.to_owned()),
        ("1e-400", r#"{"n":1e-400}"#.to_owned()),
        ("1e999999999", r#"{"n":1e999999999}"#.to_owned()),
        ("minus nothing", r#"{"n":-0}"#.to_owned()),
        ("beyond 64 bits", r#"{"n":18446744073709551616}"#.to_owned()),
        ("below 64 bits", r#"{"n":-9223372036854775809}"#.to_owned()),
        ("beyond 53 bits", r#"{"n":9007199254740993}"#.to_owned()),
        ("NaN", r#"{"n":NaN}"#.to_owned()),
        ("Infinity", r#"{"n":-Infinity}"#.to_owned()),
        ("zeros in front", r#"{"n":007}"#.to_owned()),
        ("hexadecimal", r#"{"n":0x1f}"#.to_owned()),
        ("a plus", r#"{"n":+1}"#.to_owned()),
        ("no digits behind", r#"{"n":1.}"#.to_owned()),
        ("a member twice", r#"{"n":1,"n":2}"#.to_owned()),
        ("a member a thousand times", format!("{{{}}}", vec![r#""n":1"#; 1000].join(","))),
        ("no name", r#"{"":{"":1}}"#.to_owned()),
        ("a prototype", r#"{"__proto__":{"admin":true},"constructor":1}"#.to_owned()),
        ("NUL in a name", r#"{"a\u0000b":1}"#.to_owned()),
        ("a name of 64 KiB", format!(r#"{{"{}":1}}"#, "n".repeat(64 << 10))),
        ("a lone high surrogate", r#"{"a":"\ud800"}"#.to_owned()),
        ("a lone low surrogate", r#"{"a":"\udc00x"}"#.to_owned()),
        ("surrogates the wrong way round", r#"{"a":"\udc00\ud800"}"#.to_owned()),
        ("a surrogate in a name", r#"{"\ud800":1}"#.to_owned()),
        ("half an escape", r#"{"a":"\u12"}"#.to_owned()),
        ("no such escape", r#"{"a":"\x41"}"#.to_owned()),
        ("a string that does not end", r#"{"a":"b"#.to_owned()),
        ("a tab in a string", "{\"a\":\"\t\"}".to_owned()),
        ("a comma too many", r#"{"a":1,}"#.to_owned()),
        ("no value", r#"{"a":}"#.to_owned()),
        ("single quotes", "{'a':1}".to_owned()),
        ("a comment", "{/* a */\"a\":1}//".to_owned()),
        ("two documents", r#"{"a":1}{"b":2}"#.to_owned()),
        ("lines of JSON", "{\"a\":1}\n{\"b\":2}\n".to_owned()),
        ("something behind", r#"{"a":1} x"#.to_owned()),
        ("a mark in front", "\u{feff}{\"a\":1}".to_owned()),
        ("space around", "\n\t {\"a\": 1} \n".to_owned()),
        ("an open brace", "{".to_owned()),
    ];
    cases("JSON", documents)
}

/// SNS's envelope around `message`, as SNS writes it.
fn sns_envelope(message: &str) -> Json {
    json!({
        "Type": "Notification", "MessageId": "0d3f4a3e-0000-4000-8000-000000000001",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:forged", "Message": message,
        "Timestamp": "2026-11-21T10:00:00.000Z", "SignatureVersion": "1", "Signature": "x",
        "SigningCertURL": "https://evil.example/cert.pem", "UnsubscribeURL": "file:///etc/passwd",
    })
}

/// A document with members set to other values; one that is set to nothing is left out.
fn with(mut document: Json, changes: Json) -> Json {
    let members = document.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap().clone() {
        members.remove(&name);
        if value != json!("LEFT OUT") {
            members.insert(name, value);
        }
    }
    document
}

fn sns_envelopes() -> Vec<Case> {
    let opened = |name: &str, message: &str, changes: Json| {
        let body = with(sns_envelope(message), changes).to_string();
        let end = End::OpenedOnce(message.to_owned().into());
        Case::new(format!("SNS envelope, {name}"), body).ends(end)
    };
    let attribute = |kind: &str, value: &str| json!({ "Type": kind, "Value": value });
    let many: serde_json::Map<_, _> =
        (0..200).map(|n| (format!("a{n}"), attribute("String", "x"))).collect();
    let mut envelopes = vec![
        opened("forged", "it was never signed", json!({})),
        opened("with no time", "at no time", json!({ "Timestamp": "yesterday" })),
        opened("with nothing in it", "", json!({})),
        opened(
            "with a subject",
            "of a subject",
            json!({ "Subject": "a\nb\u{7f}\u{ff}".repeat(50) }),
        ),
        opened("of 10,000 levels", &nested(10_000, "[", "]"), json!({})),
        opened("around another", &sns_envelope("the inner").to_string(), json!({})),
        opened("with NULs", "a\0b\u{1}", json!({})),
        opened("with 200 attributes", "of 200", json!({ "MessageAttributes": many })),
        opened(
            "with bad base64",
            "of bad base64",
            json!({ "MessageAttributes": {
            "raw": attribute("Binary", "not base64!"), "n": attribute("Number", "NaN"),
            "": attribute("", ""), "kind": attribute("String.\u{7}", "\u{1}"),
        } }),
        ),
        opened(
            "with a trace",
            "of a trace",
            json!({ "MessageAttributes": {
            "traceparent": attribute("Binary", "AAAA"), "tracestate": attribute("String", "x"),
        } }),
        ),
    ];
    let payloads = [
        ("no type", json!({ "Type": "LEFT OUT" })),
        ("another type", json!({ "Type": "Order" })),
        ("a subscription to confirm", json!({ "Type": "SubscriptionConfirmation" })),
        ("no id", json!({ "MessageId": "LEFT OUT" })),
        ("no topic", json!({ "TopicArn": null })),
        ("no message", json!({ "Message": "LEFT OUT" })),
        ("a number as message", json!({ "Message": 7 })),
        ("an object as message", json!({ "Message": { "TopicArn": "x" } })),
        ("a number as time", json!({ "Timestamp": 0 })),
        ("no attributes", json!({ "MessageAttributes": null })),
        ("a list of attributes", json!({ "MessageAttributes": [1] })),
        ("an attribute without a value", json!({ "MessageAttributes": { "a": {} } })),
    ];
    envelopes.extend(payloads.map(|(name, changes)| {
        let body = with(sns_envelope("payload"), changes).to_string();
        Case::new(format!("half an SNS envelope, {name}"), body)
    }));
    let twice = sns_envelope("one").to_string().replacen('{', r#"{"Message":"another","#, 1);
    envelopes.push(Case::new("half an SNS envelope, two messages", twice));
    envelopes
}

fn cloud_event(id: &str) -> Json {
    json!({
        "specversion": "1.0", "id": id, "source": "/hostile", "type": "t", "data": { "n": 1 },
    })
}

fn cloud_events() -> Vec<Case> {
    let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("x{n}"), json!(n))).collect();
    let changes = [
        ("true", json!({})),
        ("0.3", json!({ "specversion": "0.3" })),
        ("1.", json!({ "specversion": "1." })),
        ("of no version", json!({ "specversion": "" })),
        ("of version 1", json!({ "specversion": 1.0 })),
        ("no id", json!({ "id": "LEFT OUT" })),
        ("an empty id", json!({ "id": "" })),
        ("a number as id", json!({ "id": 7 })),
        ("an id of 8 KiB", json!({ "id": "i".repeat(8 << 10) })),
        ("an id of many lines", json!({ "id": "a\r\nb\0c\u{1b}[31m" })),
        ("an empty source", json!({ "source": "" })),
        ("a source that is no URI", json!({ "source": "\u{0} :// \n" })),
        ("no type", json!({ "type": "LEFT OUT" })),
        ("an empty type", json!({ "type": "" })),
        ("a type of 8 KiB", json!({ "type": "t".repeat(8 << 10) })),
        ("a time without a zone", json!({ "time": "2026-11-21T10:00:00" })),
        ("a time of no day", json!({ "time": "2026-02-30T25:61:61Z" })),
        ("a time in words", json!({ "time": "yesterday" })),
        ("the year 10000", json!({ "time": "10000-01-01T00:00:00Z" })),
        ("the year 0", json!({ "time": "0000-01-01T00:00:00Z" })),
        (
            "the end of the year 9999, far in the west",
            json!({ "time": "9999-12-31T23:59:59-23:59" }),
        ),
        ("a leap second", json!({ "time": "2016-12-31T23:59:60Z" })),
        ("a number as time", json!({ "time": 1e300 })),
        ("an object as subject", json!({ "subject": {} })),
        ("a subject of many lines", json!({ "subject": "a\nb\0" })),
        ("a media type that is none", json!({ "datacontenttype": "grüße\n" })),
        ("a schema that is none", json!({ "dataschema": " " })),
        ("data twice", json!({ "data_base64": "AAAA" })),
        ("bad base64", json!({ "data": "LEFT OUT", "data_base64": "!" })),
        ("no data", json!({ "data": null })),
        ("a long partition key", json!({ "partitionkey": "k".repeat(4 << 10) })),
        ("a partition key of control characters", json!({ "partitionkey": "\0\n\u{ffff}ü" })),
        ("an empty partition key", json!({ "partitionkey": "" })),
        ("a number as partition key", json!({ "partitionkey": 7 })),
        ("a bad traceparent", json!({ "traceparent": "00-zz-\n\0" })),
        ("a state without a parent", json!({ "tracestate": "x=y" })),
        ("capitals", json!({ "ID": "x", "Type": "y", "Ext-Ension": {} })),
        ("an object as extension", json!({ "extension": { "a": [null] } })),
        ("1,000 extensions", Json::Object(many)),
        ("itself within", json!({ "data": cloud_event("inner") })),
    ];
    let mut events: Vec<_> = changes
        .into_iter()
        .enumerate()
        .map(|(n, (name, changes))| {
            let event = with(cloud_event(&format!("hostile-{n}")), changes);
            Case::new(format!("CloudEvent, {name}"), event.to_string())
        })
        .collect();
    let text = cloud_event("twice").to_string();
    events.push(Case::new("CloudEvent, two ids", text.replacen('{', r#"{"id":"other","#, 1)));
    let deep = text.replace(r#"{"n":1}"#, &nested(10_000, r#"{"a":"#, "}"));
    events.push(Case::new("CloudEvent, 10,000 levels", deep));
    events.push(Case::new("CloudEvent, a batch", format!("[{text},{text}]")));
    events.push(Case::new("CloudEvent, cut short", text[..text.len() - 1].to_owned()));
    events.push(Case::new("CloudEvent, in a string", Json::String(text).to_string()));
    events
}

fn event_bridge() -> Vec<Case> {
    let event = json!({
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "State-change",
        "source": "aws.ec2", "account": "111122223333", "time": "2026-11-21T18:43:48Z",
        "region": "us-east-1", "resources": [], "detail": { "state": "terminated" },
    });
    let changes = [
        ("true", json!({})),
        ("no detail", json!({ "detail": "LEFT OUT" })),
        ("a string as detail", json!({ "detail": "{" })),
        ("a number as type", json!({ "detail-type": 7 })),
        ("no such time", json!({ "time": "never" })),
        ("resources that are none", json!({ "resources": { "a": null } })),
        ("a CloudEvent as well", cloud_event("both")),
        ("from a topic as well", json!({ "TopicArn": "x", "Type": "Notification" })),
    ];
    let case = |(name, changes)| (name, with(event.clone(), changes).to_string());
    cases("EventBridge", changes.map(case))
}

/// The envelope that we put around events for Storage Queues, forged.
fn our_envelopes() -> Vec<Case> {
    let envelope = |changes: Json, mark: Json| {
        let event = with(cloud_event("forged"), changes);
        with(event, json!({ "eventferry": mark.to_string() })).to_string()
    };
    let case = |name: &str, body: String, end: End| {
        Case::new(format!("our envelope, {name}"), body).ends(end)
    };
    let opened = |body: &str| End::Opened(body.to_owned().into());
    let looped = |body: &str| End::Looped(body.to_owned().into());
    let parked = End::Undecodable;
    let data = |n: u32| json!({ "data": { "n": n } });
    let none = json!({ "data": "LEFT OUT" });
    let deep = nested(10_000, "[", "]");
    let around_deep = envelope(json!({ "data": "DEEP" }), json!({})).replace(r#""DEEP""#, &deep);
    vec![
        case("true", envelope(data(2), json!({ "hops": 1 })), opened(r#"{"n":2}"#)),
        case("of nothing known", envelope(data(3), json!({ "x": 1 })), opened(r#"{"n":3}"#)),
        case("10,000 levels", around_deep, End::Opened(deep.into())),
        case("without data", envelope(none.clone(), json!({ "hops": 2 })), opened("")),
        case("with 3 hops", envelope(data(4), json!({ "hops": 3 })), opened(r#"{"n":4}"#)),
        case("with 4 hops", envelope(data(5), json!({ "hops": 4 })), looped(r#"{"n":5}"#)),
        case("with 255 hops", envelope(data(6), json!({ "hops": 255 })), looped(r#"{"n":6}"#)),
        case("with 256 hops", envelope(data(7), json!({ "hops": 256 })), parked.clone()),
        case("with -1 hops", envelope(data(8), json!({ "hops": -1 })), parked.clone()),
        case("that is no object", envelope(data(9), json!("x")), parked.clone()),
        case(
            "bad base64",
            envelope(with(none.clone(), json!({ "data_base64": "!" })), json!({})),
            parked.clone(),
        ),
        case("no base64", envelope(data(10), json!({ "body": "base64" })), parked.clone()),
        case("no Zstandard", envelope(data(11), json!({ "fit": "zstd" })), parked.clone()),
        case("no such fit", envelope(data(12), json!({ "fit": "lzma" })), parked.clone()),
        case("no reference", envelope(data(13), json!({ "fit": "claim_check" })), parked.clone()),
        case(
            "a type that is none",
            envelope(data(14), json!({ "more": { "a": ["nought", "1"] } })),
            parked,
        ),
    ]
}
