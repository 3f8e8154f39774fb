//! Events that are to be the same, made comparable.

use bytes::Bytes;
use eventferry::event::{Attributes, Event};
use serde_json::Value as Json;

/// The event with its attributes beside it, by name; a value that is no number is itself then.
#[must_use]
pub fn sorted(mut event: Event) -> (Event, Vec<(String, String)>) {
    let named =
        event.attributes.iter().map(|(name, value)| (name.to_string(), format!("{value:?}")));
    let mut named: Vec<_> = named.collect();
    named.sort();
    event.attributes = Attributes::default();
    (event, named)
}

/// The body as JSON where it is JSON: white space and the order of members mean nothing.
///
/// # Errors
/// The body as it is, where it is not.
pub fn document(body: &Bytes) -> Result<Json, Bytes> {
    serde_json::from_slice(body).map_err(|_| body.clone())
}
