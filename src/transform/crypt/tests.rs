use std::{collections::BTreeMap, fs};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::{
    decrypt::Decrypt,
    encrypt::Encrypt,
    envelope::{Draw, Head, Sealed, seal},
    key::Key,
    *,
};
use crate::{
    config::secret::Secret,
    decode::{Format, decode},
    delivery::Received,
    event::{Attributes, Event, Trace, Value},
    metadata::{amqp_properties, aws, envelope as cloud_event},
    transform::{Draft, Failure, encode::CONTENT_ENCODING},
};

/// What Python's `cryptography` sealed, with the keys and nonces below.
const VECTOR: &str = include_str!("vector.json");
const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn event(body: impl Into<Bytes>) -> Event {
    Event {
        id: "7c0e".into(),
        source: "/shop".into(),
        kind: Some("order.placed".into()),
        subject: None,
        time: None,
        content_type: Some("text/plain".into()),
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

fn draft(body: impl Into<Bytes>) -> Draft {
    Draft::new(event(body))
}

/// Files with keys, named like them.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new(keys: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        keys.iter().for_each(|(kid, text)| fs::write(folder.path().join(kid), text).unwrap());
        Self(folder)
    }

    fn table(&self, names: &[&str]) -> BTreeMap<String, Secret> {
        let file = |kid: &str| self.0.path().join(kid).to_str().unwrap().to_owned();
        names.iter().map(|kid| ((*kid).to_owned(), Secret::File(file(kid)))).collect()
    }

    fn encrypt(&self, kid: &str) -> Encrypt {
        let config = encrypt::Config { key: kid.to_owned(), keys: self.table(&[kid]) };
        let mut step = config.compile().unwrap();
        step.unlock().unwrap();
        step
    }

    fn decrypt(&self, names: &[&str]) -> Decrypt {
        let mut step = decrypt::Config { keys: self.table(names) }.compile().unwrap();
        step.unlock().unwrap();
        step
    }
}

fn both() -> Keys {
    Keys::new(&[("old", OLD), ("new", &format!("{NEW}\n"))])
}

/// Seals with `new`, without any file.
fn sealed(mut draft: Draft) -> Bytes {
    let key = Key::new(&[7; 32]);
    let head = Head::new("new", draft.event(), None);
    seal(&key, &head, &draft.bytes().clone(), &Draw::new().unwrap()).unwrap()
}

fn open(body: &[u8]) -> Result<Bytes, Failure> {
    Sealed::read(body)?.open(&Key::new(&[7; 32]))
}

#[test]
fn any_body_comes_back_and_looks_different_each_time() {
    let keys = both();
    let (encrypt, decrypt) = (keys.encrypt("new"), keys.decrypt(&["new"]));
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_be_bytes()[2] ^ 0xa5).collect();
    for body in [vec![], b"{\"a\":1}".to_vec(), vec![0xff, 0, 0xfe], large] {
        let before = draft(body);
        let mut sealed = before.clone();
        encrypt.apply(&mut sealed).unwrap();
        let mut again = before.clone();
        encrypt.apply(&mut again).unwrap();
        let parts = |draft: &mut Draft| {
            let json = draft.json().unwrap();
            ["key", "data"].map(|part| BASE64.decode(json[part].as_str().unwrap()).unwrap())
        };
        for (one, other) in parts(&mut sealed.clone()).iter().zip(&parts(&mut again)) {
            assert_eq!(one.len(), other.len());
            assert!(one[..12] != other[..12] && one[12..] != other[12..]);
        }
        assert_eq!(sealed.event().content_type.as_deref(), Some("application/json"));
        decrypt.apply(&mut sealed).unwrap();
        assert_eq!(sealed, before);
    }
}

