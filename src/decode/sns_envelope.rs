//! The JSON that SNS puts around a message for a queue without raw delivery.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;

use super::{Word, may_be_object_with, parse_time, shared};
use crate::{
    event::{Attributes, Event},
    metadata::aws,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    r#type: String,
    message_id: String,
    topic_arn: String,
    message: String,
    subject: Option<String>,
    timestamp: Option<String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    r#type: String,
    value: String,
}

/// Takes the envelope off, if there is one. Recognized by type, topic and message id together,
/// never by "is JSON": a payload may look much like it.
pub(crate) fn unwrap(event: &mut Event) -> bool {
    static MARK: Word = Word::new(|| Finder::new("\"TopicArn\""));
    if !may_be_object_with(&event.body, &MARK) {
        return false;
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&event.body) else { return false };
    if envelope.r#type != "Notification" {
        return false;
    }
    let attributes = envelope.message_attributes.into_iter().map(|(name, attribute)| {
        let Attribute { r#type, value } = attribute;
        // What claims to be binary and is not base64 stays the text that it is.
        let binary = r#type.starts_with("Binary").then(|| BASE64.decode(&value).ok()).flatten();
        let value = match binary {
            Some(bytes) => aws::value(&r#type, None, Some(Bytes::from(bytes))),
            None => aws::value(&r#type, Some(&value), None),
        };
        (name, value)
    });
    event.attributes = attributes.collect::<Attributes>();
    event.body = Bytes::from(envelope.message);
    event.identify(Some(&envelope.message_id), Some(&envelope.topic_arn));
    event.subject = shared(envelope.subject);
    event.time = envelope.timestamp.as_deref().and_then(parse_time).or(event.time);
    true
}
