//! The spans of an event's way through the relay, by OpenTelemetry's conventions for messaging.
//!
//! Each delivery has a span of its own, the child of the context in which its event was made; that
//! context itself is forwarded untouched. A request to a service joins events of many traces, so
//! its span belongs to none of them and links to all, unless it has but one event.
//!
//! Whether a delivery is traced is known for certain when it ends: one that has failed is, whatever
//! its producer or the share says. Without a [`Tracer`] none of this costs anything.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::{
    delivery::{Outcome, Received},
    event::Event,
};

pub mod look;

use look::Looks;

/// Spans that may wait to be exported; what comes on top is dropped and counted, because telemetry
/// must never hold up an event.
pub const QUEUE: usize = 8_192;
/// Links of one span, at most: a collector drops what has more than it likes.
const LINKS_MAX: usize = 128;

/// Attributes, by the semantic conventions for messaging (in development, so in one place):
/// <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.
pub mod name {
    /// What is done: one of the `OPERATION_…` below, or the service's own word.
    pub const OPERATION: &str = "messaging.operation.name";
    /// Of which kind that is.
    pub const OPERATION_TYPE: &str = "messaging.operation.type";
    /// The kind of service.
    pub const SYSTEM: &str = "messaging.system";
    /// The queue, topic or hub.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// Events in a request.
    pub const BATCH: &str = "messaging.batch.message_count";
    /// The id of the event.
    pub const MESSAGE_ID: &str = "messaging.message.id";
    /// Bytes of its body.
    pub const BODY_BYTES: &str = "messaging.message.body.size";
    /// What went wrong, as a word.
    pub const ERROR: &str = "error.type";
    /// The source in the configuration.
    pub const SOURCE: &str = "eventferry.source";
    /// The sink in the configuration.
    pub const SINK: &str = "eventferry.sink";
    /// How the delivery has ended.
    pub const OUTCOME: &str = "eventferry.outcome";
    /// How often the source had handed the event out.
    pub const ATTEMPT: &str = "eventferry.attempt";
}

/// What tells a span from all others: W3C trace context, without the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace that it is part of; never 0.
    pub trace: u128,
    /// Its own number; never 0.
    pub span: u64,
    /// Whether whoever made it records it.
    pub is_sampled: bool,
    /// Whether somebody looks at what it is about.
    pub is_looked_at: bool,
}

impl SpanContext {
    /// Reads a `traceparent`. None where it is not one: then the event is of no trace.
    /// <https://www.w3.org/TR/trace-context/#traceparent-header>
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let [version, trace, span, flags] = std::array::from_fn(|_| parts.next().unwrap_or(""));
        // Later versions may have more parts.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let version = hex(version, 2)?;
        let context = Self {
            trace: hex(trace, 32)?,
            span: hex(span, 16).and_then(|span| u64::try_from(span).ok())?,
            is_sampled: hex(flags, 2)? & 1 == 1,
            is_looked_at: false,
        };
        (version != 0xff && context.trace != 0 && context.span != 0).then_some(context)
    }

    /// The one in which an event was made, if its producer has said.
    fn of(event: &Event) -> Option<Self> {
        event.trace.parent.as_deref().and_then(Self::parse)
    }

    /// A new one, in the same trace, or in one of its own.
    fn child_of(parent: Option<Self>) -> Self {
        let is_looked_at = parent.is_some_and(|parent| parent.is_looked_at);
        Self { is_looked_at, ..Self::within(Self::trace_of(parent)) }
    }

    /// The trace of a child.
    fn trace_of(parent: Option<Self>) -> u128 {
        parent.map_or_else(|| rand::random::<u128>().max(1), |parent| parent.trace)
    }

    /// A new one in a trace.
    fn within(trace: u128) -> Self {
        let span = rand::random::<u64>().max(1);
        Self { trace, span, is_sampled: true, is_looked_at: false }
    }
}

/// As a `traceparent` has it.
impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, is_sampled, .. } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled))
    }
}

/// A number in lower-case digits, exactly as many.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_as_long = text.len() == digits;
    is_as_long.then_some(text)?.bytes().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Decides what is traced, and hands over the spans.
