use serde_json::json;

use super::*;
use crate::{delivery::Origin, event::Attributes};

fn message(body: impl ToString, attributes: &[(&str, Value)]) -> Received {
    let origin = Origin { source: "s".into(), resource: "urn:q".into(), position: "m-1".into() };
    let attributes = attributes.iter().cloned().collect::<Attributes>();
    Received { attributes, origin, ..Received::bare(body.to_string()) }
}

fn auto(received: &Received) -> Event {
    decode(received, Format::Auto).unwrap()
}

fn sns(message: &str) -> serde_json::Value {
    json!({
        "Type": "Notification", "MessageId": "m-9", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Subject": "hello", "Message": message, "Timestamp": "2026-11-21T10:00:00.000Z",
        "SignatureVersion": "1", "Signature": "x", "SigningCertURL": "x", "UnsubscribeURL": "x",
        "MessageAttributes": {
            "tenant": { "Type": "String", "Value": "acme" },
            "raw": { "Type": "Binary", "Value": "AAEC" },
            "traceparent": { "Type": "String", "Value": "00-t-p-01" },
        },
    })
}

#[test]
fn a_plain_message_is_identified_by_its_place() {
    let event = auto(&message("hello", &[("tenant", Value::string("acme"))]));
    assert_eq!((&*event.id, &*event.source), ("m-1", "urn:q"));
    assert_eq!(event.attributes.text("tenant"), Some("acme"));
    assert_eq!(event.body, "hello");
    assert_eq!(event.kind, None);
}

#[test]
fn an_sns_envelope_is_taken_off() {
    let event = auto(&message(sns("{\"n\":1}"), &[]));
    assert_eq!((&*event.id, &*event.source), ("m-9", "arn:aws:sns:eu-west-1:1:t"));
    assert_eq!(event.body, "{\"n\":1}");
    assert_eq!(event.subject.as_deref(), Some("hello"));
    assert_eq!(event.attributes.text("tenant"), Some("acme"));
    assert_eq!(event.attributes.get("raw"), Some(&Value::Binary(vec![0, 1, 2].into())));
    assert_eq!(event.trace.parent.as_deref(), Some("00-t-p-01"));
    assert!(event.attributes.get("traceparent").is_none());
}

#[test]
fn an_envelope_that_names_nothing_leaves_the_event_its_place() {
    let mut nameless = sns("x");
    (nameless["MessageId"], nameless["TopicArn"]) = (json!(""), json!(""));
    let event = auto(&message(nameless, &[]));
    assert_eq!((&*event.id, &*event.source, &*event.body), ("m-1", "urn:q", &b"x"[..]));
}

#[test]
fn what_only_looks_like_an_envelope_is_a_payload() {
    let mut lookalike = sns("x");
    lookalike["Type"] = json!("Order");
    for body in [lookalike.to_string(), json!({"TopicArn": "x", "Message": 7}).to_string()] {
        assert_eq!(auto(&message(&body, &[])).body, body);
    }
    let error = decode(&message("{}", &[]), Format::SnsEnvelope).unwrap_err();
    assert_eq!(error.to_string(), "not an SNS envelope");
}

#[test]
fn a_structured_cloudevent_keeps_its_body() {
    let body = json!({
        "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.placed",
        "time": "2026-11-21T10:00:00Z", "partitionkey": "c-1", "data": {"n": 1},
        "traceparent": "00-t-p-01",
    })
    .to_string();
    let event = auto(&message(&body, &[]));
    assert_eq!((&*event.id, &*event.source), ("e-1", "/shop"));
    assert_eq!(event.kind.as_deref(), Some("order.placed"));
    assert_eq!(event.key.as_deref(), Some("c-1"));
    assert_eq!(event.trace.parent.as_deref(), Some("00-t-p-01"));
    assert_eq!(event.body, body);
}

