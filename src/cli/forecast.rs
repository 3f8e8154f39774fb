//! What would become of an event, without a service being asked: every sink is taken to work and
//! to have the limits that its kind has.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::event_file::{show_body, show_event};
use crate::{
    claim::ClaimCheck,
    config::{
        plan::{Named, Plan, RoutePlan, SinkPlan, Unmatched},
        units::Span,
    },
    dedup::{Key, OnStoreFailure},
    deliver::{concurrency::ConcurrencyConfig, flow::FlowConfig, oversize::Room},
    event::Event,
    fault::Fault,
    route::{
        IF, When,
        choice::Choice,
        fields,
        part::Part,
        pattern::{explain::Failed, fields::Wanted},
        table::{Now, Planned, Route, Send},
    },
    sink::Outgoing,
    transform::{Failure, path::to_json},
};

/// What would become of an event of one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Name of the source.
    pub source: String,
    /// The routes that read it, in the order of the file.
    pub routes: Vec<RouteForecast>,
    /// What becomes of it beside them: where no route takes it, or it runs in a loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrouted: Option<Outcome>,
}

/// What one route would make of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteForecast {
    /// Name of the route.
    pub route: String,
    /// Why it does not take the event; empty where it does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<WhyNot>,
    /// What its steps make of the event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What becomes of the event, or of each of its parts.
    pub outcomes: Vec<Outcome>,
}

/// Why a route does not take the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyNot {
    /// Why, with what was found in the event.
    text: String,
    /// The same without a word of the event.
    bare: String,
}

impl WhyNot {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { bare: text.clone(), text }
    }

    fn of_case(self, number: usize) -> Self {
        let of = |text| format!("case {number}: {text}");
        Self { text: of(self.text), bare: of(self.bare) }
    }

    /// Without what was found in the event, for those who may not see it.
    #[must_use]
    pub fn without_values(&self) -> &str {
        &self.bare
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for WhyNot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// What a step made of the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Name of the step.
    pub step: &'static str,
    /// The events after it.
    pub events: Vec<Json>,
}

/// What becomes of an event, or of a part of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is sent.
    Sent(Box<Sent>),
    /// It is parked.
    DeadLettered(DeadLettered),
    /// It is settled and not sent.
    Filtered(&'static str),
}

/// A message on its way into a sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sent {
    /// Name of the sink.
    pub sink: String,
    /// What kind of sink it is, in words.
    pub what: &'static str,
    /// Name of the lane.
    pub lane: String,
    /// How long it waits first, in seconds.
    pub wait_secs: u64,
    /// The event.
    pub event: Json,
    /// What the message has beside attributes and body, such as its group.
    pub labels: Map<String, Json>,
    /// The attributes of the message.
    pub attributes: Map<String, Json>,
    /// The body of the message, as `data`, `data_text` or `data_base64`.
    pub body: Map<String, Json>,
    /// What the message counts against the limit of the sink.
    pub bytes: usize,
    /// That limit.
    pub bytes_max: usize,
    /// How its route knows whether it has delivered it before.
    pub dedup: Dedup,
    /// What it passes on its way, whichever route it comes from.
    pub flow: FlowConfig,
    /// The sinks that refused it first, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How its route has picked this sink of several, with the shares of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picked: Option<String>,
    /// The sinks that it can as well go to, depending on what went before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub or_to: Vec<String>,
}

/// How a route knows whether it has delivered an event before.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Dedup {
    /// By a key.
    Key {
        /// In hexadecimal, as it is kept.
        key: String,
        /// What of the event it is made of.
        of: String,
        /// Beyond what the same event counts as another.
        scope: String,
        /// How long it is known, from the delivery on.
        ttl: Span,
        /// What becomes of the event while the store of keys does not answer.
        on_store_failure: OnStoreFailure,
    },
    /// Not at all.
    None {
        /// Why.
        none: &'static str,
    },
}

