use proptest::prelude::*;

use super::*;
use crate::{
    decode::{Format, decode},
    delivery::{Claimed, Origin, Received},
    event::{Attributes, Trace},
};

fn origin() -> Origin {
    Origin { source: "s".into(), resource: "r".into(), position: "p".into() }
}

fn received(body: Bytes, attributes: Attributes) -> Received {
    Received { attributes, origin: origin(), ..Received::bare(body) }
}

fn event(body: impl Into<Bytes>, attributes: Attributes) -> Event {
    Event {
        id: "id-1".into(),
        source: "/shop".into(),
        kind: Some("order.placed".into()),
        subject: Some("orders/1".into()),
        time: Some(OffsetDateTime::UNIX_EPOCH),
        content_type: Some("text/plain".into()),
        key: Some("k".into()),
        trace: Trace { parent: Some("00-a-b-01".into()), state: Some("v=1".into()) },
        hops: 2,
        attributes,
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

/// The event as it is, compressed, and with a reference in place of its body.
fn fitted(event: &Event) -> [Event; 3] {
    let whole = Arc::new(event.clone());
    let body = fit::compress(&event.body).unwrap();
    let fitted = Some(Fitted::Compressed(whole.clone()));
    let compressed = Event { body, fitted, ..event.clone() };
    let reference = Reference::to_body_of(event, "s3://bucket/claims");
    let (body, media_type) = reference.write();
    let fitted = Some(Fitted::Claimed(whole, reference));
    let claimed = Event { body, content_type: Some(media_type), fitted, ..event.clone() };
    [event.clone(), compressed, claimed]
}

/// The event on the far side of each kind of service. A body that was claimed is found.
fn far_sides(event: &Event) -> [Event; 3] {
    let aws = aws::pack(event);
    assert!(aws.attributes.len() <= aws::ATTRIBUTES_MAX);
    assert!(std::str::from_utf8(&aws.body).is_ok() && !aws.body.is_empty());
    let aws = received(aws.body, aws.attributes.into_iter().collect());
    let mut amqp = received(event.body.clone(), amqp_properties(event).into_iter().collect());
    amqp.message_id = Some(event.id.clone());
    amqp.subject = event.subject.clone();
    // As the sink sets it: a symbol is ASCII.
    amqp.content_type = event.content_type.clone().filter(|text| text.is_ascii());
    amqp.key = event.key.clone();
    let envelope = received(envelope::wrap(event), Attributes::default());
    [aws, amqp, envelope].map(|mut received| {
        if let Some(Fitted::Claimed(whole, reference)) = &event.fitted {
            let found = crate::decode::reference(&received, Format::Auto);
            assert_eq!(found.as_ref(), Some(reference));
            received.claimed = Some(Claimed::Body(whole.body.clone()));
        }
        decode(&received, Format::Auto).unwrap()
    })
}

fn sorted(mut event: Event) -> (Event, Vec<(String, String)>) {
    let list = event.attributes.iter().map(|(n, v)| (n.to_string(), format!("{v:?}")));
    let mut list: Vec<_> = list.collect();
    list.sort();
    event.attributes = Attributes::default();
    (event, list)
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![".{0,12}", "[a-z]{1,5}", Just("\u{0}\u{fffe}".to_owned())];
    prop_oneof![
        text.prop_map(Value::string),
        "-?[0-9]{1,12}(\\.[0-9]{1,4})?".prop_map(|text| Value::Number(text.into())),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(|b| Value::Binary(b.into())),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::Int),
        any::<i64>().prop_map(Value::Long),
        any::<u64>().prop_map(Value::ULong),
        (-1e9f64..1e9).prop_map(Value::Double),
        any::<i64>().prop_map(Value::Timestamp),
        any::<u128>().prop_map(|bits| Value::Uuid(uuid::Uuid::from_u128(bits))),
        Just(Value::Null),
        Just(Value::Labelled("gif".into(), Box::new(Value::string("x")))),
    ]
}

proptest! {
    /// Any body and any attributes, however named, come out of every service as they went in.
    #[test]
    fn nothing_is_lost_on_any_way(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            ".{0,30}".prop_map(String::into_bytes),
            Just(br#"{"a": 1.0, "a": 2}"#.to_vec()),
            Just(b"[1, 2 ]".to_vec()),
        ],
        named in proptest::collection::btree_map(
            prop_oneof!["[a-zA-Z_.-]{1,8}", ".{0,6}", Just("aws.x".to_owned())], value(), 0..14),
        traced in any::<bool>(),
    ) {
        let mut event = event(body, named.into_iter().collect());
        if !traced {
            event.trace = Trace::default();
        }
        for sent in fitted(&event) {
            for far in far_sides(&sent) {
                let expected = Event { hops: 3, ..event.clone() };
                prop_assert_eq!(sorted(far), sorted(expected));
            }
        }
    }
}

#[test]
fn what_no_service_takes_travels_with_ours() {
    let labelled = |label: &str| Value::Labelled(label.into(), Box::new(Value::string("x")));
    let attributes = [
        ("n".repeat(255), Value::string("native")),
        ("n".repeat(256), Value::string("carried")),
        ("words".to_owned(), labelled("\u{1} ü")),
        ("long".to_owned(), labelled(&"l".repeat(300))),
        ("native".to_owned(), labelled("a.b-c_d")),
    ];
    let hostile = Event {
        kind: Some("\u{fffe}\"".into()),
        key: Some("\0\n\u{ffff}ü".into()),
        content_type: Some("grüße\n".into()),
        ..event("x", attributes.into_iter().collect())
    };
    for far in far_sides(&hostile) {
        assert_eq!(sorted(far), sorted(Event { hops: 3, ..hostile.clone() }));
    }
    // Neither a name, nor a type, nor a text that SQS and SNS would refuse the whole message for.
    let mut names = Vec::new();
    for (name, value) in aws::pack(&hostile).attributes {
        assert!(name.len() < 256 && aws::data_type(&value).len() < 256, "{name}");
        assert!(!aws::data_type(&value).contains(' '), "{name}");
        assert!(!value.as_str().unwrap().contains(['\u{fffe}', '\u{ffff}', '\0']), "{name}");
        names.push(name);
    }
    let expected = ["traceparent", "tracestate", &"n".repeat(255), "native", RESERVED];
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
}

#[test]
fn a_foreign_consumer_is_told_what_was_done_to_the_body() {
    let [_, compressed, claimed] = fitted(&event("x".repeat(1000), Attributes::default()));
    let document = |event: &Event| -> serde_json::Value {
        let packed: Attributes = aws::pack(event).attributes.into_iter().collect();
        serde_json::from_str(packed.text(RESERVED).unwrap()).unwrap()
    };
    let compressed = document(&compressed);
    assert_eq!((&compressed["fit"], &compressed["body"]), (&"zstd".into(), &"base64".into()));
    assert_eq!(document(&claimed)["fit"], "claim_check");
}

#[test]
fn a_dead_letter_record_travels_along() {
    let record = DeadLetter {
        route: Some("r".into()),
        sink: None,
        class: "too_large".into(),
        error: "e".into(),
        attempts: 3,
        received: 1,
        source: "s".into(),
        resource: "q".into(),
        position: "p".into(),
        hops: 2,
        part: Some("0123456789abcdef".into()),
        arrived: OffsetDateTime::UNIX_EPOCH,
        first: OffsetDateTime::UNIX_EPOCH,
        last: OffsetDateTime::UNIX_EPOCH,
        redriven: 4,
        run: Some("run".into()),
    };
    let event = Event { dead_letter: Some(Arc::new(record)), ..event("x", Attributes::default()) };
    for far in far_sides(&event) {
        assert_eq!(far.dead_letter, event.dead_letter);
    }
}

#[test]
fn trace_context_comes_before_the_producers_attributes_for_the_ten_places() {
    let many = (0..12).map(|n| (format!("a{n}"), Value::string("v"))).collect();
    let packed = aws::pack(&event("x", many));
    let names: Vec<_> = packed.attributes.iter().map(|(name, _)| &**name).collect();
    let expected =
        ["traceparent", "tracestate", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "eventferry"];
    assert_eq!(names, expected);
}

#[test]
fn a_number_that_sqs_refuses_travels_as_text() {
    let numbers = ["-12.50", "1e5", "0", "", "NaN", "1e300", "12 apples", &"7".repeat(39)];
    let attributes = numbers
        .iter()
        .enumerate()
        .map(|(n, text)| (format!("a{n}"), Value::Number((*text).into())));
    let mut event = event("x", attributes.collect());
    event.attributes.set("huge", Value::Double(1e300));
    event.trace = Trace::default();
    let native = aws::pack(&event).attributes;
    let is_native = native.iter().filter(|(_, value)| matches!(value, Value::Number(_)));
    assert_eq!(is_native.map(|(name, _)| &**name).collect::<Vec<_>>(), ["a0", "a1", "a2"]);
    for far in far_sides(&event) {
        assert_eq!(sorted(far).1, sorted(event.clone()).1);
    }
}

#[test]
fn a_json_body_stands_in_the_envelope_as_json() {
    let mut event = event(r#"{"amount": 12.50}"#, Attributes::default());
    event.content_type = None;
    let envelope: serde_json::Value = serde_json::from_slice(&envelope::wrap(&event)).unwrap();
    assert_eq!(envelope["data"]["amount"], 12.5);
    assert_eq!(envelope["type"], "order.placed");
    assert_eq!(envelope["traceparent"], "00-a-b-01");
}

#[test]
fn a_time_that_cannot_be_written_takes_nothing_with_it() {
    let mut event = event("x", Attributes::default());
    event.time = Some(time::macros::datetime!(-0001-01-01 0:00 UTC));
    for far in far_sides(&event) {
        assert_eq!(far, Event { hops: 3, time: None, ..event.clone() });
    }
}

#[test]
fn a_mark_that_names_nothing_leaves_what_the_service_has_named() {
    let mut marked = event("x", Attributes::default());
    (marked.id, marked.source) = ("".into(), "".into());
    for far in far_sides(&marked) {
        assert_eq!((&*far.id, &*far.source), ("p", "r"));
    }
}