#[derive(Debug)]
pub struct Tracer {
    /// Traces whose number is below this, in its lower half, are recorded.
    below: u64,
    /// The same of events that these routes take.
    by_route: HashMap<Arc<str>, u64>,
    /// To the collector, and what it has not taken in time; none where there is none.
    collected: Option<(mpsc::Sender<Span>, IntCounter)>,
    looks: Arc<Looks>,
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What was done, and to what.
    pub name: String,
    /// On which side of it we are.
    pub kind: Kind,
    /// Its own context.
    pub context: SpanContext,
    /// The span that it is part of.
    pub parent: Option<u64>,
    /// Spans of other traces that it is about.
    pub links: Vec<SpanContext>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, as a word.
    pub error: Option<Cow<'static, str>>,
}

/// On which side of an operation the relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It asks a service, or hands something to it.
    Client,
    /// It works on what a service has handed out.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Arc<str>),
    /// A number.
    Number(i64),
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Arc<str>> for Value {
    fn from(text: &Arc<str>) -> Self {
        Self::Text(text.clone())
    }
}

impl Tracer {
    /// One that records this share of all traces (0 to 1), or another of those that some routes
    /// take, and what fails; and where its spans come out. `dropped` counts those that nobody has
    /// taken in time. Whoever `looks` has more recorded.
    #[must_use]
    pub fn new(
        share: f64,
        by_route: HashMap<Arc<str>, f64>,
        dropped: IntCounter,
        looks: Arc<Looks>,
    ) -> (Arc<Self>, mpsc::Receiver<Span>) {
        let (spans, taken) = mpsc::channel(QUEUE);
        // Casting saturates: all of it is all of it.
        let below = |share: f64| (share * u64::MAX as f64) as u64;
        let by_route = by_route.into_iter().map(|(route, share)| (route, below(share))).collect();
        let collected = Some((spans, dropped));
        (Arc::new(Self { below: below(share), by_route, collected, looks }), taken)
    }

    /// One that records nothing but what is looked at.
    #[must_use]
    pub fn for_looks(looks: Arc<Looks>) -> Arc<Self> {
        Arc::new(Self { below: 0, by_route: HashMap::new(), collected: None, looks })
    }

    /// Whether there is anybody to record anything for.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.collected.is_some() || self.looks.are_open()
    }

    /// What the number of a trace has to be below, by the routes that take its event: the largest
    /// share counts.
    fn below<'a>(&self, routes: impl Iterator<Item = &'a str>) -> u64 {
        if self.by_route.is_empty() {
            return self.below;
        }
        let of_route = |route| self.by_route.get(route).copied().unwrap_or(self.below);
        routes.map(of_route).max().unwrap_or(self.below)
    }

    /// Deliveries that have come in together at `start` begin.
    #[must_use]
    pub fn intake(self: &Arc<Self>, start: SystemTime) -> Arc<Intake> {
        Arc::new(Intake { tracer: self.clone(), start })
    }

    /// What a delivery that these routes take is recorded under; none where it is not, as far as is
    /// known yet. Most are not, so no number is made up before it is needed.
    fn choose<'a>(
        &self,
        event: &Event,
        routes: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<SpanContext> {
        if self.looks.are_open() {
            let context = SpanContext::child_of(SpanContext::of(event));
            if self.looks.want(context, routes.clone()) {
                return Some(SpanContext { is_looked_at: true, ..context });
            }
        }
        let below = self.below(routes);
        if below == 0 {
            return None;
        }
        let parent = SpanContext::of(event);
        let trace = SpanContext::trace_of(parent);
        // By the trace's own number, so that every relay on its way decides alike.
        let is_in_share = below == u64::MAX || (trace as u64) < below;
        let is_wanted = is_in_share && parent.is_none_or(|parent| parent.is_sampled);
        is_wanted.then(|| SpanContext::within(trace))
    }

    fn tell(&self, span: Span) {
        self.looks.pass(&span);
        if let Some((spans, dropped)) = &self.collected
            && spans.try_send(span).is_err()
        {
            dropped.inc();
        }
    }
}

/// What the spans of deliveries that have come in together have in common.
#[derive(Debug)]
pub struct Intake {
    tracer: Arc<Tracer>,
    start: SystemTime,
}