/// An extension may be of any type, and an attribute of that name becomes one: found by fuzzing.
#[test]
fn extensions_that_are_no_text_do_not_make_an_event_another_thing() {
    for odd in [json!(7), json!(null), json!({ "a": [1] }), json!(true)] {
        let mut event =
            json!({ "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "t" });
        for name in ["traceparent", "tracestate", "partitionkey"] {
            event[name] = odd.clone();
        }
        let event = decode(&message(event.to_string(), &[]), Format::CloudEvents).unwrap();
        assert_eq!((&*event.id, event.kind.as_deref()), ("e-1", Some("t")), "{odd}");
        assert_eq!((event.key, event.trace), (None, Trace::default()), "{odd}");
    }
}

#[test]
fn a_binary_cloudevent_is_read_in_either_spelling() {
    for prefix in ["cloudEvents_", "cloudEvents:", "ce_"] {
        let names = ["specversion", "id", "source", "type"].map(|name| format!("{prefix}{name}"));
        let values = ["1.0", "e-1", "/shop", "order.placed"].map(Value::string);
        let attributes: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        let event = decode(&message("x", &attributes), Format::CloudEvents).unwrap();
        assert_eq!((&*event.id, event.kind.as_deref()), ("e-1", Some("order.placed")));
        assert_eq!(event.attributes.len(), 4, "the producer's attributes stay");
    }
}

#[test]
fn what_is_no_cloudevent_is_refused_where_one_is_demanded() {
    for body in ["hello", "{\"specversion\":\"1.0\"}", "{\"specversion\":\"0.3\",\"id\":\"1\"}", ""]
    {
        let error = decode(&message(body, &[]), Format::CloudEvents).unwrap_err();
        assert_eq!(error.to_string(), "not a CloudEvent", "{body}");
    }
}

#[test]
fn a_broken_mark_is_an_error_and_a_foreign_one_is_left_alone() {
    let broken = Value::string(r#"{"hops":1,"body":"base64"}"#);
    let error = decode(&message("not base64!", &[(RESERVED, broken)]), Format::Auto).unwrap_err();
    assert_eq!(error.to_string(), "body is not the base64 it claims");
    let event = auto(&message("x", &[(RESERVED, Value::string("mine"))]));
    assert_eq!(event.attributes.text(RESERVED), Some("mine"));
}

#[test]
fn raw_looks_at_nothing() {
    let body = sns("x").to_string();
    let event = decode(&message(&body, &[]), Format::Raw).unwrap();
    assert_eq!(event.body, body);
}

#[test]
fn the_x_ray_header_stands_in_for_trace_context() {
    let mut received = message("x", &[]);
    received.xray =
        Some("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1".into());
    let parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
    assert_eq!(auto(&received).trace.parent.as_deref(), Some(parent));
    assert_eq!(xray::header(parent).as_deref(), received.xray.as_deref());
    for broken in ["", "Root=1-5759e988;Parent=x", "Root=1-é-b;Parent=53995c3f42cd8ad8"] {
        assert_eq!(xray::traceparent(broken), None);
        assert_eq!(xray::header(broken), None);
    }
}

#[test]
fn what_older_sdks_call_trace_context_stands_in_for_it() {
    let one = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
    let other = "00-5759e988bd862e3fe1be46a994272793-0000000000000001-01";
    for (traceparent, older, parent, left) in [
        (None, one, Some(one), None),
        (Some(one), one, Some(one), None),
        // Not ours to judge.
        (Some(one), other, Some(one), Some(other)),
        (None, "|a1b2.c3.", None, Some("|a1b2.c3.")),
        (Some(one), "|a1b2.c3.", Some(one), Some("|a1b2.c3.")),
    ] {
        let mut attributes = vec![("Diagnostic-Id", Value::string(older))];
        attributes.extend(traceparent.map(|it| ("traceparent", Value::string(it))));
        let event = auto(&message("x", &attributes));
        assert_eq!(event.trace.parent.as_deref(), parent, "{traceparent:?} {older}");
        assert_eq!(event.attributes.text("Diagnostic-Id"), left, "{traceparent:?} {older}");
        // As it goes on, both names have one.
        let sent: Vec<_> = crate::metadata::amqp_properties(&event);
        let sent = |name: &str| {
            let all = sent.iter().filter(|(known, _)| **known == *name);
            all.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let expected: Vec<_> = left.or(parent).map(Value::string).into_iter().collect();
        assert_eq!(sent("Diagnostic-Id"), expected, "{traceparent:?} {older}");
        assert_eq!(sent("traceparent"), parent.map(Value::string).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_marked_body_that_looks_like_an_sns_envelope_stays_as_it_is() {
    let before = decode(&message(sns("x"), &[]), Format::Raw).unwrap();
    let packed = crate::metadata::aws::pack(&before);
    let sent = Received {
        body: packed.body,
        attributes: packed.attributes.into_iter().collect(),
        ..message("", &[])
    };
    assert_eq!(auto(&sent), Event { hops: 1, ..before });
}

#[test]
fn trace_state_without_a_parent_is_an_attribute() {
    let state = [("tracestate", Value::string("v=1"))];
    let event = auto(&message("x", &state));
    assert_eq!(event.trace, Trace::default());
    assert_eq!(event.attributes.text("tracestate"), Some("v=1"));
    let structured =
        json!({"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "tracestate": "v=1"});
    assert_eq!(auto(&message(structured, &[])).trace, Trace::default());
}

#[test]
fn a_time_that_cannot_be_written_is_none() {
    let names = ["specversion", "id", "source", "type"].map(|name| format!("ce_{name}"));
    let values = ["1.0", "e-1", "/shop", "t"].map(Value::string);
    let mut attributes: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
    // In the year 10000.
    attributes.push(("ce_time", Value::Timestamp(253_402_300_800_000)));
    let event = auto(&message("x", &attributes));
    assert_eq!((&*event.id, event.time), ("e-1", None));
}
