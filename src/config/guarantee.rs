//! What a route really promises, in the words of `docs/guarantee.md`, from what is known of its
//! source and sinks.

use std::{fmt, time::Duration};

use super::{
    plan::{Plan, RoutePlan, SinkPlan, SourcePlan, State},
    units::Span,
};
use crate::{
    dedup::OnStoreFailure,
    route::{
        choice::{Choice, Policy},
        rate::Over,
        timing::Then,
    },
    source::Kind,
};

/// For so long FIFO queues and topics drop what has the same deduplication id.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html>
const FIFO_DEDUP: Span = Span(Duration::from_secs(5 * 60));

/// The promise of one route. Displays as lines for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// The route: its name, where from and where to.
    pub route: String,
    /// How often its events arrive.
    pub delivery: String,
    /// In what order its events arrive, for each source and sink, and why.
    pub order: Vec<String>,
    /// How much its sinks are sent in a second, where the file says so.
    pub pace: Vec<String>,
    /// What becomes of an event that cannot be delivered.
    pub dead_letters: String,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.route)?;
        writeln!(f, "  delivery      {}", self.delivery)?;
        for (line, order) in self.order.iter().enumerate() {
            writeln!(f, "  {:<14}{order}", if line == 0 { "order" } else { "" })?;
        }
        for (line, pace) in self.pace.iter().enumerate() {
            writeln!(f, "  {:<14}{pace}", if line == 0 { "pace" } else { "" })?;
        }
        writeln!(f, "  dead letters  {}", self.dead_letters)
    }
}

/// The promises of all routes, in the order of the file.
#[must_use]
pub fn guarantees(plan: &Plan) -> Vec<Guarantee> {
    plan.routes.iter().map(|route| guarantee(plan, route)).collect()
}

fn guarantee(plan: &Plan, route: &RoutePlan) -> Guarantee {
    let sources: Vec<_> = route.from.iter().filter_map(|&index| plan.sources.get(index)).collect();
    let sinks: Vec<_> =
        route.sinks.iter().filter_map(|(index, _)| plan.sinks.get(*index)).collect();
    let join = |names: Vec<&str>| names.join(", ");
    let from = join(sources.iter().map(|source| &*source.name).collect());
    let to = join(sinks.iter().map(|sink| &*sink.name).collect());
    let to = match &route.rule.choice {
        Choice::All(_) => to,
        Choice::First { .. } => format!("by case to {to}"),
        Choice::Any(_) => format!("the first that works of {to}"),
        Choice::Balance(_) => format!("one of {to}"),
    };
    let order = sources.iter().flat_map(|source| order(source, &sinks, route)).collect();
    let dead_letters: Vec<_> =
        route.dead_letters.iter().filter_map(|&index| plan.sinks.get(index)).collect();
    let dead_letters: Vec<_> = dead_letters.iter().map(|sink| format!("`{}`", sink.name)).collect();
    let retry = route.retry.attempts;
    let tries = if retry == 1 { "1 try".to_owned() } else { format!("{retry} tries") };
    Guarantee {
        route: format!("{}: {from} -> {to}", route.name),
        delivery: delivery(plan, route, &sinks),
        order,
        pace: sinks.iter().filter_map(|sink| pace(sink)).collect(),
        dead_letters: match dead_letters.is_empty() {
            false => {
                format!("to {}, after {tries} or when refused", dead_letters.join(", or else to "))
            }
            true => "none: what cannot be delivered is returned to its source".to_owned(),
        },
    }
}

fn delivery(plan: &Plan, route: &RoutePlan, sinks: &[&SinkPlan]) -> String {
    let mut text = "at least once".to_owned();
    let rule = &route.rule;
    if let Some(sample) = &rule.sample {
        text += &format!("; BUT takes a sample of {}", sample.share);
    }
    if let Some(expire) = rule.expire.as_ref().filter(|it| it.then == Then::Drop) {
        text += &format!("; BUT drops what is older than {}", expire.after);
    }
    if route.limit().is_some_and(|limit| limit.over == Over::Drop) {
        text += "; BUT drops what is over its rate limit";
    }
    if let Some(dedup) = &route.dedup {
        let known = match &plan.state {
            State::Memory => "until a restart, in memory",
            State::Embedded { .. } => "in a file",
            #[cfg(feature = "azure")]
            State::Blob(_) => "in blobs",
            #[cfg(feature = "redis")]
            State::Redis(_) => "in Redis",
        };
        let ttl = dedup.ttl;
        text += &format!(
            "; duplicates collapse within {ttl} (known {known}), unless a send is not answered, or the \
             daemon dies or its claim runs out between an answer and its note of it"
        );
        if dedup.on_store_failure == OnStoreFailure::Deliver {
            text += ", or the state store is away";
        }
    }
    let fifo: Vec<_> = sinks.iter().filter(|sink| sink.config.nature().needs_key).collect();
    if !fifo.is_empty() {
        let names: Vec<_> = fifo.iter().map(|sink| &*sink.name).collect();
        text += &format!("; duplicates at {} collapse within {FIFO_DEDUP}", names.join(", "));
    }
    for sink in sinks {
        if let Some(what) = sink.config.nature().loses {
            text = format!("{text}; BUT {} loses {what}", sink.name);
        }
    }
    text
}

/// How much a sink is sent in a second, by all routes together.
fn pace(sink: &SinkPlan) -> Option<String> {
    sink.flow.limit.in_words().map(|limit| format!("{}: {limit}", sink.name))
}

/// What becomes of the order of one source on the way to each of the sinks.
fn order(source: &SourcePlan, sinks: &[&SinkPlan], route: &RoutePlan) -> Vec<String> {
    let from = &source.name;
    let Some(nature) = source.config.kind().map(Kind::nature) else { return Vec::new() };
    let Some(by) = nature.ordered_by else {
        return vec![format!("{from}: none, it is {}", nature.what)];
    };
    let (spread, but) = match &route.rule.choice {
        Choice::Balance(balance) => (balance.policy != Policy::Sticky, ""),
        Choice::Any(_) => (false, ", but not where one sink stands in for another"),
        _ => (false, ""),
    };
    if spread {
        return vec![format!("{from}: lost, the events of a {by} go to several sinks")];
    }
    // Lanes and sinks go by the key that an event has behind the steps.
    let transform = &route.rule.transform;
    let among = if transform.may_set_key() { " and key that the steps give" } else { "" };
    let is_keyless = transform.takes_key() && !transform.may_set_key();
    let to_sink = |sink: &&SinkPlan| match sink.config.nature() {
        nature if nature.keeps_order && is_keyless => {
            format!("{from} -> {}: lost, the steps take the key away", sink.name)
        }
        nature if nature.keeps_order => {
            format!("{from} -> {}: kept per {by}{among}{but}", sink.name)
        }
        nature => format!("{from} -> {}: lost, {} is {}", sink.name, sink.name, nature.what),
    };
    sinks.iter().map(to_sink).collect()
}
