//! The YAML file: what may stand in it, references to the environment and to secrets, and
//! everything that can be wrong with it, found at once.

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    admin::setting::Admin,
    claim::ClaimCheck,
    dedup::DedupConfig,
    deliver::oversize::Oversize,
    route::{
        IF, NAMES, Retry,
        lane::LaneConfig,
        rate::RateLimitConfig,
        sample::Sample,
        timing::{Expire, Hold},
    },
    source::SourceConfig,
    transform::{StepConfig, validate::Files},
};

mod advice;
mod check;
pub mod difference;
pub mod environment;
pub mod guarantee;
pub mod names;
pub mod plan;
pub mod problem;
mod read;
pub mod secret;
pub mod sink;
pub mod tree;
pub mod units;

use environment::Environment;
use names::Names;
use plan::{Plan, State, Unmatched};
use problem::{Problem, Problems, Severity};
use sink::SinkEntry;
use tree::{Node, Path, Place};
use units::Span;

/// The file as it stands. [`read`] makes a [`Plan`] of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(
    title = "Configuration of eventferry",
    description = "Sources, sinks, and the routes between them.",
    extend("$id" = "urn:eventferry:config:1")
)]
pub struct Config {
    /// Where checkpoints and the keys of `dedup` are kept. Without it: in `./data` if a source or
    /// route needs it, else nowhere.
    pub state: Option<State>,
    /// How to reach AWS, unless a source or sink says otherwise.
    #[cfg(feature = "aws")]
    pub aws: crate::cloud::aws::Config,
    /// How to reach Azure, unless a source or sink says otherwise.
    #[cfg(feature = "azure")]
    pub azure: crate::cloud::azure::Config,
    /// The HTTP listener for health, metrics, the page and the admin API.
    pub admin: Admin,
    /// Where traces, metrics and logs are sent by the OpenTelemetry protocol, beside `/metrics` and
    /// the standard error stream.
    #[cfg(feature = "otlp")]
    pub otlp: Option<crate::telemetry::otlp::Otlp>,
    /// What a stop waits for.
    pub drain: Drain,
    /// When this file is read again while the daemon runs, beside SIGHUP and `POST /reload`.
    pub reload: Reload,
    /// Where events come from, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Where events go, by name.
    pub sinks: BTreeMap<String, SinkEntry>,
    /// Which events go where. Every route that accepts an event delivers it.
    pub routes: Vec<RouteConfig>,
    /// The sink for events that no route takes, that cannot be decoded, or that a route without a
    /// `dead_letter` of its own cannot deliver: its name, or a list of names that are tried in
    /// their order.
    pub dead_letter: Option<Names>,
    /// What becomes of an event that no route takes.
    pub unmatched: Unmatched,
    /// Classes of events by name, which share every sink by their weights. Without any: one, or
    /// `urgent`, `normal` and `bulk` with weights of 16, 4 and 1 where a route names a lane.
    /// Events of no lane are in `normal`, or else in the lightest.
    pub lanes: Option<BTreeMap<String, LaneConfig>>,
    /// How many relays an event may have passed, this one included; one that has passed more runs
    /// in a loop, and is dead-lettered.
    pub hops_max: HopsMax,
    /// Where the bodies go of events that are too large for a sink, on routes that say so; and
    /// where references to such bodies are followed to.
    pub claim_check: Option<ClaimCheck>,
}

/// How many relays an event may have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HopsMax(pub u8);

impl Default for HopsMax {
    fn default() -> Self {
        Self(4)
    }
}

/// What a stop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long deliveries in progress may take to finish, at the end and where a reload replaces
    /// them; what is still open then is returned to its source.
    pub grace: Span,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: Span(Duration::from_secs(25)) }
    }
}

/// When the file is read again while the daemon runs, beside SIGHUP and `POST /reload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reload {
    /// Only then.
    OnRequest,
    /// Also when it has changed, which is looked for this often.
    Watch(Span),
}

impl Default for Reload {
    fn default() -> Self {
        Self::Watch(Span(Duration::from_secs(5)))
    }
}

/// A way from sources to sinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name in logs, metrics and dead letters.
    pub name: String,
    /// Names of the sources it reads: one, or a list.
    pub from: Names,
    /// Which events it takes: all, or those that match this pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<PatternConfig>,
    /// Whether an event that this route takes is not shown to the routes after it.
    #[serde(default)]
    pub stop: bool,
    /// The share of these events that is sent, such as `10%`; chosen by their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// What becomes of events that come too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<Expire>,
    /// What is made of them before they are sent: steps, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transform: Vec<StepConfig>,
    /// How it knows events that it has delivered before, which it does not deliver again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupConfig>,
    /// How long they are kept before they are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// How many of them are sent in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitConfig>,
    /// The lane of all of them, one of the file's `lanes`; without, each takes its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Where they go.
    pub to: To,
    /// The sink for what cannot be delivered, in place of the file's `dead_letter`: its name, or a
    /// list of names that are tried in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<Names>,
    /// How often and how fast delivery is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// What becomes of events that are too large for a sink.
    #[serde(default)]
    pub oversize: Oversize,
}

/// An event pattern, in the language of Amazon EventBridge: fields, and for each the list of the
/// values and tests of which one must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PatternConfig(pub serde_json::Map<String, serde_json::Value>);