impl Intake {
    /// Begins the span of a delivery that these routes take.
    #[must_use]
    pub fn process<'a>(
        self: &Arc<Self>,
        event: &Arc<Event>,
        received: &Arc<Received>,
        attempt: u32,
        routes: impl Iterator<Item = &'a str> + Clone,
    ) -> Process {
        let context = self.tracer.choose(event, routes);
        self.begin(event, received, attempt, context)
    }

    /// Begins the span of a dead letter of a route that is sent again: recorded in any case, as its
    /// failure was.
    #[must_use]
    pub fn again(
        self: &Arc<Self>,
        event: &Arc<Event>,
        received: &Arc<Received>,
        attempt: u32,
        route: Option<&str>,
    ) -> Process {
        let mut context = SpanContext::child_of(SpanContext::of(event));
        context.is_looked_at = self.tracer.looks.want(context, route.into_iter());
        self.begin(event, received, attempt, Some(context))
    }

    fn begin(
        self: &Arc<Self>,
        event: &Arc<Event>,
        received: &Arc<Received>,
        attempt: u32,
        context: Option<SpanContext>,
    ) -> Process {
        Process {
            intake: self.clone(),
            context: context.map(Box::new).map(OnceLock::from).unwrap_or_default(),
            about: Mutex::new(Some((event.clone(), received.clone()))),
            attempt,
        }
    }
}

/// The span of one delivery, from its receive to its end. Each delivery has one, because each may
/// fail; what only those need that are recorded is made for these alone.
#[derive(Debug)]
pub struct Process {
    intake: Arc<Intake>,
    /// Made once it is known that it is recorded.
    context: OnceLock<Box<SpanContext>>,
    /// What it is about, until it has ended: whoever settles it later frees nothing of it.
    about: Mutex<Option<(Arc<Event>, Arc<Received>)>>,
    attempt: u32,
}

impl Process {
    /// What others link to; none where it is not recorded, as far as is known yet.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        self.context.get().map(|context| **context)
    }

    /// The same of a delivery that has failed, which is recorded from now on in any case.
    #[must_use]
    pub fn failed(&self) -> SpanContext {
        let of = |(event, _): &(Arc<Event>, _)| SpanContext::of(event);
        let late = || Box::new(SpanContext::child_of(self.about().as_ref().and_then(of)));
        **self.context.get_or_init(late)
    }

    fn about(&self) -> MutexGuard<'_, Option<(Arc<Event>, Arc<Received>)>> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery has ended.
    pub fn end(&self, outcome: Outcome) {
        let (word, has_failed) = match outcome {
            Outcome::Delivered => ("delivered", false),
            Outcome::Filtered => ("filtered", false),
            Outcome::Duplicate => ("duplicate", false),
            Outcome::DeadLettered => ("dead_lettered", true),
            Outcome::Returned { .. } => ("returned", true),
        };
        let context = if has_failed { Some(self.failed()) } else { self.context() };
        let about = self.about().take();
        let (Some(context), Some((event, received))) = (context, about) else { return };
        let origin = &received.origin;
        let failed = has_failed.then(|| (name::ERROR, word.into()));
        self.intake.tracer.tell(Span {
            name: format!("process {}", origin.source),
            kind: Kind::Consumer,
            context,
            parent: SpanContext::of(&event).map(|parent| parent.span),
            links: Vec::new(),
            start: self.intake.start,
            end: SystemTime::now(),
            attributes: [
                (name::OPERATION, "process".into()),
                (name::OPERATION_TYPE, "process".into()),
                (name::SYSTEM, system(&origin.resource).into()),
                (name::DESTINATION, (&origin.resource).into()),
                (name::SOURCE, (&origin.source).into()),
                (name::MESSAGE_ID, (&event.id).into()),
                (name::BODY_BYTES, received.body.len().into()),
                (name::ATTEMPT, Value::Number(self.attempt.into())),
                (name::OUTCOME, word.into()),
            ]
            .into_iter()
            .chain(failed)
            .collect(),
            error: has_failed.then_some(Cow::Borrowed(word)),
        });
    }
}