proptest! {
    #[test]
    fn decrypt_is_the_inverse_of_encrypt(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        id in ".{1,10}",
        source in ".{1,10}",
        kind in proptest::option::of(".{0,10}"),
        content_type in proptest::option::of(".{0,10}"),
        compressed in proptest::option::of("gzip|zstd"),
    ) {
        let keys = both();
        let mut before = event(body);
        (before.id, before.source) = (id.into(), source.into());
        before.kind = kind.map(Into::into);
        before.content_type = content_type.map(Into::into);
        if let Some(coding) = compressed {
            before.attributes.set(CONTENT_ENCODING, Value::string(coding));
        }
        let before = Draft::new(before);
        let mut draft = before.clone();
        keys.encrypt("new").apply(&mut draft).unwrap();
        prop_assert!(std::str::from_utf8(draft.bytes()).is_ok());
        prop_assert!(draft.event().attributes.is_empty());
        keys.decrypt(&["old", "new"]).apply(&mut draft).unwrap();
        prop_assert_eq!(draft, before);
    }

    #[test]
    fn what_comes_from_outside_is_refused_and_breaks_nothing(
        parts in proptest::collection::vec(
            prop_oneof![Just(json!(1)), Just(json!("")), Just(json!("AAAA")), ".{0,50}".prop_map(Json::from),
                Just(json!("{\"alg\":\"A256GCM\",\"kid\":\"new\",\"id\":\"\",\"source\":\"\"}")),
                proptest::collection::vec(any::<u8>(), 0..80).prop_map(|b| BASE64.encode(b).into())],
            3),
    ) {
        let body = json!({
            "eventferry_sealed": 1, "head": parts[0], "key": parts[1], "data": parts[2],
        });
        let failure = open(body.to_string().as_bytes()).unwrap_err();
        prop_assert_eq!(failure.class, "tampered");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let body = sealed(draft("42"));
    assert_eq!(open(&body).unwrap(), "42");
    let envelope: Json = serde_json::from_slice(&body).unwrap();
    let mut flips = 0;
    for part in ["head", "key", "data"] {
        let text = envelope[part].as_str().unwrap();
        let bytes = if part == "head" { text.into() } else { BASE64.decode(text).unwrap() };
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = match part {
                // What is no text any more cannot stand in JSON at all.
                "head" => match String::from_utf8(flipped) {
                    Ok(text) => text,
                    Err(_) => continue,
                },
                _ => BASE64.encode(flipped),
            };
            let mut envelope = envelope.clone();
            envelope[part] = flipped.into();
            let failure = open(envelope.to_string().as_bytes()).unwrap_err();
            assert_eq!(failure.class, "tampered", "bit {bit} of {part}");
            flips += 1;
        }
    }
    assert!(flips > 1000, "{flips}");
}

#[test]
fn parts_of_two_bodies_do_not_fit_together() {
    let read =
        |text: &str| serde_json::from_slice::<Json>(&sealed(draft(text.to_owned()))).unwrap();
    let (one, other) = (read("1"), read("2"));
    for part in ["key", "data"] {
        let mut mixed = one.clone();
        mixed[part] = other[part].clone();
        assert_eq!(open(mixed.to_string().as_bytes()).unwrap_err().class, "tampered");
    }
}

/// The same head, written in another order or with other white space by somebody on the way.
#[test]
fn the_envelope_may_be_written_anew() {
    let envelope: Json = serde_json::from_slice(&sealed(draft("42"))).unwrap();
    let pretty = serde_json::to_string_pretty(&envelope).unwrap().replace("new", "n\\u0065w");
    assert_eq!(open(pretty.as_bytes()).unwrap(), "42");
}

#[test]
fn the_known_answer_is_given() {
    let key = Key::new(&std::array::from_fn(|n| n as u8));
    let body = "Größe 42";
    let draw = Draw {
        data_key: Zeroizing::new(std::array::from_fn(|n| 32 + n as u8)),
        key_nonce: std::array::from_fn(|n| 64 + n as u8),
        nonce: std::array::from_fn(|n| 76 + n as u8),
    };
    let head = Head::new("orders-2026-11", &event(""), Some("gzip".to_owned()));
    assert_eq!(seal(&key, &head, body.as_bytes(), &draw).unwrap(), VECTOR.trim_end());
    assert_eq!(Sealed::read(VECTOR.as_bytes()).unwrap().open(&key).unwrap(), body);

    let keys = Keys::new(&[("orders-2026-11", OLD)]);
    let mut draft = draft(VECTOR);
    keys.decrypt(&["orders-2026-11"]).apply(&mut draft).unwrap();
    assert_eq!(draft.event().content_type.as_deref(), Some("text/plain"));
    assert_eq!(draft.event().attributes.text(CONTENT_ENCODING), Some("gzip"));
    assert_eq!(draft.bytes(), body);
}