impl JsonSchema for PatternConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let tests = || json!({ "type": ["array", "object"] });
        let names = NAMES.map(|name| (name.to_owned(), tests()));
        let properties: serde_json::Map<_, _> = names
            .into_iter()
            .chain([
                ("$or".to_owned(), json!({ "type": "array" })),
                (IF.to_owned(), json!({ "type": "string" })),
            ])
            .collect();
        schemars::json_schema!({
            "description": "Which events: fields, and for each the list of the values and tests of \
                which one must hold, as in an event pattern of Amazon EventBridge.",
            "type": "object",
            "properties": properties,
            // Nested, or in one with dots.
            "patternProperties": { r"^(data|attributes)\.": tests() },
            "additionalProperties": false,
        })
    }
}

/// Where a route's events go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[serde(expecting = "`all`, `first`, `any` or `balance` with its sinks, such as `{ all: [name] }`")]
pub enum To {
    /// To every one of these sinks; an event is delivered when all of them have confirmed it.
    All(Vec<String>),
    /// Directed: to the sinks of the first case that matches.
    First(Vec<CaseConfig>),
    /// Failover: to the first of these sinks that works and takes the event.
    Any(Vec<String>),
    /// To one of several sinks, which share the load.
    Balance(BalanceConfig),
}

/// A case of a directed route: `when` and `to`, or `otherwise`, which is the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Case")]
pub struct CaseConfig {
    /// Which events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<PatternConfig>,
    /// The sinks that they go to: one, or a list, all of which take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Names>,
    /// The sinks for events of no case before. Without it, the route does not take those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Names>,
}

/// How sinks share the load of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "Balance")]
pub enum BalanceConfig {
    /// One after the other.
    RoundRobin(Vec<String>),
    /// By weights, from 1 to 1000: with `{ a: 9, b: 1 }`, nine of ten go to `a`.
    Weighted(BTreeMap<String, u32>),
    /// To whichever has the fewest events of the route under way.
    LeastInFlight(Vec<String>),
    /// The events of a key always to the same one, those without a key by their ids.
    Sticky(Vec<String>),
}

/// A file that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// What it comes to.
    pub plan: Plan,
    /// What will probably not do what is wanted.
    pub warnings: Problems,
}

/// Reads and checks the file at `path`. Opens nothing else: secrets are read when a source or sink
/// connects.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &FilePath, environment: &Environment) -> Result<Checked, Problems> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => read(&file, &text, environment),
        Err(error) => {
            Err(Problems { file, all: vec![whole(None, format!("cannot read: {error}"))] })
        }
    }
}

/// Reads and checks `text`, which findings call `file`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(file: &str, text: &str, environment: &Environment) -> Result<Checked, Problems> {
    let mut problems = Problems { file: file.to_owned(), all: Vec::new() };
    let mut tree = match Node::parse(text) {
        Ok(tree) => tree,
        Err(error) => {
            problems.all.push(syntax(&error, text));
            return Err(problems);
        }
    };
    for variable in environment.override_in(&mut tree) {
        let place = Some(Place::Variable(variable.to_owned()));
        problems.all.push(whole(place, "names no place in the file".to_owned()));
    }
    let config: Option<Config> = read::read(&mut tree, environment, &mut problems.all);
    let folder = FilePath::new(file).parent().unwrap_or(FilePath::new(""));
    let settings = Arc::new(serde_json::to_value(&config).unwrap_or_default());
    let plan = config.map(|config| check::check(config, &tree, folder, &mut problems.all));
    let plan = plan.map(|plan| {
        let generation = generation(text, &plan.files());
        Plan { generation, settings, ..plan }
    });
    // Advice on a file that is wrong would be about what is left of it.
    if let Some(plan) = plan.as_ref().filter(|_| problems.is_usable()) {
        problems.all.extend(advice::advice(plan).into_iter().map(|(path, text)| Problem {
            place: Some(tree.place_of(&path).clone()),
            path,
            severity: Severity::Warning,
            text,
        }));
    }
    problems.sort();
    match plan {
        Some(plan) if problems.is_usable() => Ok(Checked { plan, warnings: problems }),
        _ => Err(problems),
    }
}

/// What tells this text of a file, with the files that it names, from any other: the beginning of
/// its SHA-256. Where it names files, what is digested is the text and then the SHA-256 of each of
/// them, in the order of their paths.
#[must_use]
pub fn generation(text: &str, files: &Files) -> Arc<str> {
    let digest = files.values().fold(Sha256::new_with_prefix(text), Sha256::chain_update);
    let digits = digest.finalize();
    let digits = digits.iter().take(6).map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

/// A finding about the file as a whole.
fn whole(place: Option<Place>, text: String) -> Problem {
    Problem { path: Path::default(), place, severity: Severity::Error, text }
}

/// What the parser found in `file`. Its own text names the place once more, at the end.
fn syntax(error: &serde_saphyr::Error, file: &str) -> Problem {
    let location = error.location();
    let place = location.map(|at| Place::File { line: at.line(), column: at.column() });
    if let serde_saphyr::Error::DuplicateMappingKey { key: Some(name), .. } = error {
        return whole(place, format!("`{name}` is given twice here; take one out"));
    }
    if let serde_saphyr::Error::Budget { .. } = error {
        return whole(place, "nested too deeply, or expanded too often by aliases".to_owned());
    }
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    let line = location.and_then(|at| usize::try_from(at.line()).ok());
    let line = line.and_then(|line| file.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    let hint = match line.contains("${") {
        true => "; between braces or brackets, `\"${NAME}\"` needs its quotes",
        false => "",
    };
    whole(place, format!("not YAML: {text}{hint}"))
}