/// A request to a service, about events of which some are traced.
#[derive(Debug)]
pub struct Request {
    tracer: Arc<Tracer>,
    kind: Kind,
    start: SystemTime,
    about: Vec<SpanContext>,
    attributes: Vec<(&'static str, Value)>,
    name: String,
    /// Whether its only event makes it a part of that event's span.
    is_alone: bool,
}

/// Whom a request is made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The kind of service, by the name that the conventions have for it.
    pub system: &'static str,
    /// The queue, topic or hub, as the file has it.
    pub destination: Arc<str>,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asks a source for events.
    Receive,
    /// Hands events to a sink.
    Send,
    /// Tells a source how deliveries have ended.
    Settle,
}

impl Request {
    /// Begins now, or has begun at `start`. None where none of its events is traced.
    #[must_use]
    pub fn begin(
        tracer: Option<&Arc<Tracer>>,
        operation: Operation,
        at: &Arc<str>,
        events: usize,
        about: impl Iterator<Item = SpanContext>,
    ) -> Option<Self> {
        let tracer = tracer?;
        let about: Vec<_> = about.collect();
        (!about.is_empty()).then(|| Self::new(tracer, operation, at, events, about))
    }

    /// One that has failed before it was about any event: recorded in any case, as whatever fails.
    #[must_use]
    pub fn failed(
        tracer: Option<&Arc<Tracer>>,
        operation: Operation,
        at: &Arc<str>,
    ) -> Option<Self> {
        Some(Self::new(tracer?, operation, at, 0, Vec::new()))
    }

    fn new(
        tracer: &Arc<Tracer>,
        operation: Operation,
        at: &Arc<str>,
        events: usize,
        mut about: Vec<SpanContext>,
    ) -> Self {
        if about.len() > LINKS_MAX {
            about.sort_by_key(|it| !it.is_looked_at);
            about.truncate(LINKS_MAX);
        }
        let (word, kind, place) = match operation {
            Operation::Receive => ("receive", Kind::Client, name::SOURCE),
            // Events have a creation context of their own: what makes none is a client.
            Operation::Send => ("send", Kind::Client, name::SINK),
            Operation::Settle => ("settle", Kind::Client, name::SOURCE),
        };
        let is_alone = events == 1 && operation == Operation::Send;
        let mut attributes = vec![
            (name::OPERATION, word.into()),
            (name::OPERATION_TYPE, word.into()),
            (place, at.into()),
        ];
        // By the conventions, what is sent alone is no batch of one.
        attributes.extend((!is_alone).then(|| (name::BATCH, events.into())));
        Self {
            tracer: tracer.clone(),
            kind,
            start: SystemTime::now(),
            about,
            attributes,
            name: format!("{word} {at}"),
            is_alone,
        }
    }

    /// The same, which has taken so long already.
    #[must_use]
    pub fn since(mut self, took: Duration) -> Self {
        self.start = self.start.checked_sub(took).unwrap_or(self.start);
        self
    }

    /// The same, which is made to this service.
    #[must_use]
    pub fn to(mut self, peer: Option<Peer>) -> Self {
        if let Some(Peer { system, destination }) = peer {
            self.attributes.push((name::SYSTEM, system.into()));
            self.attributes.push((name::DESTINATION, (&destination).into()));
        }
        self
    }

    /// The service has answered; `error` is the class of what went wrong with any of them.
    pub fn end(self, error: Option<&'static str>) {
        let Self { tracer, kind, start, about, mut attributes, name, is_alone } = self;
        let part_of = about.first().copied().filter(|_| is_alone);
        if let Some(error) = error {
            attributes.push((name::ERROR, error.into()));
        }
        tracer.tell(Span {
            name,
            kind,
            context: SpanContext::child_of(part_of),
            parent: part_of.map(|whole| whole.span),
            links: if part_of.is_some() { Vec::new() } else { about },
            start,
            end: SystemTime::now(),
            attributes,
            error: error.map(Cow::Borrowed),
        });
    }
}

/// The kind of service that a resource is of, by the name that the conventions have for it.
fn system(resource: &str) -> &'static str {
    match resource {
        _ if resource.starts_with("aws:sqs:") => "aws_sqs",
        _ if resource.starts_with("aws:sns:") => "aws.sns",
        _ if resource.starts_with("eventhubs:") => "eventhubs",
        // They have none for Storage Queues.
        _ if resource.starts_with("memory:") => "memory",
        _ => "storage_queue",
    }
}

#[cfg(test)]
mod tests;
