//! An event as people write it down: JSON with the names that patterns and steps use. Read by
//! `explain` and `test`, and by the test that runs the examples of the pages.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use crate::{
    config::problem::suggestion,
    decode::parse_time,
    event::{Attributes, Event, Trace, is_json},
    metadata::rfc3339,
    transform::path::{from_json, to_json},
};

/// All that can stand in it.
pub const KEYS: [&str; 12] = [
    "type",
    "source",
    "subject",
    "id",
    "time",
    "key",
    "datacontenttype",
    "attributes",
    "data",
    DATA_TEXT,
    DATA_BASE64,
    "hops",
];
/// A text body whose media type does not say that it is text.
const DATA_TEXT: &str = "data_text";
const DATA_BASE64: &str = "data_base64";

/// The id of an event that names none.
const ID: &str = "1";
/// The source of an event that names none.
const SOURCE: &str = "/example";

/// Reads an event. Everything in it is optional. `data` is the body: any JSON, or its very text
/// where `datacontenttype` is no JSON; `data_text` and `data_base64` are bodies of text and bytes.
///
/// # Errors
/// What is no part of an event, or not of its type, and what to write instead.
pub fn read_event(json: Json) -> Result<Event, String> {
    let Json::Object(mut json) = json else {
        return Err("an event is an object, such as { \"type\": …, \"data\": … }".to_owned());
    };
    if let Some(name) = json.keys().find(|name| !KEYS.contains(&name.as_str())) {
        let hint = suggestion(name, KEYS);
        return Err(format!("`{name}` is nothing that an event has; {hint}"));
    }
    let content_type = text(&mut json, "datacontenttype")?;
    let time = match text(&mut json, "time")? {
        None => None,
        Some(text) => Some(parse_time(&text).ok_or_else(|| {
            format!("`time`: `{text}` is no time; write one like 2026-01-31T12:00:00Z")
        })?),
    };
    let hops = match json.remove("hops") {
        None => 0,
        Some(hops) => hops
            .as_u64()
            .and_then(|hops| u8::try_from(hops).ok())
            .ok_or("`hops` is a number from 0 to 255")?,
    };
    Ok(Event {
        id: text(&mut json, "id")?.unwrap_or_else(|| ID.into()),
        source: text(&mut json, "source")?.unwrap_or_else(|| SOURCE.into()),
        kind: text(&mut json, "type")?,
        subject: text(&mut json, "subject")?,
        key: text(&mut json, "key")?,
        attributes: attributes(json.remove("attributes"))?,
        body: body(&mut json, content_type.as_deref())?,
        trace: Trace::default(),
        dead_letter: None,
        fitted: None,
        time,
        hops,
        content_type,
    })
}

/// The event as [`read_event`] reads it. Types of attributes that JSON does not know are lost.
#[must_use]
pub fn show_event(event: &Event) -> Json {
    let mut shown = Map::new();
    let texts = [
        ("id", Some(&event.id)),
        ("source", Some(&event.source)),
        ("type", event.kind.as_ref()),
        ("subject", event.subject.as_ref()),
        ("key", event.key.as_ref()),
        ("datacontenttype", event.content_type.as_ref()),
    ];
    let texts =
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(**text?))));
    shown.extend(texts);
    shown.extend(event.time.and_then(rfc3339).map(|time| ("time".to_owned(), time.into())));
    if !event.attributes.is_empty() {
        let attributes = event.attributes.iter();
        let attributes: Map<_, _> =
            attributes.map(|(name, value)| (name.to_string(), to_json(value))).collect();
        shown.insert("attributes".to_owned(), attributes.into());
    }
    if event.hops > 0 {
        shown.insert("hops".to_owned(), event.hops.into());
    }
    shown.extend(show_body(&event.body, event.content_type.as_deref()));
    shown.into()
}

fn text(json: &mut Map<String, Json>, name: &str) -> Result<Option<Arc<str>>, String> {
    match json.remove(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.into())),
        Some(_) => Err(format!("`{name}` is text")),
    }
}

