//! What differs between the configuration that runs and the one that shall: for people, and for
//! the daemon, which starts nothing else anew. Pure.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::Serialize;
use serde_json::Value as Json;

use super::plan::{Plan, RoutePlan, SinkPlan};

/// What differs, and what has to start anew for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// A line each, in the order of a file: sources, sinks, routes, then what holds for all.
    pub changes: Vec<Change>,
    /// The sources whose pipelines start anew, or for the first time: those that anything they use
    /// has changed for.
    pub restarted: BTreeSet<Arc<str>>,
    /// Those of them whose own settings are new, so that it has to be seen whether they can be used.
    pub new_sources: BTreeSet<Arc<str>>,
    /// The sinks that have to be built.
    pub new_sinks: BTreeSet<Arc<str>>,
    /// Those of them that have to be connected; the others are sent to otherwise, by the connection
    /// that there is.
    pub new_connections: BTreeSet<Arc<str>>,
    /// Whether the store for large bodies has to be opened.
    pub claim_check: bool,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub how: How,
    /// What: `route orders`, or the name of a setting at the top of the file.
    pub what: String,
    /// The settings of it that differ, where it is in both.
    pub settings: Vec<String>,
}

/// How a thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is only in the new file.
    Added,
    /// It is only in the old file.
    Removed,
    /// It is in both.
    Changed,
}

/// Why a file cannot be taken up without a restart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct NeedsRestart(pub Vec<String>);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.how {
            How::Added => '+',
            How::Removed => '-',
            How::Changed => '~',
        };
        write!(f, "{sign} {}", self.what)?;
        if !self.settings.is_empty() {
            write!(f, ": {}", self.settings.join(", "))?;
        }
        Ok(())
    }
}

/// A line for each change, and one for the sources that start anew.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        let restarted: Vec<&str> = self.restarted.iter().map(|name| &**name).collect();
        match restarted.as_slice() {
            [] if self.changes.is_empty() => writeln!(f, "nothing differs"),
            [] => writeln!(f, "no source starts anew"),
            restarted => writeln!(f, "starting anew: {}", restarted.join(", ")),
        }
    }
}

impl Difference {
    /// What a daemon that runs `old` has to do to run `new`.
    ///
    /// # Errors
    /// Settings differ that it cannot change while it runs; a line for each.
    pub fn between(old: &Plan, new: &Plan) -> Result<Self, NeedsRestart> {
        let mut fixed = Vec::new();
        let place = |plan: &Plan| plan.admin.as_ref().map(|it| (it.listen, it.tls.clone()));
        if place(old) != place(new) {
            let text = "where `admin` listens, and its `tls`, cannot change while the daemon runs; \
                        restart it, or set them as they were";
            fixed.push(text.to_owned());
        }
        #[cfg(feature = "otlp")]
        if old.otlp != new.otlp {
            let text =
                "`otlp` cannot change while the daemon runs; restart it, or set it as it was";
            fixed.push(text.to_owned());
        }
        if old.state != new.state {
            fixed.push(another_state(old, new));
        }
        if !fixed.is_empty() {
            return Err(NeedsRestart(fixed));
        }
        let mut difference = Self::default();
        difference.tell(old, new);
        difference.concern(old, new);
        Ok(difference)
    }

