//! What is allowed and will probably surprise: warnings about a plan.

use std::time::Duration;

use super::{
    plan::{Plan, RoutePlan, State},
    tree::Path,
    units::{Size, Span},
};
use crate::{
    decode::Format,
    deliver::oversize::Oversize,
    route::{
        When,
        choice::{Case, Choice, Policy},
        pattern::Pattern,
    },
    source::Kind,
};

/// Warnings, each with the setting it is about. Routes stand in the plan as in the file.
pub(super) fn advice(plan: &Plan) -> Vec<(Path, String)> {
    let mut warnings = Vec::new();
    unused_sinks(plan, &mut warnings);
    lost_events(plan, &mut warnings);
    lost_checkpoints(plan, &mut warnings);
    undecodable(plan, &mut warnings);
    for lane in plan.lanes.iter() {
        let path = Path::default().name("lanes").name(&*lane.name).name("when");
        lane.when.iter().for_each(|when| never(&path, when, &mut warnings));
    }
    for (index, route) in plan.routes.iter().enumerate() {
        let path = Path::default().name("routes").index(index);
        never(&path.name("when"), &route.rule.when, &mut warnings);
        unreachable(plan, index, &path, &mut warnings);
        unreachable_cases(&path, route, &mut warnings);
        no_dead_letter(&path, route, &mut warnings);
        lost_order(plan, &path, route, &mut warnings);
        no_key(plan, route, &mut warnings);
        many_attributes(plan, &path, route, &mut warnings);
        long_waits(plan, &path, route, &mut warnings);
        slow_sinks(plan, route, &mut warnings);
        too_large(plan, &path, route, &mut warnings);
    }
    warnings
}

type Warnings = Vec<(Path, String)>;

fn unused_sinks(plan: &Plan, warnings: &mut Warnings) {
    for (index, sink) in plan.sinks.iter().enumerate() {
        let uses = |route: &RoutePlan| route.sends_to(index) || route.dead_letters.contains(&index);
        if !plan.dead_letters.contains(&index) && !plan.routes.iter().any(uses) {
            let path = Path::default().name("sinks").name(&*sink.name);
            warnings.push((path, "nothing is sent to it".to_owned()));
        }
    }
}

/// A sink that may say it has what it has not.
fn lost_events(plan: &Plan, warnings: &mut Warnings) {
    for sink in &plan.sinks {
        if let Some(what) = sink.config.nature().loses {
            let path = Path::default().name("sinks").name(&*sink.name);
            warnings.push((path, format!("it loses {what}")));
        }
    }
}

/// A pattern whose fields contradict each other.
fn never(path: &Path, when: &When, warnings: &mut Warnings) {
    let findings = when.pattern().map(Pattern::can_never_match).unwrap_or_default();
    warnings.extend(findings.into_iter().map(|finding| (path.join(&finding.path), finding.text)));
}

/// A route is not shown what one before it keeps for itself.
fn unreachable(plan: &Plan, index: usize, path: &Path, warnings: &mut Warnings) {
    let route = &plan.routes[index];
    let keeps = |before: &&RoutePlan| {
        before.rule.stop
            && before.rule.choice.takes_all()
            && route.from.iter().all(|source| before.from.contains(source))
            && before.rule.when.covers(&route.rule.when)
    };
    if let Some(before) = plan.routes.iter().take(index).find(keeps) {
        let text = format!(
            "it never sees an event: `{}` before it takes all that it would take, and says `stop: true`",
            before.name
        );
        warnings.push((path.clone(), text));
    }
}

fn unreachable_cases(path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    let Choice::First { cases, otherwise } = &route.rule.choice else { return };
    let first = path.name("to").name("first");
    // Steps can make another event of what the route's own condition takes.
    let always = When::default();
    let own = if route.rule.transform.is_empty() { &route.rule.when } else { &always };
    let rest = (!otherwise.is_empty()).then_some(&always);
    for (index, when) in cases.iter().map(|case| &case.when).chain(rest).enumerate() {
        let path = first.index(index);
        let before = warnings.len();
        never(&path.name("when"), when, warnings);
        if warnings.len() > before {
            continue;
        }
        let covers = |before: &Case<_>| before.when.covers_both(own, when);
        if let Some(before) = cases.iter().take(index).position(covers) {
            let text =
                format!("no event gets this far: all of its events match case {}", before + 1);
            warnings.push((path, text));
        } else if own.excludes(when) {
            let text = "no event gets this far: none that the route's own `when` takes matches it";
            warnings.push((path, text.to_owned()));
        }
    }
}

