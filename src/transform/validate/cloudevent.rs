//! What of an event its schema describes. A CloudEvent in structured mode has its whole JSON as
//! body, and its schema describes what stands there under `data`.

use serde_json::Value as Json;

use crate::{
    event::Value,
    transform::{Draft, Failure, path::FieldPath},
};

/// How the attribute is called: by itself, and as binary mode marks it in AMQP, Kafka and HTTP.
const MARKED: [&str; 5] = [
    DATASCHEMA,
    "cloudEvents_dataschema",
    "cloudEvents:dataschema",
    "ce_dataschema",
    "ce-dataschema",
];
const DATASCHEMA: &str = "dataschema";
const DATA: &str = "data";
const JSON: &str = ".json";

/// The data that a schema describes.
///
/// # Errors
/// The body is no JSON, or a CloudEvent without JSON in it.
pub(super) fn data(draft: &mut Draft) -> Result<&Json, Failure> {
    let body = draft.look()?;
    if !is_structured(body) {
        return Ok(body);
    }
    body.get(DATA).ok_or_else(|| {
        Failure::new("invalid", "the CloudEvent has no `data` that a schema could describe")
    })
}

/// The CloudEvents attribute `dataschema`.
///
/// # Errors
/// The body is no JSON.
pub(super) fn dataschema(draft: &mut Draft) -> Result<Option<String>, Failure> {
    let body = draft.look()?;
    if is_structured(body) {
        return Ok(body.get(DATASCHEMA).and_then(Json::as_str).map(str::to_owned));
    }
    let attributes = &draft.event().attributes;
    Ok(MARKED.iter().find_map(|name| attributes.text(name)).map(str::to_owned))
}

/// What stands at the path; one into `data` starts at the data that a schema describes.
///
/// # Errors
/// As of [`data`].
pub(super) fn get(path: &FieldPath, draft: &mut Draft) -> Result<Option<Json>, Failure> {
    match path {
        FieldPath::Data(place) => Ok(place.get(data(draft)?).cloned()),
        path => path.get(draft),
    }
}

fn is_structured(body: &Json) -> bool {
    let text = |name| body.get(name).and_then(Json::as_str).unwrap_or_default();
    text("specversion").starts_with("1.")
        && ["id", "source", "type"].iter().all(|name| !text(name).is_empty())
}

/// A CloudEvent in structured mode without its data.
pub(super) struct Envelope(Json);

/// Puts the data that a schema describes in the place of a structured CloudEvent.
///
/// # Errors
/// The body is no JSON.
pub(super) fn open(draft: &mut Draft) -> Result<Option<Envelope>, Failure> {
    let body = draft.json()?;
    if !is_structured(body) {
        return Ok(None);
    }
    let mut envelope = std::mem::take(body);
    draft.set_json(envelope.get_mut(DATA).map(Json::take).unwrap_or_default());
    Ok(Some(Envelope(envelope)))
}

/// Puts the envelope back around the data.
///
/// # Errors
/// The body is no JSON.
pub(super) fn close(envelope: Option<Envelope>, draft: &mut Draft) -> Result<(), Failure> {
    let Some(Envelope(mut envelope)) = envelope else { return Ok(()) };
    if let Some(fields) = envelope.as_object_mut() {
        fields.insert(DATA.to_owned(), draft.json()?.take());
    }
    draft.set_json(envelope);
    Ok(())
}

/// Gives the event, which has one, another `dataschema`, or takes it away.
///
/// # Errors
/// The body is no JSON.
pub(super) fn set_dataschema(draft: &mut Draft, uri: Option<String>) -> Result<(), Failure> {
    let body = draft.json()?;
    if is_structured(body) {
        if let Some(fields) = body.as_object_mut() {
            match uri {
                Some(uri) => drop(fields.insert(DATASCHEMA.to_owned(), Json::String(uri))),
                None => drop(fields.remove(DATASCHEMA)),
            }
        }
        return Ok(());
    }
    let attributes = &mut draft.event_mut().attributes;
    if let Some(name) = MARKED.into_iter().find(|name| attributes.text(name).is_some()) {
        match uri {
            Some(uri) => attributes.set(name, Value::string(uri)),
            None => drop(attributes.remove(name)),
        }
    }
    Ok(())
}

/// The end of a URI that names a schema by type and version: `…/order.placed/2`, or
/// `…/order.placed/2.json`.
pub(super) struct Ending<'u> {
    before: &'u str,
    pub(super) version: &'u str,
    after: &'u str,
}

impl Ending<'_> {
    /// The URI with another version.
    pub(super) fn with(&self, version: &str) -> String {
        format!("{}{version}{}", self.before, self.after)
    }
}

/// How the URI ends, if it names a version of this type.
pub(super) fn ending<'u>(uri: &'u str, kind: &str) -> Option<Ending<'u>> {
    let (plain, after) = match uri.strip_suffix(JSON) {
        Some(plain) => (plain, JSON),
        None => (uri, ""),
    };
    let (named, version) = plain.rsplit_once('/')?;
    let rest = named.strip_suffix(kind)?;
    let before = plain.strip_suffix(version)?;
    (rest.is_empty() || rest.ends_with(['/', ':'])).then_some(Ending { before, version, after })
}
