use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::event::{Attributes, Event, Trace};

const CARD: &str = "4111 1111 1111 1111";
const ALL: &str = r#"["card_number", "email", "phone", "iban", "ip", "key"]"#;

fn event(body: impl Into<Bytes>) -> Event {
    Event {
        id: "1".into(),
        source: "/shop".into(),
        kind: None,
        subject: None,
        time: None,
        content_type: None,
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

fn config(text: &str) -> Config {
    serde_json::from_str(text).unwrap()
}

fn step(text: &str) -> Redact {
    config(text).compile().unwrap()
}

/// One with a hash, whose salt is in a file.
fn hashing(rest: &str, salt: &str) -> (Redact, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(salt.as_bytes()).unwrap();
    let config =
        format!(r#"{{{rest}, "with": {{"hash": {{"salt": "file:{}"}}}}}}"#, file.path().display());
    (step(&config), file)
}

fn run(step: &Redact, event: Event) -> Result<Event, Failure> {
    let mut draft = Draft::new(event);
    step.apply(&mut draft).map(|()| draft.finish())
}

fn data(step: &Redact, body: Json) -> Json {
    let done = run(step, event(body.to_string())).unwrap();
    serde_json::from_slice(&done.body).unwrap()
}

fn text(step: &Redact, body: &str) -> String {
    let event = Event { content_type: Some("text/plain".into()), ..event(body.to_owned()) };
    String::from_utf8(run(step, event).unwrap().body.to_vec()).unwrap()
}

#[test]
fn what_lies_at_a_path_goes_whatever_it_is() {
    let step = step(
        r#"{"paths": ["data.customer", "data.customer.ssn", "data.cards[*].number", "data.cards[0].cvc", "data.n", "data.gone.x", "data.null.x"]}"#,
    );
    let body = json!({
        "customer": {"ssn": "078-05-1120"}, "n": null, "null": null, "total": 7,
        "cards": [{"number": CARD, "cvc": 123}, {"number": 4_111_111_111_111_111_u64, "cvc": 5}, {}],
    });
    let redacted = json!({
        "customer": "***", "n": "***", "null": null, "total": 7,
        "cards": [{"number": "****1111", "cvc": "***"}, {"number": "****1111", "cvc": 5}, {}],
    });
    assert_eq!(data(&step, body), redacted);
}

#[test]
fn removal_keeps_the_places_of_list_items() {
    let step =
        step(r#"{"paths": ["data.a[0]", "data.a[1].x", "data.m[*]", "data.s"], "with": "remove"}"#);
    let body = json!({"s": 1, "a": [{"x": 1}, {"x": 2, "y": 3}, {"x": 4}], "m": {"k": 1}, "z": 0});
    assert_eq!(data(&step, body), json!({"a": [null, {"y": 3}, {"x": 4}], "m": {}, "z": 0}));
}

#[test]
fn what_a_path_does_not_fit_fails() {
    let step = step(r#"{"paths": ["data.cards.number"]}"#);
    for body in [json!({"cards": [{"number": CARD}]}), json!({"cards": CARD}), json!([1])] {
        let failure = run(&step, event(body.to_string())).unwrap_err();
        assert_eq!(failure.class, CLASS);
        assert!(failure.text.contains("`data.cards.number` cannot be redacted"), "{failure}");
        assert!(!failure.text.contains("4111"));
    }
    let failure = run(&step, event("no json")).unwrap_err();
    assert!(failure.text.contains("the body is no JSON"), "{failure}");
    assert_eq!(run(&step, event("")), Ok(event("")));
}

#[test]
fn the_whole_body_goes() {
    let mask = step(r#"{"paths": ["data", "data.x"]}"#);
    assert_eq!(data(&mask, json!({"x": 1})), json!("***"));
    let mask = step(r#"{"paths": ["data"]}"#);
    assert_eq!(text(&mask, "a secret"), "***");
    assert_eq!(run(&mask, event(vec![0xff, 0])).unwrap().body, "***");
    let remove = step(r#"{"paths": ["data"], "with": "remove"}"#);
    assert_eq!(run(&remove, event("{}")).unwrap().body, "");
}

#[test]
fn detectors_see_every_text_of_the_body() {
    let step = step(&format!(r#"{{"detect": {ALL}}}"#));
    let body = json!({
        "notes": [["paid with 4111-1111-1111-1111", {"by": "jane@example.com or +49 30 1234567"}]],
        "iban": "DE89 3704 0044 0532 0130 00", "ip": "10.0.0.1",
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEZ",
        "number": 4_111_111_111_111_111_u64, "float": 4_111_111_111_111_111.0, "order": 4_155_552_671_u64,
        "jane@example.com": true,
    });
    let redacted = json!({
        "notes": [["paid with ****1111", {"by": "j***@example.com or ***"}]],
        "iban": "***", "ip": "***", "SecretAccessKey": "***",
        "number": "****1111", "float": "****1111", "order": 4_155_552_671_u64,
        "jane@example.com": true,
    });
    assert_eq!(data(&step, body), redacted);
}

#[test]
fn escapes_hide_nothing() {
    let step = step(r#"{"detect": ["card_number"]}"#);
    let hidden = r#"{"a": "\u0034111 1111 1111\u00201111"}"#;
    let done = run(&step, event(hidden)).unwrap();
    assert_eq!(done.body, r#"{"a":"****1111"}"#);
    // Whatever the content type says.
    let text = Event { content_type: Some("text/plain".into()), ..event(hidden) };
    assert_eq!(run(&step, text).unwrap().body, r#"{"a":"****1111"}"#);
}

#[test]
fn removal_cuts_out_of_a_text() {
    let step = step(r#"{"detect": ["card_number", "email"], "with": "remove"}"#);
    let body = json!({"a": "to jane@example.com.", "b": 4_111_111_111_111_111_u64, "c": CARD});
    assert_eq!(data(&step, body), json!({"a": "to .", "b": null, "c": ""}));
}

#[test]
fn a_text_body_is_searched_as_a_whole() {
    let step = step(r#"{"detect": ["card_number", "ip"]}"#);
    assert_eq!(text(&step, "10.0.0.1 paid with 4111111111111111"), "*** paid with ****1111");
    assert_eq!(text(&step, "4111111111111111"), "****1111");
    assert_eq!(text(&step, "{no json 10.0.0.1"), "{no json ***");
    assert_eq!(run(&step, event("4111111111111111")).unwrap().body, "\"****1111\"");
}

#[test]
fn what_cannot_be_searched_fails() {
    let step = step(r#"{"detect": ["email"]}"#);
    let utf_16: Vec<u8> = "a@b.com".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [vec![0xff, 0xfe, b'a'], utf_16.clone()] {
        let failure = run(&step, event(body)).unwrap_err();
        assert_eq!(failure.class, CLASS);
        assert!(failure.text.starts_with("the body is no UTF-8 text"), "{failure}");
    }
    let mut binary = event("{}");
    binary.attributes.set("raw", Value::Binary(utf_16.into()));
    let failure = run(&step, binary).unwrap_err();
    assert!(failure.text.starts_with("attribute `raw` is no UTF-8 text"), "{failure}");
}

#[test]
fn attributes_and_subject_are_searched_and_the_rest_only_on_request() {
    let mut full = event("{}");
    full.subject = Some("for jane@example.com".into());
    full.key = Some("jane@example.com".into());
    full.attributes.set("note", Value::string("of jane@example.com"));
    full.attributes.set("bytes", Value::Binary("jane@example.com".into()));
    full.attributes.set("number", Value::Number("4111111111111111".into()));
    full.attributes.set("long", Value::Long(4_111_111_111_111_111));
    full.attributes
        .set("label", Value::Labelled("x".into(), Box::new(Value::string("jane@example.com"))));
    full.attributes.set("count", Value::Number("7".into()));

    let done = run(&step(r#"{"detect": ["email", "card_number"]}"#), full.clone()).unwrap();
    assert_eq!(done.subject.as_deref(), Some("for j***@example.com"));
    assert_eq!(done.key.as_deref(), Some("jane@example.com"));
    assert_eq!(done.attributes.text("note"), Some("of j***@example.com"));
    assert_eq!(done.attributes.get("bytes"), Some(&Value::string("j***@example.com")));
    assert_eq!(done.attributes.get("number"), Some(&Value::string("****1111")));
    assert_eq!(done.attributes.get("long"), Some(&Value::string("****1111")));
    let label = Value::Labelled("x".into(), Box::new(Value::string("j***@example.com")));
    assert_eq!(done.attributes.get("label"), Some(&label));
    assert_eq!(done.attributes.get("count"), Some(&Value::Number("7".into())));

    // No service takes an empty attribute.
    let done = run(&step(r#"{"detect": ["email"], "with": "remove"}"#), full.clone()).unwrap();
    assert_eq!(done.attributes.get("bytes"), None);

    let by_path = step(
        r#"{"paths": ["key", "subject", "attributes.note", "attributes.count", "attributes.none"]}"#,
    );
    let done = run(&by_path, full).unwrap();
    assert_eq!(done.key.as_deref(), Some("j***@example.com"));
    assert_eq!(done.subject.as_deref(), Some("***"));
    assert_eq!(done.attributes.text("note"), Some("***"));
    assert_eq!(done.attributes.text("count"), Some("***"));
    assert_eq!(done.attributes.get("none"), None);
}

#[test]
fn detectors_look_only_where_they_are_to() {
    let step = step(r#"{"detect": ["email"], "within": ["data.notes[*]", "attributes.a", "key"]}"#);
    let mail = "jane@example.com";
    let mut full = event(json!({"notes": [mail, {"x": mail}], "from": mail}).to_string());
    full.subject = Some(mail.into());
    full.key = Some(mail.into());
    full.attributes.set("a", Value::string(mail));
    full.attributes.set("b", Value::Binary(vec![0xff].into()));
    let done = run(&step, full.clone()).unwrap();
    let masked = "j***@example.com";
    let body: Json = serde_json::from_slice(&done.body).unwrap();
    assert_eq!(body, json!({"notes": [masked, {"x": masked}], "from": mail}));
    assert_eq!(done.subject.as_deref(), Some(mail));
    assert_eq!(done.key.as_deref(), Some(masked));
    assert_eq!(done.attributes.text("a"), Some(masked));
    assert_eq!(done.attributes.get("b"), full.attributes.get("b"));
    // What is not as `within` says may hold it, too.
    assert!(run(&step, event(r#"{"notes": "jane@example.com"}"#)).is_err());
    assert!(run(&step, event("jane@example.com")).is_err());
}

#[test]
fn a_body_without_findings_keeps_its_bytes() {
    let step = step(&format!(r#"{{"paths": ["data.x"], "detect": {ALL}}}"#));
    let body = r#"{ "big": 123456789012345678901234567890, "price": 1.10, "a": 1 }"#;
    assert_eq!(run(&step, event(body)).unwrap().body, body);
}

#[test]
fn a_member_that_is_written_twice_hides_nothing() {
    let step = step(r#"{"paths": ["data.a.ssn"], "detect": ["card_number"]}"#);
    for body in [
        r#"{"a": {"note": "4111 1111 1111 1111"}, "a": {"note": "\\\": {"}}"#,
        r#"{"a": {"ssn": "078-05-1120"}, "b": [{"x": 1, "x": 2}], "a": {}}"#,
    ] {
        let done = run(&step, event(body)).unwrap();
        let expected: Json = serde_json::from_str(body).unwrap();
        assert_eq!(done.body, expected.to_string());
    }
    let once = r#"{ "a": {"note": "4: \" :", "b": [{"c": 1.00}] } }"#;
    assert_eq!(run(&step, event(once)).unwrap().body, once);
}

#[test]
fn equal_values_have_equal_hashes() {
    let rest = format!(r#""paths": ["data.card", "data.o", "data.p"], "detect": {ALL}"#);
    let (mut one, _file) = hashing(&rest, "0123456789abcdef\n");
    one.unlock().unwrap();
    let body = json!({
        "card": CARD, "number": 4_111_111_111_111_111_u64, "text": "4111-1111-1111-1111",
        "o": {"a": 1, "b": 2}, "p": {"b": 2, "a": 1}, "mails": ["Jane@example.com", "jane@EXAMPLE.com"],
        "ips": ["2001:db8::1", "2001:0DB8:0::0:1"], "phone": ["+49 30 1234567", "+49-30-1234567"],
    });
    let done = data(&one, body.clone());
    // HMAC-SHA-256 of the digits, from another implementation.
    assert_eq!(done["card"], HASH_OF_CARD);
    assert_eq!(done["number"], HASH_OF_CARD);
    assert_eq!(done["text"], HASH_OF_CARD);
    assert_eq!(done["o"], done["p"]);
    for list in ["mails", "ips", "phone"] {
        assert_eq!(done[list][0], done[list][1], "{list}");
        assert_ne!(done[list][0], body[list][0], "{list}");
    }
    let (mut other, _file) = hashing(&rest, "another salt, as long");
    other.unlock().unwrap();
    assert_ne!(data(&other, body)["card"], done["card"]);
}
// printf 4111111111111111 | openssl dgst -sha256 -hmac 0123456789abcdef | cut to 16 bytes
const HASH_OF_CARD: &str = "6ab68ca2a9a5093ababdf00856c5692b";

#[test]
fn nothing_passes_before_the_salt_is_read() {
    let (mut step, _file) = hashing(r#""paths": ["data.x"]"#, "0123456789abcdef");
    let failure = run(&step, event("{}")).unwrap_err();
    assert!(failure.class == CLASS && failure.text.contains("has not been read"), "{failure}");
    step.unlock().unwrap();
    assert!(run(&step, event("{}")).is_ok());
    let shown = format!("{step:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("48, 49, 50"), "{shown}");

    let (mut short, _file) = hashing(r#""paths": ["data.x"]"#, "pepper");
    let finding = short.unlock().unwrap_err();
    assert_eq!(finding.path.to_string(), "with.hash.salt");
    assert!(finding.text.contains("shorter than 16 bytes"), "{finding}");
    assert!(!finding.text.contains("pepper"));
    assert!(run(&short, event("{}")).is_err());
}

#[test]
fn settings_that_cannot_be_followed_are_told() {
    let hash = r#"{"hash": {"salt": "${SALT}"}}"#;
    for (text, path, part) in [
        ("{}".to_owned(), "", "say what to redact"),
        (r#"{"paths": ["key"], "within": ["data"]}"#.to_owned(), "within", "add `detect`"),
        (r#"{"paths": ["key", "id"]}"#.to_owned(), "paths[1]", "told apart by `id`"),
        (r#"{"paths": ["id"], "with": "remove"}"#.to_owned(), "paths[0]", "has to have `id`"),
        (r#"{"paths": ["source"], "with": "remove"}"#.to_owned(), "paths[0]", "`source`"),
        (format!(r#"{{"paths": ["time"], "with": {hash}}}"#), "paths[0]", "stay a time"),
        (r#"{"detect": ["ip"], "within": ["type"]}"#.to_owned(), "within[0]", "in `paths`"),
    ] {
        let findings = config(&text).compile().unwrap_err();
        assert_eq!(findings.len(), 1, "{text}");
        assert_eq!(findings[0].path.to_string(), path, "{text}");
        assert!(findings[0].text.contains(part), "{text}: {}", findings[0]);
    }
    assert!(config(&format!(r#"{{"paths": ["id"], "with": {hash}}}"#)).compile().is_ok());
}

#[test]
fn a_configuration_reads_as_it_is_written() {
    let full = json!({
        "paths": ["data.cards[*].number"], "detect": ["card_number", "key"], "within": ["data"],
        "with": {"hash": {"salt": "${SALT}"}},
    });
    let config: Config = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap(), full);
    let short: Config = serde_json::from_value(json!({"detect": ["ip"]})).unwrap();
    assert_eq!(short.with, With::Mask);
    assert!(serde_json::from_value::<Config>(json!({"detect": ["all"]})).is_err());
}

/// A number of a network, with the check digit that makes it right.
fn card() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        Just(("4", 16)),
        Just(("4", 13)),
        Just(("55", 16)),
        Just(("2500", 16)),
        Just(("37", 15)),
        Just(("36", 14)),
        Just(("6011", 16)),
        Just(("62", 19)),
    ];
    (start, "[0-9]{19}").prop_map(|((start, length), more)| {
        let mut digits = start.to_owned() + &more[..length - 1 - start.len()];
        let sum: u32 = digits.bytes().rev().enumerate().fold(0, |sum, (place, byte)| {
            let digit = u32::from(byte - b'0') * if place % 2 == 0 { 2 } else { 1 };
            sum + digit / 10 + digit % 10
        });
        digits.push_str(&((10 - sum % 10) % 10).to_string());
        digits
    })
}

/// Its digits in groups of four.
fn grouped(digits: &str, separator: &str) -> String {
    let groups: Vec<&str> =
        (0..digits.len()).step_by(4).map(|at| &digits[at..digits.len().min(at + 4)]).collect();
    groups.join(separator)
}

proptest! {
    #[test]
    fn a_card_number_never_survives(
        digits in card(), separator in prop_oneof![Just(""), Just(" "), Just("-")],
        before in "(?s).{0,40}", behind in "(?s).{0,40}",
    ) {
        let step = step(r#"{"detect": ["card_number"]}"#);
        let number = grouped(&digits, separator);
        let body = format!("{before}\u{7}{number}\u{7}{behind}").replace('\0', "");
        prop_assert!(!text(&step, &body).contains(&number));
        let json = json!({"a": [{"b": body}]});
        prop_assert!(!data(&step, json).to_string().contains(&number));
        // With digits, words and dates beside it.
        let body = format!("2026-11-21 {number} paid{number} {number} 12/27");
        prop_assert!(!text(&step, &body).contains(&number));
    }

    #[test]
    fn any_text_passes_without_a_panic(body in "(?s).*", odd in "[-0-9a-fA-F+@%.:/() =_\"a-z]{0,80}") {
        let step = step(&format!(r#"{{"detect": {ALL}}}"#));
        let once = text(&step, &(body.clone() + &odd).replace('\0', ""));
        let _ = data(&step, json!({&body: [odd, &once]}));
    }

    #[test]
    fn text_without_findings_is_unchanged(words in "[a-zA-Z ,.äöü€\n]{0,80}", number in 0..9_999_999_u64) {
        let step = step(&format!(r#"{{"detect": {ALL}}}"#));
        let body = format!("{words} {number}\n{words}");
        prop_assert_eq!(text(&step, &body), body);
    }
}

/// Found by fuzzing.
#[test]
fn what_only_what_stands_beside_it_has_hidden_is_found() {
    let step = step(&format!(r#"{{"detect": {ALL}}}"#));
    for body in ["+49 30 901820 4111 1111 1111 1111", "tel +49 30 901820 4111111111111111 x"] {
        let covered = text(&step, body);
        assert!(!covered.contains("901820"), "{covered}");
        assert_eq!(text(&step, &covered), covered);
    }
}