/// Events of a key that go to several sinks overtake one another.
fn lost_order(plan: &Plan, path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    let Choice::Balance(balance) = &route.rule.choice else { return };
    if balance.policy == Policy::Sticky {
        return;
    }
    let ordered = route.from.iter().filter_map(|&index| {
        let source = plan.sources.get(index)?;
        Some((&source.name, source.config.kind()?.nature().ordered_by?))
    });
    for (source, by) in ordered {
        let text = format!(
            "the order of `{source}` per {by} is lost between the sinks; use `sticky` to keep it"
        );
        warnings.push((path.name("to").name("balance"), text));
    }
}

/// A sink that orders by key, and events that have none.
fn no_key(plan: &Plan, route: &RoutePlan, warnings: &mut Warnings) {
    let keyless = route.from.iter().find_map(|&index| {
        let source = plan.sources.get(index)?;
        source.config.kind()?.nature().ordered_by.is_none().then_some(&source.name)
    });
    let (Some(source), false) = (keyless, route.rule.transform.may_set_key()) else { return };
    for (index, path) in &route.sinks {
        if let Some(sink) = plan.sinks.get(*index).filter(|sink| sink.config.nature().needs_key) {
            let text = format!(
                "events of `{source}` may have no key, so that `{}`, {}, keeps them in no order; set \
                 one in the route's `transform`, such as `{{ set: {{ key: \"{{{{ data.customer }}}}\" }} }}`",
                sink.name,
                sink.config.nature().what
            );
            warnings.push((path.clone(), text));
        }
    }
}

/// Attributes that we add, at most: `eventferry`, and the trace context in two.
const OURS: usize = 3;

fn many_attributes(plan: &Plan, path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    let count = route.rule.transform.attributes().len();
    for (index, _) in &route.sinks {
        if let Some(sink) = plan.sinks.get(*index)
            && let Some(most) = sink.config.nature().attributes
            && count + OURS > most
        {
            let text = format!(
                "sets {count} attributes, and `{}` takes {most}, with up to {OURS} of our own among \
                 them: the others travel in the attribute `eventferry`, which foreign consumers do not read",
                sink.name
            );
            warnings.push((path.name("transform"), text));
        }
    }
}

/// What waits for its turn longer than its source lends it comes again, and waits again.
fn long_waits(plan: &Plan, path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    let Some(rate) = &route.rule.rate else { return };
    for source in route.from.iter().filter_map(|&index| plan.sources.get(index)) {
        let Some(nature) = source.config.kind().map(Kind::nature) else { continue };
        let events = source.config.max_in_flight.events;
        let Some(wait) = rate.longest_wait(events).filter(|wait| *wait > nature.hold_max) else {
            continue;
        };
        if !nature.is_log {
            let (wait, most) = (Span(Duration::from_secs(wait.as_secs())), Span(nature.hold_max));
            let text = format!(
                "the last of {events} events of `{}` in flight waits {wait}, and {most} is what it \
                 can be kept for: it comes again, and waits again; lower the source's \
                 `max_in_flight`",
                source.name
            );
            warnings.push((path.name("rate_limit"), text));
        }
    }
}

