//! What an operator does to a daemon that runs: pause and resume, limit a route or a sink or leave it
//! alone, go back in a log, end. The daemon forgets all of it when it restarts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::{Method, StatusCode},
    routing::{delete, get, post, put},
};
use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    audit::Change,
    endpoint::{Answer, Endpoint, Role, Scope, describe},
};
use crate::{
    cloud::Context,
    daemon::operation::{Operation, Paused, Pausing, Refused},
    deliver::bucket::LimitConfig,
    route::rate::{Over, Pace, RateLimitConfig},
    source::{
        SourceConfig,
        positions::{Positions, Rewind, Rewound, Standing, rewind},
    },
};

/// How long a service may take to say how its partitions stand.
const ASK_MAX: Duration = Duration::from_secs(20);

/// All of it.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let change = Endpoint::change;
    let operator = Role::Operator;
    vec![
        Endpoint {
            answer: Answer::Json(describe::<Sources>),
            ..change(
                "/sources/{source}/pause",
                "pause_source",
                "Receives nothing more of a source until it is resumed; what is in flight goes on.",
                operator,
                Scope::Source,
                post(pause_source),
            )
        },
        Endpoint {
            answer: Answer::Json(describe::<Sources>),
            ..change(
                "/sources/{source}/resume",
                "resume_source",
                "Goes on with a source that is paused.",
                operator,
                Scope::Source,
                post(resume_source),
            )
        },
        Endpoint {
            body: Some(describe::<PauseRoute>),
            answer: Answer::Json(describe::<Sources>),
            ..change(
                "/routes/{route}/pause",
                "pause_route",
                "Pauses all sources of a route.",
                operator,
                Scope::Route,
                post(pause_route),
            )
        },
        Endpoint {
            body: Some(describe::<PauseRoute>),
            answer: Answer::Json(describe::<Sources>),
            ..change(
                "/routes/{route}/resume",
                "resume_route",
                "Resumes all sources of a route.",
                operator,
                Scope::Route,
                post(resume_route),
            )
        },
        Endpoint {
            method: Method::PUT,
            body: Some(describe::<LimitConfig>),
            answer: Answer::Json(describe::<LimitConfig>),
            ..change(
                "/sinks/{sink}/limit",
                "limit_sink",
                "Sends a sink no more than this in a second, in place of what the file says.",
                operator,
                Scope::Sink,
                put(limit),
            )
        },
        Endpoint {
            method: Method::DELETE,
            answer: Answer::Json(describe::<LimitConfig>),
            ..change(
                "/sinks/{sink}/limit",
                "unlimit_sink",
                "Goes back to the limit of the file.",
                operator,
                Scope::Sink,
                delete(unlimit),
            )
        },
        Endpoint {
            method: Method::PUT,
            body: Some(describe::<Pace>),
            answer: Answer::Json(describe::<RouteLimit>),
            ..change(
                "/routes/{route}/limit",
                "limit_route",
                "Passes on no more than this through a route, in place of what the file says. Its \
                 sources start anew.",
                operator,
                Scope::Route,
                put(limit_route),
            )
        },
        Endpoint {
            method: Method::DELETE,
            answer: Answer::Json(describe::<RouteLimit>),
            ..change(
                "/routes/{route}/limit",
                "unlimit_route",
                "Goes back to the rate limit of the file, if it has one. The route's sources start \
                 anew.",
                operator,
                Scope::Route,
                delete(unlimit_route),
            )
        },
        Endpoint {
            body: Some(describe::<SetBreaker>),
            answer: Answer::Json(describe::<SetBreaker>),
            ..change(
                "/sinks/{sink}/breaker",
                "set_breaker",
                "Leaves a sink alone until its breaker is closed again; its events wait.",
                operator,
                Scope::Sink,
                post(set_breaker),
            )
        },
        Endpoint {
            answer: Answer::Json(describe::<Checkpoints>),
            ..Endpoint::read(
                "/checkpoints",
                "checkpoints",
                "How far the partitions of the sources are read that are logs.",
                get(checkpoints),
            )
        },
        Endpoint {
            body: Some(describe::<Rewind>),
            answer: Answer::Json(describe::<RewindAnswer>),
            ..change(
                "/sources/{source}/rewind",
                "rewind_source",
                "Has events of a log come again, or says which would.",
                Role::Admin,
                Scope::Source,
                post(rewind_source),
            )
        },
        change(
            "/drain",
            "drain",
            "Ends the daemon as SIGTERM does: what is in flight finishes or goes back.",
            Role::Admin,
            Scope::Daemon,
            post(drain),
        ),
    ]
}

