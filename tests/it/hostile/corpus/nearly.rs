//! What is nearly right: documents, envelopes and encodings with one thing wrong, by the row. Every
//! service can carry all of it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value as Json, json};

use super::{Case, End, cases, cloud_event, nested, sns_envelope, with};

pub(super) fn json_documents() -> Vec<Case> {
    let escapes: String = (0..0x20).map(|c| format!("\\u{c:04x}")).collect();
    let documents = [
        // As deep as parsers go by default, and one deeper.
        ("128 lists", nested(128, "[", "]")),
        ("128 objects", nested(128, r#"{"a":"#, "}")),
        ("1,000 of both", nested(500, r#"{"a":["#, "]}")),
        ("1,000 lists, one not closed", format!("{}1{}", "[".repeat(1000), "]".repeat(999))),
        ("1,000 lists, one closed twice", format!("{}1{}", "[".repeat(1000), "]".repeat(1001))),
        ("1,000 lists, closed as objects", nested(1000, "[", "}")),
        ("10,000 empty lists", format!("[{}[]]", "[],".repeat(10_000))),
        ("10,000 empty objects", format!("[{}{{}}]", "{},".repeat(10_000))),
        ("10,000 commas", format!("[{}]", ",".repeat(10_000))),
        ("an empty list in an empty name", r#"{"":[]}"#.to_owned()),
        ("50,000 digits", format!(r#"{{"n":{}}}"#, "7".repeat(50_000))),
        ("50,000 zeros behind a point", format!(r#"{{"n":0.{}1}}"#, "0".repeat(50_000))),
        ("an exponent of 1,000 digits", format!(r#"{{"n":1e{}}}"#, "9".repeat(1000))),
        ("below all exponents", r#"{"n":-1e-99999999999}"#.to_owned()),
        ("a minus alone", r#"{"n":-}"#.to_owned()),
        ("two minuses", r#"{"n":--1}"#.to_owned()),
        ("no digits in front", r#"{"n":.5}"#.to_owned()),
        ("an exponent that is none", r#"{"n":1e}"#.to_owned()),
        ("digits of another script", r#"{"n":１２}"#.to_owned()),
        ("digits in groups", r#"{"n":1_000}"#.to_owned()),
        ("a member twice, once in escapes", r#"{"a":1,"\u0061":2}"#.to_owned()),
        ("a member twice, of two kinds", r#"{"a":{"b":[]},"a":null}"#.to_owned()),
        ("a member twice, far within", nested(60, r#"{"a":1,"a":"#, "}")),
        ("no name, twice", r#"{"":1,"":2}"#.to_owned()),
        ("a name of 32 KiB of escapes", format!(r#"{{"{}":1}}"#, "\\u006e".repeat(5461))),
        ("a name of control characters", format!(r#"{{"{escapes}":1}}"#)),
        ("a name that is a number", r#"{1:2}"#.to_owned()),
        ("a name without quotes", r#"{a:2}"#.to_owned()),
        ("5,000 names", {
            let names: Vec<_> = (0..5000).map(|n| format!(r#""{n}":0"#)).collect();
            format!("{{{}}}", names.join(","))
        }),
        ("a pair of surrogates, apart", r#"{"a":"\ud83d \ude00"}"#.to_owned()),
        ("a high surrogate too many", r#"{"a":"\ud83d\ud83d\ude00"}"#.to_owned()),
        ("a low surrogate too many", r#"{"a":"\ud83d\ude00\ude00"}"#.to_owned()),
        ("a lone surrogate in capitals", r#"{"a":"\uDFFF"}"#.to_owned()),
        ("a lone surrogate before an escape", r#"{"a":"\ud800\n"}"#.to_owned()),
        ("a surrogate and half of another", r#"{"a":"\ud83d\ude"}"#.to_owned()),
        ("1,000 lone surrogates", format!(r#"["{}"]"#, "\\udbff".repeat(1000))),
        ("what only looks like a surrogate", r#"{"a":"\\ud800"}"#.to_owned()),
        ("no character, in escapes", r#"{"a":"\uffff\ufffe\ufdd0"}"#.to_owned()),
        ("an escape in braces", r#"{"a":"\u{1f6a2}"}"#.to_owned()),
        ("an escape of no digits", r#"{"a":"\uzzzz"}"#.to_owned()),
        ("an octal escape", r#"{"a":"\101\0"}"#.to_owned()),
        ("a backslash at the end", r#"{"a":"b\"}"#.to_owned()),
        ("a line feed in a string", "{\"a\":\"\n\"}".to_owned()),
        ("line separators in a string", "{\"a\":\"\u{2028}\u{2029}\"}".to_owned()),
        ("a mark within", "{\u{feff}\"a\":1}".to_owned()),
        ("space that is none", "{\u{a0}\"a\":\u{3000}1}".to_owned()),
        ("no colon", r#"{"a" 1}"#.to_owned()),
        ("no comma", r#"{"a":1 "b":2}"#.to_owned()),
        ("a semicolon", r#"{"a":1;"b":2}"#.to_owned()),
        ("a list with a hole", "[1,,2]".to_owned()),
        ("a list with a member", r#"["a":1]"#.to_owned()),
        ("the words of another language", "{\"a\":True,\"b\":None}".to_owned()),
        ("undefined", "{\"a\":undefined}".to_owned()),
        ("a word cut short", "{\"a\":nul}".to_owned()),
    ];
    cases("nearly JSON", documents)
}

/// Fields of CloudEvents that are of another type, or of another version than there is.
pub(super) fn cloud_events() -> Vec<Case> {
    let wrong = [
        ("null", Json::Null),
        ("true", json!(true)),
        ("a list", json!([1])),
        ("an object", json!({})),
    ];
    let fields = ["specversion", "id", "source", "type", "time", "datacontenttype", "traceparent"];
    let mut changes: Vec<(String, Json)> = Vec::new();
    for field in fields {
        for (what, value) in &wrong {
            changes.push((format!("{what} as {field}"), json!({ field: value })));
        }
    }
    for field in ["specversion", "source"] {
        changes.push((format!("no {field}"), json!({ field: "LEFT OUT" })));
    }
    for version in ["2.0", "1.0.1", "v1.0", "1,0", " 1.0", "\u{661}.\u{660}"] {
        changes.push((format!("version {version:?}"), json!({ "specversion": version })));
    }
    let name = "x".repeat(4 << 10);
    let numbered: Vec<_> = (0..5000).collect();
    changes.extend([
        ("a name of 4 KiB".to_owned(), json!({ name: "x" })),
        ("an extension of 32 KiB".to_owned(), json!({ "extension": "x".repeat(32 << 10) })),
        ("an extension of 5,000 numbers".to_owned(), json!({ "extension": numbered })),
        ("a key that is too deep".to_owned(), json!({ "partitionkey": "DEEP" })),
        ("an extension that is too deep".to_owned(), json!({ "extension": "DEEP" })),
    ]);
    let deep = nested(200, "[", "]");
    let numbered = changes.into_iter().enumerate();
    let events = numbered.map(|(number, (name, changes))| {
        let event = with(cloud_event("nearly"), json!({ "data": { "nearly": number } }));
        let body = with(event, changes).to_string().replace(r#""DEEP""#, &deep);
        Case::new(format!("nearly a CloudEvent, {name}"), body)
    });
    events.collect()
}

/// The envelope of SNS, where a field of it is not as SNS writes it.
pub(super) fn sns_envelopes() -> Vec<Case> {
    let changes = [
        ("a list as type", json!({ "Type": ["Notification"] })),
        ("a type in capitals", json!({ "Type": "NOTIFICATION" })),
        ("the end of a subscription", json!({ "Type": "UnsubscribeConfirmation" })),
        ("true as id", json!({ "MessageId": true })),
        ("a number as topic", json!({ "TopicArn": 7 })),
        ("null as message", json!({ "Message": null })),
        ("a number as subject", json!({ "Subject": 7 })),
        ("text as attributes", json!({ "MessageAttributes": "x" })),
        ("null as attribute", json!({ "MessageAttributes": { "a": null } })),
        (
            "a number in an attribute",
            json!({ "MessageAttributes": { "a": { "Type": "String", "Value": 7 } } }),
        ),
        ("small letters", json!({ "TopicArn": "LEFT OUT", "topicArn": "x" })),
    ];
    let mut envelopes = cases(
        "nearly an SNS envelope",
        changes.map(|(name, changes)| (name, with(sns_envelope("nearly"), changes).to_string())),
    );
    let opened = |name: &str, message: &str, changes: Json| {
        let body = with(sns_envelope(message), changes).to_string();
        let end = End::OpenedOnce(message.to_owned().into());
        Case::new(format!("an SNS envelope, {name}"), body).ends(end)
    };
    let named = json!({ "MessageId": "", "TopicArn": "" });
    envelopes.push(opened("of no topic and no id", "of nowhere", named));
    let mark = json!({ "MessageAttributes": { "eventferry": { "Type": "String", "Value": "{" } } });
    envelopes.push(opened("with an attribute of our name", "of our name", mark));
    envelopes
}

/// Our own envelope, where it is of another version, damaged, or refers to what cannot be.
pub(super) fn our_envelopes() -> Vec<Case> {
    let envelope = |number: usize, changes: Json| {
        let event = json!({ "data": { "n": number }, "eventferry": r#"{"hops":1}"# });
        with(with(cloud_event("nearly"), event), changes).to_string()
    };
    let case = |name: &str, body: String, end: End| {
        Case::new(format!("nearly our envelope, {name}"), body).ends(end)
    };
    let mut all = Vec::new();

    // None at all, for anybody may name a member so.
    let payloads = [
        ("no id", json!({ "id": "LEFT OUT" })),
        ("a number as id", json!({ "id": 7 })),
        ("no source", json!({ "source": "LEFT OUT" })),
        ("no type", json!({ "type": "LEFT OUT" })),
        ("a list as type", json!({ "type": ["t"] })),
        ("no version", json!({ "specversion": "LEFT OUT" })),
        ("a number as version", json!({ "specversion": 1 })),
        ("a list as subject", json!({ "subject": [1] })),
        ("a number as trace", json!({ "traceparent": 7 })),
        ("a number as base64", json!({ "data_base64": 7 })),
        ("an object as mark", json!({ "eventferry": { "hops": 1 } })),
        ("null as mark", json!({ "eventferry": null })),
    ];
    for (number, (name, changes)) in payloads.into_iter().enumerate() {
        all.push(case(name, envelope(100 + number, changes), End::AsItIs));
    }
    let marks = envelope(120, json!({})).replacen('{', r#"{"eventferry":"{}","#, 1);
    all.push(case("two marks", marks, End::AsItIs));
    let version = envelope(121, json!({})).replace(r#""1.0""#, r#""\u0031.0""#);
    all.push(case("its version in escapes", version, End::AsItIs));

    // What else it says does not matter to what it holds.
    let opened = [
        ("of version 9.9", json!({ "specversion": "9.9" })),
        ("of an empty version", json!({ "specversion": "" })),
        ("of nobody", json!({ "id": "", "source": "" })),
        ("of no such time", json!({ "time": "never" })),
        ("with base64 beside its data", json!({ "data_base64": "!" })),
        ("with types of nobody", json!({ "eventferry": r#"{"types":{"nobody":"nought"}}"# })),
    ];
    for (number, (name, changes)) in opened.into_iter().enumerate() {
        let number = 200 + number;
        let end = End::Opened(format!(r#"{{"n":{number}}}"#).into());
        all.push(case(name, envelope(number, changes), end));
    }

    let mut parked: Vec<(String, Json)> = Vec::new();
    let marks = [
        ("", "an empty mark"),
        ("{", "a mark that is cut short"),
        ("null", "null in the mark"),
        (r#"{"hops":1,"hops":2}"#, "hops twice"),
        (r#"{"hops":"1"}"#, "hops in words"),
        (r#"{"hops":1.5}"#, "half a hop"),
        (r#"{"hops":null}"#, "null hops"),
        (r#"{"body":"rot13"}"#, "no such encoding"),
        (r#"{"more":{"a":"x"}}"#, "an attribute of no type"),
        (r#"{"more":{"a":["string"]}}"#, "an attribute of no value"),
        (r#"{"types":[1]}"#, "a list of types"),
        (r#"{"time":"never"}"#, "no time"),
        (r#"{"trace":"x"}"#, "half a trace"),
        (r#"{"dead_letter":{"class":"x"}}"#, "half a dead letter"),
    ];
    parked.extend(marks.map(|(mark, name)| (name.to_owned(), json!({ "eventferry": mark }))));
    let mut frame = zstd::bulk::compress(b"hello, hello, hello", 3).unwrap();
    frame.pop();
    let none = json!({ "data": "LEFT OUT" });
    for base64 in ["AAA", "A===", "AB==", "-_-_", "AA==AA==", "AAAA\nAAAA"] {
        let name = format!("base64 such as {base64:?}");
        parked.push((name, with(none.clone(), json!({ "data_base64": base64 }))));
    }
    let frame = json!({
        "data": "LEFT OUT", "data_base64": BASE64.encode(frame), "eventferry": r#"{"fit":"zstd"}"#,
    });
    parked.push(("a frame that is cut".to_owned(), frame));
    let references = [
        ("a digest that is too short", json!({ "sha256": "0".repeat(63) })),
        ("a digest that is too long", json!({ "sha256": "0".repeat(65) })),
        ("a digest in capitals", json!({ "sha256": "A".repeat(64) })),
        ("a digest that is none", json!({ "sha256": "g".repeat(64) })),
        ("a number as digest", json!({ "sha256": 0 })),
        ("a length below nothing", json!({ "bytes": -1 })),
        ("no place", json!({ "url": "LEFT OUT" })),
        ("another's file", json!({})),
        ("a length of all", json!({ "bytes": u64::MAX, "url": "s3://theirs/x" })),
    ];
    for (name, changes) in references {
        let sha256 = "0".repeat(64);
        let reference = json!({ "url": "file:///etc/shadow", "bytes": 1, "sha256": sha256 });
        let data = json!({ "claim_check": with(reference, changes) });
        let changes = json!({ "data": data, "eventferry": r#"{"fit":"claim_check"}"# });
        parked.push((format!("a reference with {name}"), changes));
    }
    for (number, (name, changes)) in parked.into_iter().enumerate() {
        all.push(case(&name, envelope(300 + number, changes), End::Undecodable));
    }
    all
}

/// Text that a guess at its encoding spoils.
pub(super) fn texts() -> Vec<Case> {
    let encodings = [
        ("one sign of four", "A==="),
        ("padding in front", "=AAAA"),
        ("padding too much", "AAAA="),
        ("padding before the end", "AA=A"),
        ("stray bits in two signs", "AB=="),
        ("a space within", "AAAA AAAA"),
        ("a tab within", "AAAA\tAAAA"),
        ("no width within", "AAAA\u{200b}AAAA"),
        ("a byte order mark within", "AAAA\u{feff}AAAA"),
        ("wide letters", "ＡＡＡＡ"),
        ("both alphabets", "ab+/-_ab"),
        ("a data URL", "data:text/plain;base64,SGVsbG8="),
        ("armour", "-----BEGIN X-----\nSGVsbG8=\n-----END X-----"),
    ];
    let markup = [
        ("an open angle", "<"),
        ("an ampersand", "&"),
        ("an entity without an end", "a&amp"),
        ("entities of what cannot be", "&#xD800;&#xFFFF;&#x110000;&#-1;"),
        ("entities of entities", "&amp;#0;&amp;lt;&#38;#38;"),
        ("CDATA without an end", "<![CDATA[ a"),
        ("a comment without an end", "<!-- a -- b"),
        ("a declaration", "<?xml version=\"1.1\" encoding=\"UTF-16\"?><a>&#1;</a>"),
        ("a name space of nobody", "<x:a y:b=''/>"),
        ("an answer of the service", "<QueueMessagesList></QueueMessagesList>"),
        ("a request to the service", "Action=DeleteQueue&Version=2012-11-05"),
        ("a body of parts", "--x\r\nContent-Type: a/b\r\n\r\n--x--"),
    ];
    let broken = [
        ("UTF-8 taken for Latin-1", "grÃ¼ÃŸe ðŸš¢"),
        ("a mark taken for Latin-1", "ï»¿{\"a\":1}"),
        ("a mark of UTF-16 taken for Latin-1", "þÿ\u{a0}{"),
        ("UTF-8 that was replaced", "gr\u{fffd}\u{fffd}e"),
        ("bytes in escapes", "\\xc3\\x28\\xff\\377"),
        ("bytes in percent", "%C3%28%ED%A0%80"),
        ("bytes in entities", "&#195;&#40;"),
        ("surrogates in escapes", "\\ud83d\\ude00\\ud800"),
        ("UTF-7 of a surrogate", "+2AA-"),
        ("Punycode", "xn--a-0000000"),
        ("one DEL", "\u{7f}"),
        ("C1 alone", "\u{81}\u{8d}\u{8f}\u{90}\u{9d}"),
        ("a next line alone", "\u{85}"),
        ("a tab alone", "\t"),
        ("soft hyphens", "\u{ad}\u{ad}"),
        ("no width alone", "\u{200b}\u{200c}\u{200d}\u{2060}"),
        ("isolates that do not end", "\u{2066}\u{2067}\u{2068}a"),
        ("notes between lines", "\u{fff9}a\u{fffa}b\u{fffb}"),
        ("tags", "\u{e0001}\u{e0041}\u{e007f}"),
        ("selectors", "a\u{fe0f}\u{fe0e}\u{e0100}"),
        ("Hangul in parts", "\u{1112}\u{1161}\u{11ab}"),
        ("what grows in capitals", "ŉǰΐﬃßİ"),
        ("marks upon nothing", "\u{300}\u{301}\u{20dd}"),
    ];
    let own = |(name, text): (&'static str, &str)| (name, text.to_owned());
    let mut all = cases("nearly base64", encodings.map(own));
    all.extend(cases("nearly XML", markup.map(own)));
    all.extend(cases("nearly text", broken.map(own)));
    let upon = format!("a{}", "\u{308}".repeat(10_000));
    all.push(Case::new("nearly text: 10,000 marks upon one letter", upon));
    all
}