    /// Whether the two files mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.restarted.is_empty() && self.new_sinks.is_empty()
    }

    fn push(&mut self, how: How, what: impl Into<String>, settings: Vec<String>) {
        self.changes.push(Change { how, what: what.into(), settings });
    }

    /// Lists the changes.
    fn tell(&mut self, old: &Plan, new: &Plan) {
        let sources = |plan: &'_ Plan| -> Vec<_> {
            plan.sources.iter().map(|it| (it.name.clone(), tree(&it.config))).collect()
        };
        let sinks = |plan: &'_ Plan| -> Vec<_> {
            plan.sinks.iter().map(|it| (it.name.clone(), sink(it))).collect()
        };
        self.things("source", &sources(old), &sources(new), settings);
        self.things("sink", &sinks(old), &sinks(new), settings);
        self.things("route", &routes(old), &routes(new), Named::differences);
        let order = |plan: &Plan, other: &Plan| -> Vec<Arc<str>> {
            let kept = plan.routes.iter().map(|route| route.name.clone());
            kept.filter(|name| other.routes.iter().any(|route| route.name == *name)).collect()
        };
        if order(old, new) != order(new, old) {
            self.push(How::Changed, "routes", vec!["order".to_owned()]);
        }
        for name in top(old, new) {
            self.push(How::Changed, name, Vec::new());
        }
    }

    /// Compares two lists of named things.
    fn things<T>(
        &mut self,
        kind: &str,
        old: &[(Arc<str>, T)],
        new: &[(Arc<str>, T)],
        differences: impl Fn(&T, &T) -> Vec<String>,
    ) {
        let find =
            |list: &'_ [(Arc<str>, T)], name: &str| list.iter().position(|it| *it.0 == *name);
        for (name, _) in old.iter().filter(|(name, _)| find(new, name).is_none()) {
            self.push(How::Removed, format!("{kind} {name}"), Vec::new());
        }
        for (name, thing) in new {
            let what = format!("{kind} {name}");
            match find(old, name).map(|at| differences(&old[at].1, thing)) {
                None => self.push(How::Added, what, Vec::new()),
                Some(settings) if settings.is_empty() => {}
                Some(settings) => self.push(How::Changed, what, settings),
            }
        }
    }

    /// Finds out what has to start anew.
    fn concern(&mut self, old: &Plan, new: &Plan) {
        self.claim_check = old.claim_check != new.claim_check || old.clouds != new.clouds;
        let everything = self.claim_check || old.lanes != new.lanes;
        let routing = everything
            || old.unmatched != new.unmatched
            || old.hops_max != new.hops_max
            || old.oversize() != new.oversize()
            || names(old, &old.dead_letters) != names(new, &new.dead_letters);
        for sink in &new.sinks {
            let known = old.sinks.iter().find(|it| it.name == sink.name);
            if everything || known.is_none_or(|known| known != sink) {
                self.new_sinks.insert(sink.name.clone());
            }
            if old.clouds != new.clouds || known.is_none_or(|known| known.config != sink.config) {
                self.new_connections.insert(sink.name.clone());
            }
        }
        for (index, source) in new.sources.iter().enumerate() {
            let known = old.sources.iter().position(|it| it.name == source.name);
            let Some(known) = known else {
                self.restarted.insert(source.name.clone());
                self.new_sources.insert(source.name.clone());
                continue;
            };
            let is_new = old.clouds != new.clouds || old.sources[known].config != source.config;
            if is_new {
                self.new_sources.insert(source.name.clone());
            }
            let (before, after) = (readers(old, known), readers(new, index));
            let same_routes = before.len() == after.len()
                && before.iter().zip(&after).all(|(before, after)| before.is(after));
            let uses_new = || {
                let new_sink = |sink: usize| self.new_sinks.contains(&new.sinks[sink].name);
                new.sinks_of(index).any(new_sink)
            };
            if is_new || routing || !same_routes || uses_new() {
                self.restarted.insert(source.name.clone());
            }
        }
    }
}

/// Why another place for the state needs a restart. Without `state` in the file, that place depends
/// on what else is in it.
fn another_state(old: &Plan, new: &Plan) -> String {
    match (old.needs_state(), new.needs_state()) {
        (None, Some(what)) => format!(
            "{what} is the first that needs `state`, and where that is kept cannot change while the \
             daemon runs; restart it. In a file that sets `state` from the start, this needs no \
             restart"
        ),
        (Some(what), None) => format!(
            "{what} was the last that needed `state`, and where that is kept cannot change while the \
             daemon runs; restart it, or set `state` as it was"
        ),
        _ => "`state` cannot change while the daemon runs; restart it, or set `state` as it was"
            .to_owned(),
    }
}

/// The settings at the top of the file that differ, and stand for no list of things.
fn top(old: &Plan, new: &Plan) -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(feature = "aws")]
    found.extend((old.clouds.aws != new.clouds.aws).then_some("aws"));
    #[cfg(feature = "azure")]
    found.extend((old.clouds.azure != new.clouds.azure).then_some("azure"));
    let differ = [
        (names(old, &old.dead_letters) != names(new, &new.dead_letters), "dead_letter"),
        (old.unmatched != new.unmatched, "unmatched"),
        (old.hops_max != new.hops_max, "hops_max"),
        (old.lanes != new.lanes, "lanes"),
        (old.claim_check != new.claim_check, "claim_check"),
        (old.grace != new.grace, "drain"),
        (old.reload != new.reload, "reload"),
        (old.admin != new.admin, "admin"),
    ];
    found.extend(differ.into_iter().filter_map(|(differs, name)| differs.then_some(name)));
    found
}