/// The sources that something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sources {
    /// Their names.
    pub sources: Vec<String>,
    /// Whether they are paused now. A long poll under way may still bring events until it ends.
    pub paused: bool,
}

/// How much a route passes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteLimit {
    /// None if all of it.
    pub rate_limit: Option<RateLimitConfig>,
}

/// How to pause a route, or to resume it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PauseRoute {
    /// Whether other routes that read the same sources may be stopped or go on with it.
    pub with_others: bool,
}

/// What becomes of a breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBreaker {
    /// `open`: the sink is left alone until this is asked for with `closed`, which also ends
    /// every wait for it to work again: what has failed there is tried at once.
    pub state: Wanted,
}

/// What a breaker can be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WantedBreaker")]
pub enum Wanted {
    /// The sink is left alone.
    Open,
    /// It is sent to.
    Closed,
}

/// How far logs are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoints {
    /// Every partition of every source that has some.
    pub partitions: Vec<PartitionStatus>,
    /// Sources that could not be asked, and why, a line each.
    pub problems: Vec<String>,
}

/// How far a partition is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionStatus {
    /// The name of the source.
    pub source: String,
    /// Its id.
    pub partition: String,
    /// The replica that reads it, where replicas share the partitions and one does.
    pub owner: Option<String>,
    /// Up to here everything is settled; none if nothing is. Written every second.
    pub checkpoint: Option<CheckpointStatus>,
    /// The number of the oldest event that is kept, or of the next one where none is.
    pub first_sequence_number: i64,
    /// The number of the newest event.
    pub last_sequence_number: i64,
    /// Events that are kept and not settled.
    pub lag: u64,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointStatus {
    /// Of the last event that is settled.
    pub sequence_number: i64,
    /// Of the same event, as the service writes it.
    pub offset: String,
}

/// What going back means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RewindAnswer {
    /// The name of the source.
    pub source: String,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What it means for each partition.
    pub partitions: Vec<Rewound>,
    /// What to know of it, a line each.
    pub notes: Vec<String>,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        use axum::http::StatusCode;
        let detail = refused.to_string();
        match refused {
            Refused::Unknown { kind, name } => Self::unknown(kind, &name),
            Refused::Invalid(_) => Self::invalid(detail),
            Refused::Conflict(_) => Self::conflict(detail),
            Refused::Unusable(_) => Self::new(StatusCode::BAD_GATEWAY, "service", detail),
            Refused::Ending => Self::unavailable(),
        }
    }
}

/// What a body says in JSON; nothing said is what holds without a word, where there is such.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| Refusal::invalid(format!("the body: {error}")))
}

async fn pause_source(State(api): State<Api>, Path(name): Path<String>) -> Changed<Sources> {
    pause(&api, Paused::Source(name.into()), true).await
}

async fn resume_source(State(api): State<Api>, Path(name): Path<String>) -> Changed<Sources> {
    pause(&api, Paused::Source(name.into()), false).await
}

async fn pause_route(
    api: State<Api>,
    caller: Extension<Caller>,
    name: Path<String>,
    body: Bytes,
) -> Changed<Sources> {
    of_route(api, caller, name, body, true).await
}

async fn resume_route(
    api: State<Api>,
    caller: Extension<Caller>,
    name: Path<String>,
    body: Bytes,
) -> Changed<Sources> {
    of_route(api, caller, name, body, false).await
}

/// An answer, and what the audit log is told.
type Changed<T> = Result<(Extension<Change>, Json<T>), Refusal>;

fn changed<T>(answer: T, before: Value, after: Value) -> (Extension<Change>, Json<T>) {
    (Extension(Change { before: Some(before), after: Some(after) }), Json(answer))
}