fn attributes(json: Option<Json>) -> Result<Attributes, String> {
    match json {
        None => Ok(Attributes::default()),
        Some(Json::Object(attributes)) => {
            let values = attributes.into_iter();
            Ok(values.filter_map(|(name, value)| Some((name, from_json(value)?))).collect())
        }
        Some(_) => Err("`attributes` is an object of names and values".to_owned()),
    }
}

fn body(json: &mut Map<String, Json>, content_type: Option<&str>) -> Result<Bytes, String> {
    let text = text(json, DATA_TEXT)?;
    let base64 = self::text(json, DATA_BASE64)?;
    match (json.remove("data"), text, base64) {
        (None, None, None) => Ok(Bytes::new()),
        (Some(Json::String(text)), None, None) if !is_json(content_type) => Ok(text.into()),
        (Some(data), None, None) => Ok(data.to_string().into()),
        (None, Some(text), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, None, Some(text)) => {
            let bytes = BASE64.decode(&*text);
            bytes.map(Bytes::from).map_err(|_| format!("`{DATA_BASE64}` is no base64"))
        }
        _ => Err(format!("give only one of `data`, `{DATA_TEXT}` and `{DATA_BASE64}`")),
    }
}

/// A body under the name that tells what it is; nothing of an empty one.
pub(super) fn show_body(body: &Bytes, content_type: Option<&str>) -> Option<(String, Json)> {
    if body.is_empty() {
        return None;
    }
    let is_json = is_json(content_type);
    // A text that another media type wraps around JSON is shown as the text that it is.
    let parsed = serde_json::from_slice(body).ok();
    let (name, shown) = match (parsed, std::str::from_utf8(body)) {
        (Some(json @ (Json::Object(_) | Json::Array(_))), _) => ("data", json),
        (Some(json), _) if is_json => ("data", json),
        (_, Ok(text)) if !is_json => ("data", text.into()),
        (_, Ok(text)) => (DATA_TEXT, text.into()),
        (_, Err(_)) => (DATA_BASE64, BASE64.encode(body).into()),
    };
    Some((name.to_owned(), shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Value;

    #[test]
    fn an_event_reads_as_it_is_shown() {
        for shown in [
            json!({"id": "1", "source": "/example"}),
            json!({"id": "7", "source": "/shop", "type": "order.placed", "subject": "s", "key": "k",
                "time": "2026-11-21T12:00:00Z", "hops": 2, "attributes": {"tenant": "acme", "size": 12},
                "data": {"amount": 120, "items": [1, "x", null]}}),
            json!({"id": "1", "source": "/example", "data": "a JSON text"}),
            json!({"id": "1", "source": "/example", "data": "plain", "datacontenttype": "text/plain"}),
            json!({"id": "1", "source": "/example", "data_text": "no JSON"}),
            json!({"id": "1", "source": "/example", "data_base64": "/wA="}),
            json!({"id": "1", "source": "/example", "data": [], "datacontenttype": "text/plain"}),
        ] {
            assert_eq!(show_event(&read_event(shown.clone()).unwrap()), shown);
        }
    }

    #[test]
    fn data_is_the_body() {
        let body = |json| read_event(json).unwrap().body;
        assert_eq!(body(json!({"data": {"a": 1}})), "{\"a\":1}");
        assert_eq!(body(json!({"data": "x"})), "\"x\"");
        assert_eq!(body(json!({"data": "x", "datacontenttype": "text/csv"})), "x");
        assert_eq!(body(json!({"data": null})), "null");
        assert_eq!(body(json!({})), "");
        let event = read_event(json!({"attributes": {"n": 1.50, "x": null}})).unwrap();
        assert_eq!(event.attributes.get("n"), Some(&Value::Number("1.5".into())));
        assert_eq!(event.attributes.len(), 1);
    }

    #[test]
    fn what_is_no_event_is_told_so() {
        for (json, told) in [
            (json!([]), "an event is an object"),
            (json!({"tpye": "x"}), "did you mean `type`?"),
            (json!({"type": 1}), "`type` is text"),
            (json!({"time": "soon"}), "`soon` is no time"),
            (json!({"hops": 256}), "from 0 to 255"),
            (json!({"attributes": []}), "`attributes` is an object"),
            (json!({"data_base64": "?"}), "no base64"),
            (json!({"data": 1, "data_text": "x"}), "only one of"),
        ] {
            let error = read_event(json).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