/// An event that is parked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLettered {
    /// The first of its sinks of dead letters. Without one, the event stays at its source.
    pub to: Option<String>,
    /// The sink that does not take it, where it came that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// A short stable name of the cause.
    pub class: &'static str,
    /// The cause in words.
    pub text: String,
}

/// What would become of `event`, were it received from the source of this index now. The plan is
/// unlocked.
#[must_use]
pub fn forecast(plan: &Plan, source: usize, event: &Arc<Event>, now: OffsetDateTime) -> Forecast {
    let now = Now { time: now, instant: Instant::now() };
    let name = plan.sources.get(source).map_or_else(String::new, |source| source.name.to_string());
    if event.hops >= plan.hops_max {
        let text =
            format!("it has passed {} relays, and `hops_max` is {}", event.hops, plan.hops_max);
        let failure = Failure::new("loop", text);
        let unrouted = dead_lettered(plan, &plan.dead_letters, None, failure);
        return Forecast { source: name, routes: Vec::new(), unrouted: Some(unrouted) };
    }
    let (places, table) = plan.table(source);
    let mut planned: Vec<Planned<'_, _>> = Vec::new();
    table.plan(event, now, &mut planned);
    let is_unmatched = planned.is_empty();
    let mut by_route: Vec<Vec<_>> = places.iter().map(|_| Vec::new()).collect();
    for planned in planned {
        let (Planned::Send(Send { route, .. })
        | Planned::Fail { route, .. }
        | Planned::Filter { route, .. }) = &planned;
        if let Some(of_route) = by_route.get_mut(*route) {
            of_route.push(planned);
        }
    }
    let mut stopped = None;
    let mut routes = Vec::new();
    for ((place, rule), planned) in places.into_iter().zip(table.routes()).zip(by_route) {
        let Some(route) = plan.routes.get(place) else { continue };
        let why_not = match (&stopped, planned.is_empty()) {
            (_, false) => Vec::new(),
            (Some(stopped), true) => {
                vec![WhyNot::new(format!("`{stopped}` has taken it, and says `stop`"))]
            }
            (None, true) => why_not(rule, event, now.time),
        };
        if rule.stop && !planned.is_empty() {
            stopped = Some(&route.name);
        }
        let steps = if planned.is_empty() { Vec::new() } else { steps(rule, event, now.time) };
        let outcomes = planned.into_iter().map(|planned| outcome(plan, route, rule, planned, now));
        let mut outcomes: Vec<_> = outcomes.collect();
        if outcomes.len() > 1 {
            // The parts of an event take turns with one another.
            outcomes.iter_mut().for_each(Outcome::has_its_turn);
        }
        routes.push(RouteForecast { route: route.name.to_string(), why_not, steps, outcomes });
    }
    let unrouted = is_unmatched.then(|| match plan.unmatched {
        Unmatched::Drop => Outcome::Filtered("unmatched"),
        Unmatched::DeadLetter => {
            let failure = Failure::new("unmatched", "no route accepts the event");
            dead_lettered(plan, &plan.dead_letters, None, failure)
        }
    });
    Forecast { source: name, routes, unrouted }
}

/// Why a route does not take an event, if nothing before it has stopped it.
fn why_not(rule: &Route<Named>, event: &Event, now: OffsetDateTime) -> Vec<WhyNot> {
    if let Some(why) = refusal(&rule.when, event, now) {
        return vec![why];
    }
    // Cases see what the steps have made.
    let made = match rule.transform.is_empty() {
        true => None,
        false => rule.transform.parts(event.clone()).ok().and_then(|made| made.into_iter().next()),
    };
    let event = made.as_ref().map_or(event, |(made, _)| made);
    let cases = rule.choice.conditions().enumerate();
    let refusals = cases.filter_map(|(index, when)| Some((index, refusal(when, event, now)?)));
    refusals.map(|(index, why)| why.of_case(index + 1)).collect()
}

