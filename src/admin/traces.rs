//! What the next deliveries go through, span by span, as they end.

use std::time::{Duration, SystemTime};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::IntoResponse,
    routing::get,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tokio::time::{Instant, timeout_at};

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    endpoint::{Answer, Endpoint, describe},
    passing::{self, Watching},
};
use crate::{
    config::plan::Plan,
    trace::{
        Span, Value,
        look::{Heard, LOOKS_MAX, Look},
        name,
    },
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

/// What can be asked of traces.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        query: Some(describe::<Asked>),
        answer: Answer::Events(passing::describe::<Looking>),
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
    let route = passing::route(&api, &caller, route)?;
    let left = passing::within("max", max.unwrap_or(DELIVERIES), DELIVERIES_MAX)?;
    // What others make of a trace is not for who is limited to some routes.
    let follows = caller.routes.is_none();
    let look = api.metrics.looks().open(route, left, follows);
    let look = look.ok_or_else(|| passing::too_many("looks", LOOKS_MAX))?;
    Ok(passing::tell(Looking { api, caller, look, left, until: Instant::now() + LONGEST }))
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

impl Watching for Looking {
    type Told = Told;

    async fn next(&mut self) -> Result<Told, &'static str> {
        loop {
            let (patience, why) = if self.left == 0 { (SETTLED, "max") } else { (QUIET, "quiet") };
            let patience = Instant::now() + patience;
            let Ok(heard) = timeout_at(patience.min(self.until), self.look.next()).await else {
                return Err(if self.until < patience { "long" } else { why });
            };
            let Heard { span, is_chosen } = heard.ok_or("ending")?;
            self.left -= u32::from(is_chosen && self.left > 0);
            let plan = self.api.health.plan();
            if plan.is_some_and(|plan| may_see(&self.caller, &plan, &span)) {
                self.api.metrics.looked_at(1, 0);
                return Ok(told(&span));
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.look.dropped()
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.api.metrics.looked_at(0, self.look.dropped());
    }
}

/// Whether what a span is of is of one of their routes: others have to do with an event, too.
fn may_see(caller: &Caller, plan: &Plan, span: &Span) -> bool {
    span.attributes.iter().all(|(of, value)| match (*of, value) {
        // Where dead letters are sent again, their sink is the source.
        (name::SOURCE, Value::Text(source)) => {
            caller.sees_source(plan, source) || caller.sees_sink(plan, source)
        }
        (name::SINK, Value::Text(sink)) => caller.sees_sink(plan, sink),
        _ => true,
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        config::{self, environment::Environment},
        trace::{Kind, SpanContext},
    };

    const FILE: &str = "
sources: { a: { memory: { queue: a } }, b: { memory: { queue: b } } }
sinks:
  x: { memory: { queue: x } }
  y: { memory: { queue: y } }
  mine: { memory: { queue: m } }
  parked: { memory: { queue: p } }
routes:
  - { name: one, from: a, to: { all: [x] }, dead_letter: mine }
  - { name: two, from: b, to: { all: [y] } }
dead_letter: parked
";

    fn span(attributes: &[(&'static str, Value)]) -> Span {
        let context = SpanContext { trace: 0xabc, span: 7, is_sampled: true, is_looked_at: false };
        let link = |span, is_looked_at| SpanContext { span, is_looked_at, ..context };
        Span {
            name: "send x".into(),
            kind: Kind::Client,
            context,
            parent: Some(5),
            links: vec![link(8, true), link(9, false)],
            start: SystemTime::UNIX_EPOCH + Duration::from_micros(3),
            end: SystemTime::UNIX_EPOCH + Duration::from_micros(10),
            attributes: attributes.to_vec(),
            error: Some("throttled".into()),
        }
    }

    #[test]
    fn who_is_limited_to_a_route_sees_only_what_is_of_it() {
        let plan = config::read("f", FILE, &Environment::default()).unwrap().plan;
        let routes = Some(BTreeSet::from(["one".into()]));
        let limited = Caller { routes, ..Caller::local() };
        let cases = [
            (name::SOURCE, "a", true),
            (name::SOURCE, "b", false),
            // A redrive of its dead letters.
            (name::SOURCE, "mine", true),
            (name::SOURCE, "parked", false),
            (name::SINK, "x", true),
            (name::SINK, "y", false),
            (name::SINK, "parked", false),
        ];
        for (of, value, expected) in cases {
            let span = span(&[(name::OPERATION, "send".into()), (of, value.into())]);
            assert_eq!(may_see(&limited, &plan, &span), expected, "{of} {value}");
            assert!(may_see(&Caller::local(), &plan, &span), "{of} {value}");
        }
        let both = span(&[(name::SOURCE, "a".into()), (name::SINK, "y".into())]);
        assert!(!may_see(&limited, &plan, &both));
    }

    #[test]
    fn a_span_is_told_with_those_it_is_about_that_are_looked_at() {
        let told = told(&span(&[(name::SINK, "x".into()), (name::BATCH, Value::Number(2))]));
        assert_eq!((told.start_us, told.took_us), (3, 7));
        assert_eq!(told.trace, "00000000000000000000000000000abc");
        assert_eq!(
            (told.span.as_str(), told.parent.as_deref()),
            ("0000000000000007", Some("0000000000000005"))
        );
        assert_eq!(told.about, ["0000000000000008"]);
        assert_eq!(told.error.as_deref(), Some("throttled"));
        assert_eq!(told.attributes[name::SINK], "x");
        assert_eq!(told.attributes[name::BATCH], 2);
    }
}