#[test]
fn keys_rotate() {
    let keys = both();
    let mut early = draft("early");
    keys.encrypt("old").apply(&mut early).unwrap();
    let mut late = draft("late");
    keys.encrypt("new").apply(&mut late).unwrap();
    let decrypt = keys.decrypt(&["new", "old"]);
    for (mut draft, body) in [(early.clone(), "early"), (late, "late")] {
        decrypt.apply(&mut draft).unwrap();
        assert_eq!(draft.bytes(), body);
    }
    let failure = keys.decrypt(&["new"]).apply(&mut early).unwrap_err();
    assert_eq!(failure.class, "unknown_key");
    assert_eq!(failure.text, "the body is sealed with key `old`, which is not in `keys`");
}

#[test]
fn another_key_of_the_same_name_opens_nothing() {
    let mut draft = draft("42");
    both().encrypt("new").apply(&mut draft).unwrap();
    let before = draft.clone();
    let other = Keys::new(&[("new", OLD)]).decrypt(&["new"]);
    let failure = other.apply(&mut draft).unwrap_err();
    assert_eq!(failure.class, "tampered");
    assert_eq!(draft, before);
}

#[test]
fn a_body_is_refused_in_the_place_of_another() {
    let keys = both();
    let mut sealed = draft("42");
    keys.encrypt("new").apply(&mut sealed).unwrap();
    type Change = fn(&mut Event);
    let changes: [(&str, Change); 4] = [
        ("id", |event| event.id = "other".into()),
        ("source", |event| event.source = "/other".into()),
        ("type", |event| event.kind = Some("refund".into())),
        ("type", |event| event.kind = None),
    ];
    for (name, change) in changes {
        let mut draft = sealed.clone();
        change(draft.event_mut());
        let failure = keys.decrypt(&["new"]).apply(&mut draft).unwrap_err();
        assert_eq!(failure.class, "tampered");
        assert!(failure.text.contains(&format!("its `{name}`")), "{failure}");
    }
}

/// Every kind of service carries what a sealed body is bound to.
#[test]
fn a_sealed_body_opens_behind_every_service() {
    let keys = both();
    for kind in [Some("order.placed".into()), None] {
        let mut draft = Draft::new(Event { kind, ..event(vec![0, 0xff]) });
        keys.encrypt("new").apply(&mut draft).unwrap();
        let event = draft.finish();
        let packed = aws::pack(&event);
        let aws = (packed.body, packed.attributes.into_iter().collect());
        let amqp = (event.body.clone(), amqp_properties(&event).into_iter().collect());
        let queue = (cloud_event::wrap(&event), Attributes::default());
        for (body, attributes) in [aws, amqp, queue] {
            let received = Received {
                attributes,
                message_id: Some(event.id.clone()),
                content_type: event.content_type.clone(),
                ..Received::bare(body)
            };
            let mut draft = Draft::new(decode(&received, Format::Auto).unwrap());
            keys.decrypt(&["new"]).apply(&mut draft).unwrap();
            assert_eq!(draft.bytes(), &vec![0, 0xff]);
        }
    }
}

#[test]
fn what_is_not_sealed_is_said_to_be_so() {
    let class = |body: &str| open(body.as_bytes()).unwrap_err().class;
    for body in
        ["", "text", "[]", "{}", "{\"a\":{\"eventferry_sealed\":1}}", "{\"eventferry_sealed\":"]
    {
        assert_eq!(class(body), "not_sealed", "{body}");
    }
    let failure = open(VECTOR.replace("sealed\":1", "sealed\":2").as_bytes()).unwrap_err();
    assert_eq!(failure.class, "not_sealed");
    assert!(failure.text.contains("version 2"), "{failure}");
    assert_eq!(class("{\"eventferry_sealed\":1}"), "tampered");
    assert_eq!(class(&VECTOR.replace("A256GCM", "none")), "tampered");
}

