//! From settings to a plan: resolves every name, keeps every bound, and reports all that fails.

use std::{
    collections::BTreeMap, fmt::Display, ops::RangeInclusive, path::Path as FilePath,
    time::Duration,
};

use super::{
    Config, PatternConfig, Reload,
    plan::{Plan, RoutePlan, SinkPlan, SourcePlan, State, Unmatched},
    problem::{Finding, Problem, Severity, listed, suggestion},
    sink::SinkEntry,
    tree::{Node, Path, Place, Value},
    units::{Size, Span},
};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::Exported;
use crate::{
    cloud::Clouds,
    deliver::oversize::Oversize,
    route::When,
    sink::{SinkConfig, memory},
    source::{InFlight, SourceConfig},
};

mod route;

/// Longer than any supervisor waits after it has asked a process to stop.
const GRACE: RangeInclusive<Span> =
    Span(Duration::from_secs(1))..=Span(Duration::from_secs(60 * 60));
const WATCH: RangeInclusive<Span> =
    Span(Duration::from_secs(1))..=Span(Duration::from_secs(60 * 60));
const HOPS: RangeInclusive<u8> = 1..=100;
const IN_FLIGHT_EVENTS: RangeInclusive<usize> = 1..=1_000_000;
const IN_FLIGHT_BYTES: RangeInclusive<Size> = Size(64 << 10)..=Size(16 << 30);
/// Names go into metric labels and dead letters.
const NAME_LENGTH_MAX: usize = 64;

/// Makes a plan of `config`, which was read from `tree`. The plan is right if nothing is reported
/// here and nothing was struck from the tree.
pub(super) fn check(
    config: Config,
    tree: &Node,
    folder: &FilePath,
    problems: &mut Vec<Problem>,
) -> Plan {
    let top = Path::default();
    let mut check = Check { tree, folder, problems, names_failed: false };
    check.bound(&top.name("drain").name("grace"), config.drain.grace, &GRACE);
    if let Reload::Watch(every) = config.reload {
        check.bound(&top.name("reload").name("watch"), every, &WATCH);
    }
    let clouds = Clouds {
        #[cfg(feature = "aws")]
        aws: config.aws,
        #[cfg(feature = "azure")]
        azure: config.azure,
    };
    #[cfg(feature = "azure")]
    check.connector(&top, clouds.azure.problems());
    check.sources(&config.sources, &clouds);
    check.sinks(&config.sinks, &clouds);
    let targets =
        Targets { sources: indices(config.sources.keys()), sinks: indices(config.sinks.keys()) };
    let dead_letters =
        check.dead_letters(&top.name("dead_letter"), config.dead_letter.as_ref(), &targets);
    let lanes = check.lanes(config.lanes, &config.routes);
    let routes = check.routes(&config.routes, &targets, &dead_letters, &lanes);
    check.holds(&config.sources, &routes);
    let needs_state = config.sources.values().any(is_log)
        || config.routes.iter().any(|route| route.dedup.is_some());
    let plan = Plan {
        state: config.state.unwrap_or(match needs_state {
            true => State::default(),
            false => State::Memory,
        }),
        clouds,
        admin: config.admin.into(),
        #[cfg(feature = "otlp")]
        otlp: config.otlp,
        grace: *config.drain.grace,
        reload: config.reload,
        generation: "".into(),
        settings: std::sync::Arc::default(),
        sources: config
            .sources
            .into_iter()
            .map(|(name, config)| SourcePlan { name: name.into(), config })
            .collect(),
        sinks: config.sinks.into_iter().map(sink_plan).collect(),
        routes,
        dead_letters,
        unmatched: config.unmatched,
        hops_max: config.hops_max.0,
        claim_check: config.claim_check,
        lanes: lanes.into(),
    };
    check.bound(&top.name("hops_max"), config.hops_max.0, &HOPS);
    check.claim_check(&plan);
    check.admin(&plan);
    #[cfg(feature = "otlp")]
    if let Some(config) = &plan.otlp {
        let path = top.name("otlp");
        check.connector(&path, config.problems());
        for name in config.traces_by_route.keys() {
            if plan.routes.iter().all(|route| *route.name != **name) {
                let at = path.name("traces_by_route").name(name);
                check.error(&at, format!("there is no route `{name}`; name one of `routes`"));
            }
        }
        if let Exported::Every(every) = config.metrics {
            check.bound(&path.name("metrics").name("every"), every, &WATCH);
        }
    }
    #[cfg(feature = "redis")]
    if let State::Redis(config) = &plan.state {
        check.connector(&top.name("state").name("redis"), config.problems());
    }
    check.keys(&plan);
    #[cfg(feature = "azure")]
    check.sharing(&plan);
    check.coverage(&plan);
    plan
}