/// Why a condition does not accept an event; none where it does.
fn refusal(when: &When, event: &Event, now: OffsetDateTime) -> Option<WhyNot> {
    let mut wanted = Wanted::default();
    when.want(&mut wanted);
    let fields = fields(event, &wanted, now);
    if let Some(failed) = when.pattern().and_then(|pattern| pattern.first_failure(&fields)) {
        let Failed { path, found, wanted } = failed;
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        let text = format!("`{path}` is {found}, wanted {wanted}");
        return Some(WhyNot { text, bare: format!("`{path}` is not {wanted}") });
    }
    match when.confirms(event) {
        Ok(true) => None,
        Ok(false) => Some(WhyNot::new(format!("`{IF}` is false"))),
        Err(failure) => Some(WhyNot::new(failure.text)),
    }
}

/// What the steps of a route make of an event that reaches them.
fn steps(rule: &Route<Named>, event: &Arc<Event>, now: OffsetDateTime) -> Vec<Step> {
    let is_sampled = rule.sample.is_none_or(|sample| sample.holds(event));
    if !is_sampled || rule.expire.is_some_and(|expire| expire.has_expired(event, now)) {
        return Vec::new();
    }
    let (traced, _) = rule.transform.trace((**event).clone());
    let shown = |events: Vec<Event>| events.iter().map(show_event).collect();
    traced.into_iter().map(|one| Step { step: one.step, events: shown(one.events) }).collect()
}

fn outcome(
    plan: &Plan,
    route: &RoutePlan,
    rule: &Route<Named>,
    planned: Planned<'_, Named>,
    now: Now,
) -> Outcome {
    match planned {
        Planned::Filter { reason, .. } => Outcome::Filtered(reason),
        Planned::Fail { failure, .. } => dead_lettered(plan, &route.dead_letters, None, failure),
        Planned::Send(send) => sent(plan, route, rule, &send, now),
    }
}

/// The message for the chosen sink, or for the first of those standing by that can hold it.
fn sent(
    plan: &Plan,
    route: &RoutePlan,
    rule: &Route<Named>,
    send: &Send<'_, Named>,
    now: Now,
) -> Outcome {
    let stand_ins = match &rule.choice {
        Choice::Any(sinks) => sinks.as_slice(),
        _ => &[],
    };
    let others = stand_ins.iter().filter(|other| *other != send.to);
    let mut first = None;
    let mut refused = Vec::new();
    for named in std::iter::once(send.to).chain(others) {
        let Some(sink) = plan.sinks.get(named.index) else { continue };
        match pack(plan, route, sink, &send.event) {
            Ok(outgoing) => {
                let takes = |sink: &SinkPlan| pack(plan, route, sink, &send.event).is_ok();
                let is_other = |other: &&Named| {
                    other.index != named.index && plan.sinks.get(other.index).is_some_and(takes)
                };
                let or_to = rule.choice.alternatives().iter().filter(is_other);
                let or_to = or_to.map(|other| other.name.to_string()).collect();
                let picked = rule.choice.in_words();
                let sent = message(plan, route, sink, send, &outgoing, now);
                return Outcome::Sent(Box::new(Sent { refused, picked, or_to, ..sent }));
            }
            Err(failure) => {
                refused.push(format!("{}: {failure}", sink.name));
                first.get_or_insert((sink.name.to_string(), failure));
            }
        }
    }
    let (by, failure) = match first {
        Some((by, failure)) => (Some(by), failure),
        None => (None, Failure::new("unmatched", "the route has no sink")),
    };
    dead_lettered(plan, &route.dead_letters, by, failure)
}

