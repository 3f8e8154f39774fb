use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::{Coding::*, *};
use crate::event::Attributes;

fn draft(body: impl Into<Bytes>) -> Draft {
    Draft::new(crate::event::Event {
        id: "1".into(),
        source: "/shop".into(),
        kind: None,
        subject: None,
        time: None,
        content_type: Some("text/plain".into()),
        key: None,
        trace: crate::event::Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    })
}

fn encode(codings: &[Coding], draft: &mut Draft) -> Result<(), Failure> {
    Config(codings.to_vec()).compile_encode().unwrap().apply(draft)
}

fn decode(codings: &[Coding], draft: &mut Draft) -> Result<(), Failure> {
    Config(codings.to_vec()).compile_decode().unwrap().apply(draft)
}

/// Body by one coding.
fn encoded(coding: Coding, body: &[u8]) -> Bytes {
    codec::encode(coding, body).unwrap()
}

fn decoded(coding: Coding, body: &[u8]) -> Result<Bytes, Failure> {
    codec::decode(coding, body, OUTPUT_BYTES_MAX)
}

fn content_encoding(draft: &Draft) -> Option<&str> {
    draft.event().attributes.text(CONTENT_ENCODING)
}

proptest! {
    #[test]
    fn decode_is_the_inverse_of_encode(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            ".{0,60}".prop_map(String::into_bytes),
        ],
        codings in proptest::collection::vec(
            prop_oneof![Just(Json), Just(Base64), Just(Gzip), Just(Zstd)], 1..6),
        named in proptest::option::of("(br|GZIP, x)"),
    ) {
        let config = Config(codings.clone());
        let backwards = Config(codings.iter().rev().copied().collect());
        let (Ok(encode), Ok(decode)) = (config.compile_encode(), backwards.compile_decode()) else {
            prop_assert!(config.compile_encode().is_err() && backwards.compile_decode().is_err());
            return Ok(());
        };
        let mut draft = draft(body.clone());
        if let Some(named) = named {
            draft.event_mut().attributes.set(CONTENT_ENCODING, Value::string(named));
        }
        let before = draft.clone();
        match encode.apply(&mut draft) {
            Ok(()) => {
                decode.apply(&mut draft).unwrap();
                prop_assert_eq!(draft, before);
            }
            Err(failure) => {
                let json_met_bytes = std::str::from_utf8(&body).is_err()
                    && codings.first() == Some(&Json);
                prop_assert!(json_met_bytes, "{failure}");
                prop_assert_eq!(draft, before);
            }
        }
    }

    #[test]
    fn what_comes_from_outside_is_refused_and_breaks_nothing(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        magic in prop_oneof![
            Just(vec![]), Just(vec![0x1f, 0x8b, 8]), Just(vec![0x28, 0xb5, 0x2f, 0xfd])],
        coding in prop_oneof![Just(Json), Just(Base64), Just(Gzip), Just(Zstd)],
    ) {
        let body = [magic, body].concat();
        if let Err(failure) = codec::decode(coding, &body, 1000) {
            prop_assert_eq!(failure.class, "decode");
        }
    }

    /// gzip has a check sum; of a zstd frame without one, only the frame is held to its form.
    #[test]
    fn a_cut_or_lengthened_body_is_refused(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        coding in prop_oneof![Just(Gzip), Just(Zstd)],
        cut in any::<prop::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let whole = encoded(coding, &body);
        prop_assert_eq!(decoded(coding, &whole).unwrap(), body);
        prop_assert!(decoded(coding, &whole[..cut.index(whole.len())]).is_err());
        prop_assert!(decoded(coding, &[&whole[..], &garbage].concat()).is_err());
    }
}

#[test]
fn each_coding_writes_what_its_standard_says() {
    assert_eq!(encoded(Json, "a \"b\"\nü".as_bytes()), "\"a \\\"b\\\"\\nü\"");
    assert_eq!(encoded(Base64, b"\xfb\xff"), "+/8=");
    assert_eq!(encoded(Gzip, b"x")[..3], [0x1f, 0x8b, 8]);
    assert_eq!(encoded(Zstd, b"x")[..4], [0x28, 0xb5, 0x2f, 0xfd]);
}

#[test]
fn what_foreign_tools_wrote_is_read() {
    // Of `printf hello | gzip -n` and `printf hello | zstd`, the latter with a check sum.
    let gzip = decoded(Base64, b"H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA==").unwrap();
    assert_eq!(decoded(Gzip, &gzip).unwrap(), "hello");
    let zstd = decoded(Base64, b"KLUv/QRYKQAAaGVsbG+jbZ+I").unwrap();
    assert_eq!(decoded(Zstd, &zstd), Ok("hello".into()));
}

#[test]
fn members_and_frames_one_after_the_other_are_one_body() {
    for coding in [Gzip, Zstd] {
        let two = [encoded(coding, b"one "), encoded(coding, b"two")].concat();
        assert_eq!(decoded(coding, &two).unwrap(), "one two");
    }
}

#[test]
fn a_bomb_is_refused_at_the_bound_and_not_before() {
    const MAX: usize = 1 << 20;
    for coding in [Gzip, Zstd] {
        let zeros = vec![0; MAX + 1];
        let whole = codec::decode(coding, &encoded(coding, &zeros[1..]), MAX);
        assert_eq!(whole.unwrap(), zeros[1..]);
        let bomb = encoded(coding, &zeros);
        assert!(bomb.len() < 10_000);
        let text = format!("the body is larger than 1MiB without `{}`", coding.name());
        assert_eq!(codec::decode(coding, &bomb, MAX), Err(Failure::new("decode", text)));
    }
    assert_eq!(decompress(&compress(b"abc").unwrap(), 3).unwrap(), "abc");
    assert!(decompress(&compress(b"abc").unwrap(), 2).is_err());
    assert_eq!(decompress(&compress(b"").unwrap(), 0).unwrap(), "");
}

