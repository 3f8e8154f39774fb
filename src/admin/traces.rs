//! What the next deliveries go through, span by span, as they end.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{Event as Sent, KeepAlive, Sse},
    },
    routing::get,
};
use futures::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::time::{Instant, timeout_at};

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    endpoint::{Endpoint, describe},
};
use crate::trace::{
    Span, Value,
    look::{Heard, LOOKS_MAX, Look},
    name,
};

/// A look that hears of nothing for so long ends.
const QUIET: Duration = Duration::from_secs(60);
/// The same once as many deliveries have ended as were asked for: what is still told of them is how
/// they are settled.
const SETTLED: Duration = Duration::from_secs(3);
/// No look is longer: what waits for a sink that is away is tried again for as long as it is.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Deliveries of one look.
const DELIVERIES: u32 = 10;
const DELIVERIES_MAX: u32 = 100;

/// What is looked at.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Only deliveries that this route takes.
    pub route: Option<String>,
    /// How many deliveries: 10 without it, and 100 at most.
    pub max: Option<u32>,
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Told {
    /// What was done, and to what: `process SOURCE` is a delivery from its receive to its end.
    pub name: String,
    /// The trace that it is part of.
    pub trace: String,
    /// Its own number.
    pub span: String,
    /// The span that it is part of.
    pub parent: Option<String>,
    /// Deliveries that it is about, by their spans, of those that are looked at: a request has others
    /// in it as well.
    pub about: Vec<String>,
    /// When it began, in microseconds since 1970.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What went wrong, as a word.
    pub error: Option<String>,
    /// What is known of it, by the names that a collector gets.
    pub attributes: Map<String, Json>,
}

/// The last that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ended {
    /// Why: `max`, `quiet`, `long` or `ending`.
    pub why: &'static str,
    /// Spans that came too fast to be told.
    pub dropped: u64,
}

/// What can be asked of traces.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        query: Some(describe::<Asked>),
        ..Endpoint::read(
            "/traces",
            "traces",
            "What the next deliveries go through, span by span, as server-sent events; the last is \
             called `end`.",
            get(traces),
        )
    }]
}

async fn traces(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Query(Asked { route, max }) = asked?;
    caller.sees_one(route.as_deref())?;
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    if let Some(route) = &route
        && plan.routes.iter().all(|known| *known.name != **route)
    {
        return Err(Refusal::unknown("route", route));
    }
    let left = max.unwrap_or(DELIVERIES);
    if !(1..=DELIVERIES_MAX).contains(&left) {
        return Err(Refusal::invalid(format!("`max` is a number from 1 to {DELIVERIES_MAX}")));
    }
    // What others make of a trace is not for who is limited to some routes.
    let follows = caller.routes.is_none();
    let look = api.metrics.looks().open(route.map(Into::into), left, follows).ok_or_else(|| {
        let detail = format!("{LOOKS_MAX} looks are open, and no more may be; end another first");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many", detail)
    })?;
    let looking = Looking { api, caller, look, left, until: Instant::now() + LONGEST };
    let events = stream::unfold(Some(looking), async |looking| Some(looking?.next().await));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Somebody who looks.
struct Looking {
    api: Api,
    caller: Caller,
    look: Look,
    /// Deliveries that have not ended yet.
    left: u32,
    until: Instant,
}

impl Looking {
    /// The next that is told, and whoever goes on looking.
    async fn next(mut self) -> (Result<Sent, Infallible>, Option<Self>) {
        let why = loop {
            let (patience, why) = if self.left == 0 { (SETTLED, "max") } else { (QUIET, "quiet") };
            let patience = Instant::now() + patience;
            match timeout_at(patience.min(self.until), self.look.next()).await {
                Err(_) => break if self.until < patience { "long" } else { why },
                Ok(None) => break "ending",
                Ok(Some(Heard { span, is_chosen })) => {
                    self.left -= u32::from(is_chosen && self.left > 0);
                    if self.may_see(&span) {
                        self.api.metrics.looked_at(1, 0);
                        let sent = Sent::default().json_data(told(&span)).unwrap_or_default();
                        return (Ok(sent), Some(self));
                    }
                }
            }
        };
        let ended = Ended { why, dropped: self.look.dropped() };
        (Ok(Sent::default().event("end").json_data(ended).unwrap_or_default()), None)
    }

    /// Whether what a span is of is of one of their routes: others have to do with an event, too.
    fn may_see(&self, span: &Span) -> bool {
        let Some(plan) = self.api.health.plan() else { return false };
        span.attributes.iter().all(|(of, value)| match (*of, value) {
            // Where dead letters are sent again, their sink is the source.
            (name::SOURCE, Value::Text(source)) => {
                self.caller.sees_source(&plan, source) || self.caller.sees_sink(&plan, source)
            }
            (name::SINK, Value::Text(sink)) => self.caller.sees_sink(&plan, sink),
            _ => true,
        })
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.api.metrics.looked_at(0, self.look.dropped());
    }
}

fn told(span: &Span) -> Told {
    let number = |span: u64| format!("{span:016x}");
    let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let looked_at = span.links.iter().filter(|link| link.is_looked_at);
    let start = span.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let attribute = |(name, value): &(&str, Value)| {
        let value = match value {
            Value::Text(text) => Json::from(&**text),
            Value::Number(number) => (*number).into(),
        };
        ((*name).to_owned(), value)
    };
    Told {
        name: span.name.clone(),
        trace: format!("{:032x}", span.context.trace),
        span: number(span.context.span),
        parent: span.parent.map(number),
        about: looked_at.map(|link| number(link.span)).collect(),
        start_us: micros(start),
        took_us: micros(span.end.duration_since(span.start).unwrap_or_default()),
        error: span.error.as_deref().map(str::to_owned),
        attributes: span.attributes.iter().map(attribute).collect(),
    }
}
