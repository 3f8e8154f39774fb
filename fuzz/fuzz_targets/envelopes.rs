#![no_main]
//! Messages as any source hands them out, with whatever bodies and attributes: decoding says what is
//! wrong or makes an event, and each event comes out of every kind of service as it went in.
//!
//! Text that begins like a JSON object is a body, and behind a zero byte the value of our reserved
//! attribute. All other input is the description of a message.

use std::{path::Path, sync::Arc};

use arbitrary::{Result, Unstructured};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::{
    decode::{self, Format, decode, undecoded},
    delivery::Received,
    event::{Event, Fitted, Value},
    metadata::{Packed, RESERVED, amqp_properties, aws, envelope, fit},
    transform::{StepConfig, Transform, wrap::Envelope},
};
use eventferry_fuzz::{
    compare::{document, sorted},
    make,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value as Json, json};

const FORMATS: [Format; 4] = [Format::Auto, Format::Raw, Format::CloudEvents, Format::SnsEnvelope];
/// What `wrap` writes where an event has no type, and takes for none.
const UNTYPED: &str = "eventferry.untyped";

fuzz_target!(|data: &[u8]| {
    let message = match data.first() {
        Some(b'{') => Ok(written(data)),
        _ => described(&mut Unstructured::new(data)),
    };
    let Ok(message) = message else { return };
    for format in FORMATS {
        _ = decode::reference(&message, format);
        // What cannot be decoded is parked as it came.
        let event = decode(&message, format).unwrap_or_else(|_| undecoded(&message));
        if event.kind.as_deref() != Some(UNTYPED) {
            survives(&event);
        }
    }
    for envelope in [Envelope::Sns, Envelope::EventBridge] {
        opened(envelope, &undecoded(&make::plain(message.body.clone())));
    }
});

fn written(data: &[u8]) -> Received {
    let mut parts = data.split(|byte| *byte == 0);
    let mut message = make::plain(Bytes::copy_from_slice(parts.next().unwrap_or_default()));
    if let Some(Ok(reserved)) = parts.next().map(std::str::from_utf8) {
        message.attributes.set(RESERVED, Value::string(reserved));
    }
    message
}

fn described(u: &mut Unstructured<'_>) -> Result<Received> {
    let body = body(u, 3)?;
    let mut message = make::message(u, body)?;
    if u.ratio(1, 4)? {
        message.attributes.set(RESERVED, Value::string(reserved(u)?));
    }
    Ok(message)
}

/// A body, or an envelope around one.
fn body(u: &mut Unstructured<'_>, depth: usize) -> Result<Bytes> {
    if depth == 0 || u.ratio(1, 3)? {
        return make::body(u);
    }
    let inner = body(u, depth - 1)?;
    let text = String::from_utf8_lossy(&inner).into_owned();
    Ok(match u.int_in_range(0..=4)? {
        0 => notification(u, text)?,
        1 => json!({
            "version": "0", "id": make::json(u, 0)?, "detail-type": make::json(u, 0)?,
            "source": make::text(u)?, "time": make::json(u, 0)?,
            "resources": make::json(u, 1)?, "detail": make::json(u, 2)?,
        })
        .to_string()
        .into(),
        2 => envelope::wrap(&undecoded(&make::message(u, inner)?)),
        3 => json!({
            "specversion": "1.0", "id": "e", "source": "/s", "type": make::text(u)?,
            "eventferry": reserved(u)?, "data_base64": BASE64.encode(&inner),
        })
        .to_string()
        .into(),
        _ => fit::compress(&inner).unwrap_or(inner),
    })
}

fn notification(u: &mut Unstructured<'_>, message: String) -> Result<Bytes> {
    let attributes = make::several(u, 4, |u| {
        let kind = *u.choose(&["String", "Number", "Binary", "String.Array", "Binary.gif", ""])?;
        Ok((make::name(u)?, json!({ "Type": kind, "Value": make::text(u)? })))
    })?;
    let mut members = Map::new();
    members.insert("Type".into(), "Notification".into());
    members.insert("MessageId".into(), make::text(u)?.into());
    members.insert("TopicArn".into(), make::text(u)?.into());
    members.insert("Message".into(), message.into());
    members.insert("Subject".into(), make::maybe(u)?.as_deref().into());
    members.insert("Timestamp".into(), make::maybe(u)?.as_deref().into());
    members.insert("MessageAttributes".into(), attributes.into_iter().collect::<Json>());
    Ok(Json::Object(members).to_string().into())
}