async fn of_route(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
    paused: bool,
) -> Changed<Sources> {
    let PauseRoute { with_others } = read(&body)?;
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let all_are_theirs = caller.has_sources_of(&plan, &name);
    if with_others && !all_are_theirs {
        let text = "you are limited to some routes, and `with_others` is about all that read the \
                    same sources";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", text));
    }
    let paused = pause(&api, Paused::Route { name: name.into(), with_others }, paused).await;
    paused.map_err(|refusal| match refusal.status == StatusCode::CONFLICT && !all_are_theirs {
        // Whose routes these are is not theirs to know.
        true => Refusal::conflict(
            "other routes read the sources of this one as well: ask somebody who may stop those",
        ),
        false => refusal,
    })
}

async fn pause(api: &Api, what: Paused, paused: bool) -> Changed<Sources> {
    let pausing = Pausing { what, paused };
    let were = api.operations.ask(|answer| Operation::Pause(pausing, answer)).await?;
    let sources: Vec<_> = were.keys().map(ToString::to_string).collect();
    let are: BTreeMap<_, _> = were.keys().map(|name| (name, paused)).collect();
    let (before, after) = (json!({ "paused": were }), json!({ "paused": are }));
    Ok(changed(Sources { sources, paused }, before, after))
}

async fn limit(
    State(api): State<Api>,
    Path(sink): Path<String>,
    body: Bytes,
) -> Changed<LimitConfig> {
    let limit: LimitConfig = read(&body)?;
    if limit == LimitConfig::default() {
        return Err(Refusal::invalid(
            "say `events_per_second`, `bytes_per_second` or both; DELETE goes back to the file's",
        ));
    }
    set_limit(&api, sink, Some(limit)).await
}

async fn unlimit(State(api): State<Api>, Path(sink): Path<String>) -> Changed<LimitConfig> {
    set_limit(&api, sink, None).await
}

async fn set_limit(api: &Api, sink: String, limit: Option<LimitConfig>) -> Changed<LimitConfig> {
    let ask = |answer| Operation::Limit(sink.into(), limit, answer);
    let (before, after) = api.operations.ask(ask).await?;
    Ok(changed(after, json!({ "limit": before }), json!({ "limit": after })))
}

async fn limit_route(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
    body: Bytes,
) -> Changed<RouteLimit> {
    let pace: Pace = read(&body)?;
    set_pace(&api, &caller, route, Some(pace)).await
}

async fn unlimit_route(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(route): Path<String>,
) -> Changed<RouteLimit> {
    set_pace(&api, &caller, route, None).await
}

async fn set_pace(
    api: &Api,
    caller: &Caller,
    route: String,
    pace: Option<Pace>,
) -> Changed<RouteLimit> {
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let of_file = plan.routes.iter().find(|it| *it.name == *route).and_then(|it| it.rate_limit);
    // Whoever may slow a route down may not throw away what it carries.
    if of_file.is_some_and(|it| it.over == Over::Drop) && caller.role < Role::Admin {
        let text = "the route drops what is over its limit, so that another one throws events away: \
                    ask an admin";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", text));
    }
    if !caller.has_sources_of(&plan, &route) {
        // Whose routes these are is not theirs to know.
        return Err(Refusal::conflict(
            "other routes read the sources of this one as well, and would start anew with it: ask \
             somebody who may do that",
        ));
    }
    let ask = |answer| Operation::LimitRoute(route.into(), pace, answer);
    let (before, after) = api.operations.ask(ask).await?;
    Ok(changed(
        RouteLimit { rate_limit: after },
        json!({ "rate_limit": before }),
        json!({ "rate_limit": after }),
    ))
}

async fn set_breaker(
    State(api): State<Api>,
    Path(sink): Path<String>,
    body: Bytes,
) -> Changed<SetBreaker> {
    let set: SetBreaker = read(&body)?;
    let held = set.state == Wanted::Open;
    let was = api.operations.ask(|answer| Operation::Hold(sink.into(), held, answer)).await?;
    Ok(changed(set, json!({ "held": was }), json!({ "held": held })))
}