fn message(
    plan: &Plan,
    route: &RoutePlan,
    sink: &SinkPlan,
    send: &Send<'_, Named>,
    outgoing: &Outgoing,
    now: Now,
) -> Sent {
    let nature = sink.config.nature();
    let labels = sink.config.labels(outgoing).into_iter();
    let packed = &outgoing.packed;
    let attributes = packed.attributes.iter();
    Sent {
        sink: sink.name.to_string(),
        what: nature.what,
        lane: plan.lanes.get(send.lane).map_or_else(String::new, |lane| lane.name.to_string()),
        wait_secs: send.not_before.map_or(0, |due| (due - now.instant).as_secs()),
        event: show_event(&send.event),
        labels: labels.map(|(name, text)| (name.to_owned(), text.into())).collect(),
        attributes: attributes.map(|(name, value)| (name.to_string(), to_json(value))).collect(),
        body: show_body(&packed.body, None).into_iter().collect(),
        bytes: packed.bytes,
        bytes_max: sink.config.packed_bytes_max(),
        dedup: dedup(route, sink, send),
        flow: FlowConfig {
            concurrency: ConcurrencyConfig {
                max: Some(sink.flow.concurrency.max.unwrap_or(nature.in_flight)),
                ..sink.flow.concurrency
            },
            ..sink.flow
        },
        refused: Vec::new(),
        picked: None,
        or_to: Vec::new(),
    }
}

fn dedup(route: &RoutePlan, sink: &SinkPlan, send: &Send<'_, Named>) -> Dedup {
    let Some(config) = &route.dedup else {
        return Dedup::None { none: "the route has no `dedup`, and sends again what comes again" };
    };
    let Send { original, identity, part, .. } = send;
    let identity = identity.as_deref();
    let each = route.rule.choice.sends_to_each().then_some(&*sink.name);
    Dedup::Key {
        key: Key::of(&route.name, each, original, identity, part.as_ref()).to_string(),
        of: match (part, identity) {
            (Some(Part::Made { whole, name, at }), _) => {
                let of_event = || format!("{} {}", whole.source, whole.id);
                let of = name.as_deref().map_or_else(of_event, str::to_owned);
                let at: Vec<_> = at.iter().map(|item| (item + 1).to_string()).collect();
                format!("part {} of {of}", at.join("."))
            }
            (_, Some(identity)) => identity.to_owned(),
            _ => format!("{} {}", original.source, original.id),
        },
        scope: match each {
            Some(sink) => format!("route {} into {sink}", route.name),
            None => format!("route {}, whichever of its sinks", route.name),
        },
        ttl: config.ttl,
        on_store_failure: config.on_store_failure,
    }
}

/// An event in the shape of a sink that can hold it, made to fit as its route says.
fn pack(
    plan: &Plan,
    route: &RoutePlan,
    sink: &SinkPlan,
    event: &Arc<Event>,
) -> Result<Outgoing, Failure> {
    let root = plan.claim_check.as_ref().map(ClaimCheck::shown);
    let room = Room {
        pack: &|event| sink.config.pack(event),
        bytes: sink.config.packed_bytes_max(),
        claims_root: root.as_deref(),
    };
    let refused = |fault: Fault| Failure::new(fault.class, fault.to_string());
    room.fit(&route.name, event, route.oversize).map_err(refused)
}

fn dead_lettered(
    plan: &Plan,
    to: &[usize],
    refused_by: Option<String>,
    failure: Failure,
) -> Outcome {
    let to = to.first().and_then(|&index| plan.sinks.get(index)).map(|sink| sink.name.to_string());
    let Failure { class, text } = failure;
    Outcome::DeadLettered(DeadLettered { to, refused_by, class, text })
}

impl Outcome {
    fn has_its_turn(&mut self) {
        if let Self::Sent(sent) = self {
            sent.or_to.clear();
        }
    }
}

impl Forecast {
    /// Everything that becomes of the event.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.routes.iter().flat_map(|route| &route.outcomes).chain(&self.unrouted)
    }

    /// Every message that is sent.
    pub fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.outcomes().filter_map(|outcome| match outcome {
            Outcome::Sent(sent) => Some(&**sent),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