/// All routes by their names.
fn routes(plan: &Plan) -> Vec<(Arc<str>, Named<'_>)> {
    plan.routes.iter().map(|route| (route.name.clone(), Named::new(plan, route))).collect()
}

/// The routes that read a source, in the order of the file.
fn readers(plan: &Plan, source: usize) -> Vec<Named<'_>> {
    let routes = plan.routes.iter().filter(|route| route.from.contains(&source));
    routes.map(|route| Named::new(plan, route)).collect()
}

fn names(plan: &Plan, sinks: &[usize]) -> Vec<Arc<str>> {
    sinks.iter().map(|&sink| plan.sinks[sink].name.clone()).collect()
}

/// A route beside the plan that its indices are of.
struct Named<'p> {
    plan: &'p Plan,
    route: &'p RoutePlan,
}

impl<'p> Named<'p> {
    fn new(plan: &'p Plan, route: &'p RoutePlan) -> Self {
        Self { plan, route }
    }

    /// Whether a source that both read does not see a difference.
    fn is(&self, other: &Self) -> bool {
        let differences = self.differences(other);
        self.route.name == other.route.name && differences.iter().all(|it| it == "from")
    }

    /// The settings that differ.
    fn differences(&self, other: &Named<'_>) -> Vec<String> {
        let (RoutePlan { rule, .. }, there) = (self.route, &other.route.rule);
        let to = |it: &Named<'_>| {
            let mut name = |&sink: &usize| Some(it.plan.sinks[sink].name.clone());
            it.route.rule.choice.try_map(&mut name)
        };
        let from = |it: &Named<'_>| -> BTreeSet<Arc<str>> {
            it.route.from.iter().map(|&source| it.plan.sources[source].name.clone()).collect()
        };
        let lane = |it: &Named<'_>| {
            let lane = it.route.rule.lane.and_then(|lane| it.plan.lanes.get(lane));
            lane.map(|lane| lane.name.clone())
        };
        let parked = |it: &Named<'_>| names(it.plan, &it.route.dead_letters);
        let (route, theirs) = (self.route, other.route);
        let differ = [
            (from(self) != from(other), "from"),
            (rule.when != there.when, "when"),
            (rule.stop != there.stop, "stop"),
            (rule.sample != there.sample, "sample"),
            (rule.expire != there.expire, "expire"),
            (rule.transform != there.transform, "transform"),
            (route.dedup != theirs.dedup || rule.identity != there.identity, "dedup"),
            (rule.hold != there.hold, "hold"),
            (rule.rate != there.rate, "rate_limit"),
            (lane(self) != lane(other), "lane"),
            (to(self) != to(other), "to"),
            (parked(self) != parked(other), "dead_letter"),
            (route.retry != theirs.retry, "retry"),
            (route.oversize != theirs.oversize, "oversize"),
        ];
        let differ = differ.into_iter().filter(|(differs, _)| *differs);
        differ.map(|(_, name)| name.to_owned()).collect()
    }
}

/// The settings of a connector as a tree; a secret is its reference.
/// A sink as its file has it: its kind, and how it is treated.
fn sink(sink: &SinkPlan) -> Json {
    match (tree(&sink.config), tree(&sink.flow)) {
        (Json::Object(kind), Json::Object(flow)) => kind.into_iter().chain(flow).collect(),
        (kind, _) => kind,
    }
}

fn tree(config: &impl Serialize) -> Json {
    serde_json::to_value(config).unwrap_or_default()
}

/// The paths at which two trees differ. What stands there is not shown.
fn settings(old: &Json, new: &Json) -> Vec<String> {
    let (Json::Object(before), Json::Object(after)) = (old, new) else {
        return if old == new { Vec::new() } else { vec![String::new()] };
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let (before, after) = (before.get(name), after.get(name));
        let below = match (before, after) {
            (Some(before), Some(after)) => settings(before, after),
            _ => vec![String::new()],
        };
        found.extend(below.into_iter().map(|path| match path.as_str() {
            "" => name.clone(),
            path => format!("{name}.{path}"),
        }));
    }
    found
}

#[cfg(test)]
mod tests;