async fn checkpoints(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Checkpoints>, Refusal> {
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let sources = api.operations.ask(Operation::Sources).await?;
    let seen = sources.iter().filter(|(_, context)| caller.sees_source(&plan, &context.name));
    let asked = seen.map(|(config, context)| standings(config, context));
    let mut told = Checkpoints { partitions: Vec::new(), problems: Vec::new() };
    for asked in join_all(asked).await {
        match asked {
            Ok(partitions) => told.partitions.extend(partitions),
            Err(problem) => told.problems.push(problem),
        }
    }
    Ok(Json(told))
}

/// How a source stands; no partitions where it has none.
async fn standings(
    config: &SourceConfig,
    context: &Context,
) -> Result<Vec<PartitionStatus>, String> {
    let Some(positions) = config.positions(context) else { return Ok(Vec::new()) };
    let asked = timeout(ASK_MAX, async { positions?.standings().await }).await;
    let standings = match asked {
        Ok(Ok(standings)) => standings,
        Ok(Err(fault)) => return Err(format!("source {}: {fault}", context.name)),
        Err(_) => return Err(format!("source {}: does not answer in time", context.name)),
    };
    let status = |standing: Standing| PartitionStatus {
        source: context.name.to_string(),
        lag: standing.lag(),
        partition: standing.partition,
        owner: standing.owner.map(|owner| owner.name),
        checkpoint: standing
            .checkpoint
            .map(|at| CheckpointStatus { sequence_number: at.sequence, offset: at.offset }),
        first_sequence_number: standing.first,
        last_sequence_number: standing.last,
    };
    Ok(standings.into_iter().map(status).collect())
}

async fn rewind_source(
    State(api): State<Api>,
    Path(source): Path<String>,
    body: Bytes,
) -> Changed<RewindAnswer> {
    let wish: Rewind = read(&body)?;
    wish.check()?;
    let name: Arc<str> = source.as_str().into();
    let sources = api.operations.ask(Operation::Sources).await?;
    let known = sources.iter().find(|(_, context)| context.name == name);
    let (config, context) = known.ok_or_else(|| Refusal::unknown("source", &source))?;
    let positions = match config.positions(context) {
        Some(positions) => positions.map_err(Refused::from)?,
        None => return Err(Refused::no_log(&source).into()),
    };
    // Before anything is stopped for it.
    let told = if wish.is_plain() { Some(dry(&*positions, &wish).await?) } else { None };
    drop(positions);
    let partitions = match told {
        Some(told) if wish.dry_run || told.iter().all(|it| it.to.is_none()) => told,
        _ => {
            let wish = wish.clone();
            api.operations.ask(|answer| Operation::Rewind(name.clone(), wish, answer)).await?
        }
    };
    let (dry_run, notes) = (wish.dry_run, notes(&api, &name));
    let moved = partitions.iter().filter(|it| it.to.is_some());
    let from: BTreeMap<_, _> = moved.clone().map(|it| (&it.partition, it.from)).collect();
    let to: BTreeMap<_, _> = moved.map(|it| (&it.partition, it.to)).collect();
    let before = json!({ "checkpoints": from });
    let after = json!({ "dry_run": dry_run, "wish": wish, "go_on_with": to });
    Ok(changed(RewindAnswer { source, dry_run, partitions, notes }, before, after))
}

async fn dry(positions: &dyn Positions, wish: &Rewind) -> Result<Vec<Rewound>, Refused> {
    let wish = Rewind { dry_run: true, ..wish.clone() };
    let asked = timeout(ASK_MAX, rewind(positions, &wish)).await;
    asked.unwrap_or_else(|_| Err(Refused::Unusable("the hub does not answer in time".to_owned())))
}

/// The routes that do not send again what they have sent.
fn notes(api: &Api, source: &str) -> Vec<String> {
    let Some(plan) = api.health.plan() else { return Vec::new() };
    let reads = |index: &usize| plan.sources.get(*index).is_some_and(|it| *it.name == *source);
    let once = plan.routes.iter().filter(|it| it.dedup.is_some() && it.from.iter().any(reads));
    let note = |route: &crate::config::plan::RoutePlan| {
        format!(
            "route `{}` delivers an event once: of what comes again, it drops what it remembers",
            route.name
        )
    };
    once.map(note).collect()
}

async fn drain(State(api): State<Api>) -> Result<(Extension<Change>, &'static str), Refusal> {
    api.operations.ask(Operation::Drain).await?;
    let state = |word: &str| Some(json!({ "state": word }));
    Ok((Extension(Change { before: state("running"), after: state("draining") }), "draining\n"))
}
