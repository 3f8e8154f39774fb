//! What of an event its schema describes. A CloudEvent in structured mode has its whole JSON as
//! body, and its schema describes what stands there under `data`.

use serde_json::Value as Json;

use crate::transform::{Draft, Failure, path::FieldPath};

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

/// The data that a schema describes.
///
/// # Errors
/// The body is no JSON, or a CloudEvent without JSON in it.
pub(super) fn data(draft: &mut Draft) -> Result<&Json, Failure> {
    let body = draft.json()?;
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
    let body = draft.json()?;
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