/// What travels in our attribute, true or not.
fn reserved(u: &mut Unstructured<'_>) -> Result<String> {
    let labels =
        ["string", "number", "binary", "int.x", "double", "timestamp", "uuid", "null", "x"];
    let mut members = Map::new();
    for name in ["id", "source", "type", "subject", "time", "content_type", "key"] {
        if u.ratio(1, 4)? {
            members.insert(name.into(), make::text(u)?.into());
        }
    }
    for (name, values) in [("body", ["base64", "empty"]), ("fit", ["zstd", "claim_check"])] {
        if u.ratio(1, 4)? {
            members.insert(name.into(), (*u.choose(&values)?).into());
        }
    }
    let types = make::several(u, 2, |u| Ok((make::name(u)?, Json::from(*u.choose(&labels)?))))?;
    members.insert("types".into(), types.into_iter().collect());
    let more =
        make::several(u, 2, |u| Ok((make::name(u)?, json!([u.choose(&labels)?, make::text(u)?]))))?;
    members.insert("more".into(), more.into_iter().collect());
    members.insert("hops".into(), u.int_in_range(0..=255u8)?.into());
    Ok(Json::Object(members).to_string())
}

/// What each kind of sink sends is the same event on the far side, and has passed one relay more.
fn survives(event: &Event) {
    let hops = event.hops.saturating_add(1);
    let expected = sorted(Event { hops, fitted: None, ..event.clone() });
    let mut sent = vec![event.clone()];
    if let Some(body) = fit::compress(&event.body) {
        let fitted = Some(Fitted::Compressed(Arc::new(event.clone())));
        sent.push(Event { body, fitted, ..event.clone() });
    }
    for sent in sent {
        for (way, far) in far_sides(&sent) {
            let far = decode(&far, Format::Auto).unwrap_or_else(|error| panic!("{way}: {error}"));
            assert_eq!(sorted(far), expected, "{way}");
        }
    }
}

/// What the steps take out of an envelope comes out of it again once they have put it back.
fn opened(envelope: Envelope, event: &Event) {
    let [unwrap, wrap] = [StepConfig::Unwrap(envelope), StepConfig::Wrap(envelope)]
        .map(|step| Transform::compile(&[step], Path::new(".")).expect("the step is right"));
    let run = |step: &Transform, event: &Event| Some(step.apply(event.clone()).ok()?.remove(0));
    let Some(first) = run(&unwrap, event) else { return };
    let wrapped = run(&wrap, &first).expect("what was in an envelope fits into it");
    let again =
        run(&unwrap, &Event { body: wrapped.body, ..undecoded(&make::plain(Bytes::new())) });
    let again = again.expect("what was put in comes out");
    assert_eq!(document(&again.body), document(&first.body));
    assert_eq!((&again.id, &again.source), (&first.id, &first.source));
    assert_eq!((&again.subject, again.time), (&first.subject, first.time));
    if envelope == Envelope::EventBridge && first.kind.as_deref() != Some(UNTYPED) {
        assert_eq!(again.kind, first.kind);
    }
}

fn far_sides(event: &Event) -> [(&'static str, Received); 4] {
    let packed = aws::pack(event);
    assert!(packed.attributes.len() <= aws::ATTRIBUTES_MAX);
    let text = std::str::from_utf8(&packed.body).expect("a body for AWS is text");
    assert!(!text.is_empty());
    let sqs = Received {
        attributes: packed.attributes.iter().map(on_the_wire).collect(),
        ..make::plain(packed.body.clone())
    };
    let event_hubs = Received {
        attributes: amqp_properties(event).into_iter().collect(),
        message_id: Some(event.id.clone()),
        subject: event.subject.clone(),
        content_type: event.content_type.clone(),
        key: event.key.clone(),
        ..make::plain(event.body.clone())
    };
    let sns = make::plain(through_sns(&packed, text));
    let storage_queue = make::plain(envelope::wrap(event));
    [("sqs", sqs), ("sns", sns), ("event hubs", event_hubs), ("storage queue", storage_queue)]
}

/// The attribute as the service hands it out: text or bytes, and the name of a type.
fn on_the_wire((name, value): &(Arc<str>, Value)) -> (Arc<str>, Value) {
    let kind = aws::data_type(value);
    let received = match plain(value) {
        Value::Binary(bytes) => aws::value(&kind, None, Some(bytes.clone())),
        text => aws::value(&kind, text.as_str(), None),
    };
    (name.clone(), received)
}

fn plain(value: &Value) -> &Value {
    match value {
        Value::Labelled(_, inner) => plain(inner),
        plain => plain,
    }
}

/// The body that a queue gets from a topic without raw delivery.
fn through_sns(packed: &Packed, text: &str) -> Bytes {
    let attribute = |(name, value): &(Arc<str>, Value)| {
        let text = match plain(value) {
            Value::Binary(bytes) => BASE64.encode(bytes),
            text => text.as_str().unwrap_or_default().to_owned(),
        };
        (name.to_string(), json!({ "Type": aws::data_type(value), "Value": text }))
    };
    let attributes: Map<String, Json> = packed.attributes.iter().map(attribute).collect();
    let notification = json!({
        "Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": text, "MessageAttributes": attributes,
    });
    notification.to_string().into()
}