/// The same where it is the sink that is slow.
fn slow_sinks(plan: &Plan, route: &RoutePlan, warnings: &mut Warnings) {
    for sink in route.sinks.iter().filter_map(|(index, _)| plan.sinks.get(*index)) {
        let Some(rate) = sink.flow.limit.events_per_second else { continue };
        for source in route.from.iter().filter_map(|&index| plan.sources.get(index)) {
            let Some(nature) = source.config.kind().map(Kind::nature) else { continue };
            let events = source.config.max_in_flight.events;
            let wait = Duration::try_from_secs_f64((events as f64 / rate).floor());
            let wait = wait.unwrap_or(Duration::MAX);
            if nature.is_log || wait <= nature.hold_max {
                continue;
            }
            let text = format!(
                "{events} events of `{}` in flight take longer than {}, which is what they can be \
                 kept for: some come again, and wait again; lower the source's `max_in_flight`",
                source.name,
                Span(nature.hold_max)
            );
            warnings.push((Path::default().name("sinks").name(&*sink.name).name("limit"), text));
        }
    }
}

fn lost_checkpoints(plan: &Plan, warnings: &mut Warnings) {
    let log = plan
        .sources
        .iter()
        .find(|source| source.config.kind().is_some_and(|kind| kind.nature().is_log));
    if let (State::Memory, Some(log)) = (&plan.state, log) {
        let text = format!(
            "checkpoints are lost at every restart, and `{}` is read from its start position \
             again; use `embedded`",
            log.name
        );
        warnings.push((Path::default().name("state"), text));
    }
}

/// A route's own dead-letter sink is of no use to an event that never reached the route. Only for
/// formats that a foreign producer can fail to meet.
fn undecodable(plan: &Plan, warnings: &mut Warnings) {
    let source = plan
        .sources
        .iter()
        .find(|source| matches!(source.config.format, Format::CloudEvents | Format::SnsEnvelope));
    let routes_have = plan.routes.iter().all(|route| !route.dead_letters.is_empty());
    if let (true, Some(source), true) = (plan.dead_letters.is_empty(), source, routes_have) {
        let path = Path::default().name("sources").name(&*source.name);
        let text = "what cannot be decoded is returned to it again and again; \
                    name a `dead_letter` sink at the top";
        warnings.push((path, text.to_owned()));
    }
}

fn no_dead_letter(path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    if route.dead_letters.is_empty() {
        let text = "what cannot be delivered is returned to its source again and again; \
                    name a `dead_letter` sink";
        warnings.push((path.clone(), text.to_owned()));
    }
}

fn too_large(plan: &Plan, path: &Path, route: &RoutePlan, warnings: &mut Warnings) {
    let largest = route.from.iter().filter_map(|&index| {
        let source = plan.sources.get(index)?;
        Some((source.config.kind()?.nature().event_bytes, &source.name))
    });
    let Some((most, source)) = largest.max() else { return };
    let smaller = |index: usize| {
        let sink = plan.sinks.get(index)?;
        let limit = sink.config.nature().event_bytes;
        (limit < most).then_some((&sink.name, Size(limit)))
    };
    // Nothing is too large for a reference.
    if route.oversize == Oversize::ClaimCheck {
        return;
    }
    let compressed = route.oversize == Oversize::Compress;
    let fate = match (route.dead_letters.is_empty(), compressed) {
        (false, false) => "what is larger is dead-lettered",
        (true, false) => "what is larger is returned again and again",
        (false, true) => "what is larger even compressed is dead-lettered",
        (true, true) => "what is larger even compressed is returned again and again",
    };
    let parked = if compressed { "what is larger even compressed" } else { "what is larger" };
    for (index, place) in &route.sinks {
        if let Some((sink, limit)) = smaller(*index) {
            let path = place.clone();
            let most = Size(most);
            warnings.push((path, format!(
                "`{sink}` takes {limit} at most, and events of `{source}` can have {most}; {fate}"
            )));
        }
    }
    // What one of them can hold has somewhere to go.
    let room = |index: &usize| plan.sinks.get(*index).map(|sink| sink.config.nature().event_bytes);
    let roomiest = route.dead_letters.iter().copied().max_by_key(room);
    if let Some((sink, limit)) = roomiest.and_then(smaller) {
        let most = Size(most);
        warnings.push((
            path.name("dead_letter"),
            format!(
                "`{sink}` takes {limit} at most, and events of `{source}` can have {most}; \
             {parked} and cannot be delivered stays at its source"
            ),
        ));
    }
}
