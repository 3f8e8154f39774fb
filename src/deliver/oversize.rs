//! What becomes of an event that is too large for its sink.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    claim::{BODY_MAX, Reference},
    event::{Event, Fitted},
    fault::Fault,
    metadata::{Packed, fit},
    sink::{Outgoing, Sink},
};

/// What becomes of an event that is too large for its sink. The dead letter of such an event, where
/// that is too large for its own sink, is dealt with alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// It is dead-lettered.
    #[default]
    DeadLetter,
    /// Its body is compressed, and so marked. If that is not enough it is dead-lettered.
    Compress,
    /// Its body goes to the store of `claim_check`, and a reference in its place.
    ClaimCheck,
}

/// What a sink can hold, whether it is connected or only planned.
pub(crate) struct Room<'a> {
    /// Puts an event into the sink's shape.
    pub(crate) pack: &'a dyn Fn(&Event) -> Result<Packed, Fault>,
    /// Bytes of one event.
    pub(crate) bytes: usize,
    /// Where the sink stores bodies that it sends references to, if it does.
    pub(crate) claims_root: Option<&'a str>,
}

/// `event`, which `route` sends, in the shape of `sink`, made to fit if need be.
///
/// # Errors
/// The sink can never hold it.
pub(crate) fn fit(
    sink: &dyn Sink,
    route: &Arc<str>,
    event: &Arc<Event>,
    oversize: Oversize,
) -> Result<Outgoing, Fault> {
    let (bytes, claims_root) = (sink.limits().event_bytes, sink.claims_root());
    Room { pack: &|event| sink.pack(event), bytes, claims_root }.fit(route, event, oversize)
}

impl Room<'_> {
    /// `event`, which `route` sends, in the shape of the sink, made to fit if need be.
    ///
    /// # Errors
    /// The sink can never hold it.
    pub(crate) fn fit(
        &self,
        route: &Arc<str>,
        event: &Arc<Event>,
        oversize: Oversize,
    ) -> Result<Outgoing, Fault> {
        // One that was made to fit another sink is judged anew.
        let whole = event.fitted.as_ref().map_or(event, Fitted::whole);
        let packed = (self.pack)(whole)?;
        let max = self.bytes;
        if packed.bytes <= max {
            return Ok(Outgoing { route: route.clone(), event: whole.clone(), packed });
        }
        let too_large = |what: String| {
            let text = format!("{} bytes as packed{what}, {max} is the limit", packed.bytes);
            Err(Fault::reject("pack", "too_large", text))
        };
        let (fitted, how) = match oversize {
            Oversize::DeadLetter => (None, ""),
            Oversize::Compress => (compressed(whole), "compressed"),
            Oversize::ClaimCheck => (claimed(whole, self.claims_root), "without its body"),
        };
        let Some(fitted) = fitted.map(Arc::new) else { return too_large(String::new()) };
        let packed = (self.pack)(&fitted)?;
        if packed.bytes > max {
            return too_large(format!(", {} {how}", packed.bytes));
        }
        Ok(Outgoing { route: route.clone(), event: fitted, packed })
    }
}

fn compressed(whole: &Arc<Event>) -> Option<Event> {
    let body = fit::compress(&whole.body)?;
    let fitted = Some(Fitted::Compressed(whole.clone()));
    Some(Event { body, fitted, ..(**whole).clone() })
}

/// None where there is no store, or the body is larger than what is fetched again.
fn claimed(whole: &Arc<Event>, root: Option<&str>) -> Option<Event> {
    let root = root.filter(|_| whole.body.len() <= BODY_MAX)?;
    let reference = Reference::to_body_of(whole, root);
    let (body, media_type) = reference.write();
    let fitted = Some(Fitted::Claimed(whole.clone(), reference));
    Some(Event { body, content_type: Some(media_type), fitted, ..(**whole).clone() })
}

#[cfg(test)]
mod tests;