#[test]
fn a_foreign_key_id_does_not_flood_the_log() {
    let body = VECTOR.replace("orders-2026-11", &"\\\\n".repeat(10_000));
    let failure = both().decrypt(&["new"]).apply(&mut draft(body)).unwrap_err();
    assert_eq!(failure.class, "unknown_key");
    assert!(failure.text.len() < 400 && !failure.text.contains('\n'), "{failure}");
}

#[test]
fn nothing_is_sealed_or_opened_before_the_keys_are_read() {
    let keys = both();
    let config = encrypt::Config { key: "new".to_owned(), keys: keys.table(&["new", "old"]) };
    let mut draft = draft("42");
    let failure = config.compile().unwrap().apply(&mut draft).unwrap_err();
    assert_eq!((failure.class, &**draft.bytes()), ("locked", &b"42"[..]));
    keys.encrypt("new").apply(&mut draft).unwrap();
    let locked = decrypt::Config { keys: keys.table(&["new"]) }.compile().unwrap();
    assert_eq!(locked.apply(&mut draft).unwrap_err().class, "locked");
}

#[test]
fn a_key_that_cannot_be_read_does_not_lock_the_others() {
    let keys = Keys::new(&[("a-missing-one", "x"), ("new", NEW)]);
    let mut sealed = draft("42");
    keys.encrypt("new").apply(&mut sealed).unwrap();
    let mut open =
        decrypt::Config { keys: keys.table(&["a-missing-one", "new"]) }.compile().unwrap();
    assert!(open.unlock().is_err());
    open.apply(&mut sealed).unwrap();
    assert_eq!(**sealed.bytes(), *b"42");
}

#[test]
fn what_is_no_key_is_found_at_the_start_and_not_shown() {
    let short = "c2hvcnQ=";
    let keys =
        Keys::new(&[("short", short), ("digits", &NEW[1..]), ("no", &NEW.replace('e', "g"))]);
    for kid in ["short", "digits", "no", "missing"] {
        let config = encrypt::Config { key: kid.to_owned(), keys: keys.table(&[kid]) };
        let finding = config.compile().unwrap().unlock().unwrap_err();
        assert_eq!(finding.path.to_string(), format!("keys.{kid}"));
        assert!(!finding.text.contains(short) && !finding.text.contains(&NEW[2..9]), "{finding}");
        let config = decrypt::Config { keys: keys.table(&[kid]) };
        assert_eq!(config.compile().unwrap().unlock().unwrap_err(), finding);
    }
    let finding = keys.table(&["short"]).get("short").map(Key::read).unwrap().unwrap_err();
    assert!(finding.text.ends_with("make one with `openssl rand -base64 32`"), "{finding}");
}

#[test]
fn wrong_settings_are_found_without_reading_a_key() {
    let read = |config: Json| serde_json::from_value::<encrypt::Config>(config).unwrap();
    let findings = |config: Json| read(config).compile().unwrap_err();
    let wrong = findings(json!({"key": "ordrs", "keys": {"orders": "${A}", "users": "file:b"}}));
    assert_eq!(wrong[0].path.to_string(), "key");
    assert_eq!(wrong[0].text, "there is no key `ordrs` in `keys`; did you mean `orders`?");
    let wrong = findings(json!({"key": "a", "keys": {}}));
    assert_eq!((wrong.len(), wrong[0].path.to_string().as_str()), (1, "keys"));
    assert_eq!(findings(json!({"key": "", "keys": {"": "${A}"}})).len(), 1);
    assert!(decrypt::Config { keys: BTreeMap::new() }.compile().is_err());
}

#[test]
fn debug_shows_no_key() {
    let keys = both();
    let shown = format!("{:?} {:?}", keys.encrypt("new"), keys.decrypt(&["new", "old"]));
    assert!(shown.contains("Some(Key(..))"), "{shown}");
    assert!(!shown.contains(&NEW[..6]) && !shown.contains(&OLD[..6]), "{shown}");
}