/// One of several kinds, or of none, is not used: it has been reported, and only its place counts.
fn sink_plan((name, entry): (String, SinkEntry)) -> SinkPlan {
    let nothing = || SinkConfig::Memory(memory::Config::named(&name));
    let (config, flow) = (entry.kind().unwrap_or_else(nothing), entry.flow());
    SinkPlan { name: name.into(), config, flow }
}

fn is_log(config: &SourceConfig) -> bool {
    config.kind().is_some_and(|kind| kind.nature().is_log)
}

/// What routes can name, and where it is in the plan.
struct Targets<'a> {
    sources: BTreeMap<&'a str, usize>,
    sinks: BTreeMap<&'a str, usize>,
}

fn indices<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    names.enumerate().map(|(index, name)| (name.as_str(), index)).collect()
}

struct Check<'a> {
    tree: &'a Node,
    /// Where relative paths of files start.
    folder: &'a FilePath,
    problems: &'a mut Vec<Problem>,
    /// A name could not be resolved, so that what seems unused may be what was meant.
    names_failed: bool,
}

impl Check<'_> {
    /// Reports, unless something below `path` has been reported and would only be echoed.
    fn error(&mut self, path: &Path, text: impl Into<String>) {
        if self.tree.find(path).is_some_and(Node::is_damaged) {
            return;
        }
        self.problems.push(Problem {
            path: path.clone(),
            place: Some(self.tree.place_of(path).clone()),
            severity: Severity::Error,
            text: text.into(),
        });
    }

    /// A value as the file has it: a reference to the environment stays a reference.
    fn shown(&self, path: &Path, resolved: &str) -> String {
        match self.tree.find(path) {
            Some(Node { place: Place::Variable(name), .. }) => format!("${name}"),
            Some(Node { value: Value::Scalar(raw), .. }) => raw.clone(),
            _ => resolved.to_owned(),
        }
    }

    fn bound<T: PartialOrd + Display>(&mut self, path: &Path, value: T, range: &RangeInclusive<T>) {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            self.error(
                path,
                format!("{value} is out of bounds; from {least} to {most} is allowed"),
            );
        }
    }

    fn name(&mut self, path: &Path, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(allowed) {
            let name = self.shown(path, name);
            self.error(path, format!(
                "`{name}` cannot be a name; use up to {NAME_LENGTH_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`"
            ));
        }
    }

    fn sources(&mut self, sources: &BTreeMap<String, SourceConfig>, clouds: &Clouds) {
        let all = Path::default().name("sources");
        if sources.is_empty() {
            self.error(&all, "there is none; name at least one queue or hub to read from");
        }
        for (name, config) in sources {
            let path = all.name(name);
            self.name(&path, name);
            self.in_flight(&path.name("max_in_flight"), config.max_in_flight);
            let given = self.kinds(&path, SourceConfig::KINDS);
            match (config.kind(), given.as_slice()) {
                (Some(kind), [given, ..]) => {
                    self.connector(&path.name(*given), kind.problems(clouds));
                }
                (_, []) => {
                    let kinds = listed(SourceConfig::KINDS);
                    self.error(&path, format!("of what kind is it? name one of {kinds}"));
                }
                (_, given) => {
                    let given = listed(given);
                    self.error(
                        &path,
                        format!("{given} are several sources; give each its own name"),
                    );
                }
            }
        }
    }

    fn kinds(&self, path: &Path, kinds: &[&'static str]) -> Vec<&'static str> {
        let given = self.tree.names(path);
        kinds.iter().copied().filter(|kind| given.contains(kind)).collect()
    }

    fn in_flight(&mut self, path: &Path, bound: InFlight) {
        self.bound(&path.name("events"), bound.events, &IN_FLIGHT_EVENTS);
        self.bound(&path.name("bytes"), bound.bytes, &IN_FLIGHT_BYTES);
    }

    fn sinks(&mut self, sinks: &BTreeMap<String, SinkEntry>, clouds: &Clouds) {
        let all = Path::default().name("sinks");
        if sinks.is_empty() {
            self.error(&all, "there is none; name at least one queue, topic or hub to write to");
        }
        for (name, config) in sinks {
            let path = all.name(name);
            self.name(&path, name);
            let given = self.kinds(&path, SinkEntry::KINDS);
            match (config.kind(), given.as_slice()) {
                (Some(kind), [given, ..]) => {
                    self.connector(&path.name(*given), kind.problems(clouds));
                }
                (_, []) => {
                    let kinds = listed(SinkEntry::KINDS);
                    self.error(&path, format!("of what kind is it? name one of {kinds}"));
                }
                (_, given) => {
                    let given = listed(given);
                    self.error(&path, format!("{given} are several sinks; give each its own name"));
                }
            }
            self.findings(&path.name("limit"), config.limit.findings());
            self.findings(&path.name("concurrency"), config.concurrency.findings());
            self.findings(&path.name("breaker"), config.breaker.findings());
        }
    }

    /// Reports what a connector finds wrong with its own settings.
    fn connector(&mut self, path: &Path, problems: Vec<(&'static str, String)>) {
        for (field, text) in problems {
            let names = field.split('.').filter(|name| !name.is_empty());
            self.error(&names.fold(path.clone(), |path, name| path.name(name)), text);
        }
    }

    /// Callers can be limited to routes that there are, and only what is asked can be audited.
    fn admin(&mut self, plan: &Plan) {
        let path = Path::default().name("admin");
        // What was struck from a list would have the rest of it counted wrongly.
        if self.tree.find(&path).is_some_and(Node::is_damaged) {
            return;
        }
        if let Some(listener) = &plan.admin {
            let routes = plan.routes.iter().map(|route| &*route.name).collect();
            return self.findings(&path, listener.findings(&routes));
        }
        for source in plan.sources.iter().filter(|source| source.config.audit.is_some()) {
            let path = Path::default().name("sources").name(&*source.name).name("audit");
            let text = "with `admin: off` nobody can change anything, so that there is nothing to \
                        read; open the listener, or take this source out";
            self.error(&path, text);
        }
    }

    /// Bodies can go elsewhere only if it is said where, and changed only if that can be said.
    fn claim_check(&mut self, plan: &Plan) {
        let top = Path::default();
        if let Some(config) = &plan.claim_check {
            for (kind, field, text) in config.problems(&plan.clouds) {
                let path = top.name("claim_check").name("store").name(kind);
                self.connector(&path, vec![(field, text)]);
            }
        }
        for (index, route) in plan.routes.iter().enumerate() {
            let path = top.name("routes").index(index);
            if route.oversize == Oversize::ClaimCheck && plan.claim_check.is_none() {
                let text = "say where the bodies go with `claim_check: { store: ... }` at the top";
                self.error(&path.name("oversize"), text);
            }
            let raw = |index: usize| plan.sinks.get(index).filter(|s| !s.config.holds_marks());
            if route.oversize == Oversize::DeadLetter {
                continue;
            }
            if let Some(sink) = route.sinks.iter().find_map(|(index, _)| raw(*index)) {
                let text = format!(
                    "messages of `{}` cannot say how their bodies were made to fit; give the sink \
                     `format: cloud_events`, or take `oversize` out",
                    sink.name
                );
                self.error(&path.name("oversize"), text);
            }
        }
    }

    /// Keys of delivered events need a store that can hold them.
    fn keys(&mut self, plan: &Plan) {
        if plan.state.holds_keys() {
            return;
        }
        for (index, route) in plan.routes.iter().enumerate().filter(|(_, it)| it.dedup.is_some()) {
            let path = Path::default().name("routes").index(index).name("dedup");
            let name = &route.name;
            self.error(
                &path,
                format!(
                    "`state: blob` cannot hold the keys of what `{name}` has delivered; \
                 use `state: embedded` for one replica, or `state: redis` for many"
                ),
            );
        }
    }

    /// Replicas share partitions by a store that they share.
    #[cfg(feature = "azure")]
    fn sharing(&mut self, plan: &Plan) {
        if plan.state.is_shared() {
            return;
        }
        for source in &plan.sources {
            let Some(crate::source::Kind::EventHubs(config)) = source.config.kind() else {
                continue;
            };
            if config.sharing.is_some() {
                let path = Path::default().name("sources").name(&*source.name);
                let text = "this `state` is of one replica, which has all partitions; use \
                            `state: redis` or `state: blob` to share them, or take `sharing` out";
                self.error(&path.name("event_hubs").name("sharing"), text);
            }
        }
    }

    /// The names of a list, and where each stands.
    fn listed<'n>(&self, path: &Path, names: &'n [String]) -> Vec<(Path, &'n str)> {
        self.tree.items(path).into_iter().zip(names.iter().map(String::as_str)).collect()
    }

    fn resolve_all(
        &mut self,
        path: &Path,
        names: &[(Path, &str)],
        of: &str,
        targets: &BTreeMap<&str, usize>,
    ) -> Vec<(usize, Path)> {
        if names.is_empty() {
            self.names_failed = true;
            self.error(path, format!("name at least one of the {of}"));
        }
        let mut found: Vec<(usize, Path)> = Vec::new();
        for (path, name) in names {
            match self.resolve(path, name, of, targets) {
                Some(index) if found.iter().any(|(seen, _)| *seen == index) => {
                    let name = self.shown(path, name);
                    self.error(path, format!("`{name}` is listed twice; take one out"));
                }
                index => found.extend(index.map(|index| (index, path.clone()))),
            }
        }
        found
    }

    fn resolve(
        &mut self,
        path: &Path,
        name: &str,
        of: &str,
        targets: &BTreeMap<&str, usize>,
    ) -> Option<usize> {
        let index = targets.get(name).copied();
        if index.is_none() {
            self.names_failed = true;
            // One that is in the file but not in `targets` is broken, and has been reported.
            let known = self.tree.names(&Path::default().name(of));
            if !known.contains(&name) {
                let suggestion = suggestion(name, known);
                let shown = self.shown(path, name);
                // A sink that is given a weight is the name of a setting, and not its value.
                let name = if shown.starts_with('$') { &shown } else { name };
                self.error(path, format!("`{name}` is not one of the {of}; {suggestion}"));
            }
        }
        index
    }

    fn when(&mut self, path: &Path, pattern: Option<&PatternConfig>) -> When {
        let Some(PatternConfig(pattern)) = pattern else { return When::default() };
        When::read(pattern).unwrap_or_else(|errors| {
            self.findings(path, errors);
            When::default()
        })
    }

    /// Reports what is wrong with the part of the file at `path`.
    fn findings(&mut self, path: &Path, findings: Vec<Finding>) {
        for Finding { path: further, at, text } in findings {
            let path = path.join(&further);
            let place = at.and_then(|(line, column)| self.tree.place_within(&path, line, column));
            match place {
                Some(place) => {
                    self.problems.push(Problem {
                        path,
                        place: Some(place),
                        severity: Severity::Error,
                        text,
                    });
                }
                None => self.error(&path, text),
            }
        }
    }

    /// Whether every event of every source has somewhere to go.
    fn coverage(&mut self, plan: &Plan) {
        let routes = Path::default().name("routes");
        let is_damaged = self.tree.find(&routes).is_some_and(Node::is_damaged);
        if is_damaged || self.names_failed || plan.routes.is_empty() {
            return;
        }
        let parked = plan.unmatched == Unmatched::Drop || !plan.dead_letters.is_empty();
        for (index, source) in plan.sources.iter().enumerate() {
            let path = Path::default().name("sources").name(&*source.name);
            let mut readers = plan.routes.iter().filter(|route| route.from.contains(&index));
            let Some(first) = readers.next() else {
                self.error(&path, "no route reads it; name it in a route's `from`, or take it out");
                continue;
            };
            let selective = |route: &RoutePlan| !route.rule.takes_all();
            if !parked && selective(first) && readers.all(selective) {
                self.error(
                    &path,
                    "its events that no route takes have nowhere to go; \
                     name a `dead_letter` sink at the top, or say `unmatched: drop`",
                );
            }
        }
    }
}
