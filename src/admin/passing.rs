//! What happens in the flow, told as server-sent events to whoever watches, until they have seen
//! enough.

use std::{convert::Infallible, sync::Arc};

use axum::{
    http::StatusCode,
    response::sse::{Event as Sent, KeepAlive, Sse},
};
use futures::stream::{self, Stream};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::{Api, access::Caller, answer::Refusal};

/// The last that is told.
#[derive(Debug, Serialize, JsonSchema)]
struct Ended {
    /// Why: `max`, `quiet`, `long` or `ending`.
    why: &'static str,
    /// What should have been told and was not, because it came too fast.
    dropped: u64,
}

/// Somebody who watches. Dropped when they have left.
pub(super) trait Watching: Send + Sized + 'static {
    /// What they are told.
    type Told: Serialize + JsonSchema;

    /// The next of it, or why that was all.
    fn next(&mut self) -> impl Future<Output = Result<Self::Told, &'static str>> + Send;

    /// How much came too fast to be told.
    fn dropped(&self) -> u64;
}

/// The description of what they are told.
pub(super) fn describe<W: Watching>(generator: &mut SchemaGenerator) -> Schema {
    let (told, ended) = (generator.subschema_for::<W::Told>(), generator.subschema_for::<Ended>());
    json_schema!({ "oneOf": [told, ended] })
}

/// Tells them, as long as there is anything to tell; the last is called `end`.
pub(super) fn tell<W: Watching>(
    watching: W,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>> + Send> {
    let events = stream::unfold(Some(watching), async |watching| {
        let mut watching = watching?;
        let (sent, goes_on) = match watching.next().await {
            Ok(told) => (Sent::default().json_data(told), true),
            Err(why) => {
                let ended = Ended { why, dropped: watching.dropped() };
                (Sent::default().event("end").json_data(ended), false)
            }
        };
        Some((Ok(sent.unwrap_or_default()), goes_on.then_some(watching)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// The route that they have asked for, or all, if they may watch it.
pub(super) fn route(
    api: &Api,
    caller: &Caller,
    asked: Option<String>,
) -> Result<Option<Arc<str>>, Refusal> {
    caller.sees_one(asked.as_deref())?;
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let Some(route) = asked else { return Ok(None) };
    let known = plan.routes.iter().find(|known| *known.name == *route);
    known.map(|known| Some(known.name.clone())).ok_or_else(|| Refusal::unknown("route", &route))
}

/// A number that they have asked for.
pub(super) fn within(name: &str, asked: u32, max: u32) -> Result<u32, Refusal> {
    let wrong = || Refusal::invalid(format!("`{name}` is a number from 1 to {max}"));
    (1..=max).contains(&asked).then_some(asked).ok_or_else(wrong)
}

/// As many watch as may.
pub(super) fn too_many(what: &str, max: usize) -> Refusal {
    let detail = format!("{max} {what} are open, and no more may be; end another first");
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many", detail)
}