/// Several layers, each within the bound by itself, do not get past it together.
#[test]
fn a_bomb_in_a_bomb_is_refused() {
    let zeros = vec![0; OUTPUT_BYTES_MAX + 1];
    let mut draft = draft(zeros);
    encode(&[Zstd, Gzip, Base64], &mut draft).unwrap();
    let before = draft.clone();
    let failure = decode(&[Base64, Gzip, Zstd], &mut draft).unwrap_err();
    assert_eq!(failure.text, "the body is larger than 16MiB without `zstd`");
    assert_eq!(draft, before);
}

/// A frame of no content that claims 1 TiB, and a window of as much: nothing is set aside for it.
#[test]
fn a_claimed_size_is_not_believed() {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    frame.extend((1_u64 << 40).to_le_bytes());
    frame.extend([1, 0, 0]);
    let failure = decompress(&frame, OUTPUT_BYTES_MAX).unwrap_err();
    assert_eq!(failure.text, "the body is no zstd, or a damaged one");
}

#[test]
fn what_is_wrong_is_said_without_the_payload() {
    let says = |coding, body: &[u8]| decoded(coding, body).unwrap_err().text;
    assert_eq!(says(Json, b"{}"), "the body is not one JSON string");
    assert_eq!(says(Json, b"\"a\" x"), "the body is not one JSON string");
    assert_eq!(says(Base64, b"aGVsbG8"), "the body is no base64 with padding");
    assert_eq!(says(Base64, b"aGVsbG8=\n"), "the body is no base64 with padding");
    assert_eq!(says(Gzip, b""), "the body is no gzip, or is cut short");
    assert_eq!(says(Gzip, b"plain text, long enough"), "the body is no gzip, or a damaged one");
    assert_eq!(says(Zstd, b""), "the body is empty, and so no zstd");
    assert_eq!(says(Zstd, b"plain text, long enough"), "the body is no zstd, or a damaged one");
    let failure = encode(&[Json], &mut draft(&b"\xff"[..])).unwrap_err();
    assert_eq!(failure.class, "encode");
    assert!(failure.text.ends_with("use `base64`"), "{failure}");
}

#[test]
fn content_encoding_names_what_compresses_and_nothing_else() {
    let mut draft = draft("x");
    encode(&[Json, Base64], &mut draft).unwrap();
    assert_eq!(content_encoding(&draft), None);
    encode(&[Gzip, Base64, Zstd], &mut draft).unwrap();
    assert_eq!(content_encoding(&draft), Some("gzip, zstd"));
    decode(&[Zstd, Base64], &mut draft).unwrap();
    assert_eq!(content_encoding(&draft), Some("gzip"));
    decode(&[Gzip], &mut draft).unwrap();
    assert_eq!(draft.event().attributes.len(), 0);
}

#[test]
fn content_encoding_that_says_something_else_stays() {
    for named in ["br", "gzip ,br", ""] {
        let mut draft = draft(encoded(Gzip, b"x"));
        let named = Value::string(named);
        draft.event_mut().attributes.set(CONTENT_ENCODING, named.clone());
        decode(&[Gzip], &mut draft).unwrap();
        assert_eq!(draft.event().attributes.get(CONTENT_ENCODING), Some(&named));
    }
    let mut draft = draft(encoded(Gzip, b"x"));
    draft.event_mut().attributes.set(CONTENT_ENCODING, Value::string("br, GZip"));
    decode(&[Gzip], &mut draft).unwrap();
    assert_eq!(content_encoding(&draft), Some("br"));
}

#[test]
fn a_body_that_was_parsed_is_encoded_as_it_is_now() {
    let mut draft = draft("{}");
    draft.set_json(json!({"a": 1}));
    encode(&[Json], &mut draft).unwrap();
    assert_eq!(draft.bytes(), "\"{\\\"a\\\":1}\"");
}

#[test]
fn one_coding_needs_no_list() {
    let read = |config: serde_json::Value| serde_json::from_value::<Config>(config);
    assert_eq!(read(json!("gzip")).unwrap(), Config(vec![Gzip]));
    assert_eq!(read(json!(["json", "zstd"])).unwrap(), Config(vec![Json, Zstd]));
    let written = serde_json::to_value(Config(vec![Base64, Gzip])).unwrap();
    assert_eq!(read(written).unwrap(), Config(vec![Base64, Gzip]));
    for wrong in [json!("gzipp"), json!(["gzipp"])] {
        assert!(read(wrong).unwrap_err().to_string().contains("gzipp"));
    }
}

#[test]
fn lists_that_can_never_work_are_found_before_the_start() {
    assert!(Config(vec![]).compile_encode().is_err() && Config(vec![]).compile_decode().is_err());
    let findings = Config(vec![Base64, Gzip, Json]).compile_encode().unwrap_err();
    assert_eq!(findings[0].path.to_string(), "[2]");
    assert_eq!(
        findings[0].text,
        "a JSON string holds text, and `gzip` makes bytes; put `base64` between them"
    );
    let findings = Config(vec![Json, Zstd]).compile_decode().unwrap_err();
    assert_eq!(findings[0].path.to_string(), "[1]");
    assert!(Config(vec![Json, Gzip]).compile_encode().is_ok());
    assert!(Config(vec![Gzip, Json]).compile_decode().is_ok());
}
