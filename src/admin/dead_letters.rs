//! Dead letters: looked at, and sent again or thrown away by jobs, each after a dry run of it.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    audit::Change,
    endpoint::{Answer, Endpoint, Role, Scope, describe},
    sight::Sight,
};
use crate::{
    daemon::jobs::{Group, Job, Kind, Parked, Refused, State as JobState, selection::Selection},
    redrive::Summary,
};

/// How often whoever watches a job is told at most.
const TOLD_EVERY: Duration = Duration::from_millis(300);
/// Entries of an answer, where nobody says how many.
const ENTRIES: usize = 100;

/// Which entries are looked at.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// In this dead-letter sink; in all of them without it.
    pub sink: Option<String>,
    /// The SQS queue to read in place of a dead-letter sink that is an SNS topic.
    pub queue: Option<String>,
    /// The consumer group to read a dead-letter sink with that is an event hub.
    pub consumer_group: Option<String>,
    /// That this route gave up.
    pub route: Option<String>,
    /// Of this class of cause.
    pub class: Option<String>,
    /// Given up at this time or later: RFC 3339, or how long ago, as in `2h`.
    pub since: Option<String>,
    /// Given up before this time.
    pub until: Option<String>,
    /// So many of them are told, all are counted: 100 without it, and 500 at most.
    pub max: Option<usize>,
    /// Whether what looks sensitive in bodies is told as it is, to admins.
    #[serde(default)]
    pub whole: bool,
}

/// What there is of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Listing {
    /// How many of each route and cause.
    pub groups: Vec<Group>,
    /// The first of them.
    pub entries: Vec<Parked>,
    /// How many were looked at and are meant.
    pub summary: Summary,
}

/// What is to be done: first a dry run, then what that has found.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Finds out what would be done to these entries, and does nothing.
    DryRun(Box<Selection>),
    /// Does it to those that the dry run of this name has found, and to no others.
    Confirm(String),
}

/// All jobs that are known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Known {
    /// The last first.
    pub jobs: Vec<Job>,
}

/// What can be done with dead letters.
pub fn endpoints() -> Vec<Endpoint> {
    let job = |endpoint: Endpoint| Endpoint { answer: Answer::Json(describe::<Job>), ..endpoint };
    let wanted = |endpoint| Endpoint { body: Some(describe::<Wanted>), ..job(endpoint) };
    vec![
        Endpoint {
            query: Some(describe::<Asked>),
            answer: Answer::Json(describe::<Listing>),
            ..Endpoint::read(
                "/dead-letters",
                "dead_letters",
                "Dead letters by route and cause, and the first of them. To look is to receive: a \
                 queue hides them from others meanwhile.",
                get(list),
            )
        },
        Endpoint {
            query: Some(describe::<Asked>),
            answer: Answer::Json(describe::<Listing>),
            ..Endpoint::read(
                "/dead-letters/{id}",
                "dead_letter",
                "The dead letters of one event.",
                get(inspect),
            )
        },
        wanted(Endpoint::change(
            "/dead-letters/redrive",
            "redrive",
            "Finds out what would be sent again, or sends what was found.",
            Role::Operator,
            Scope::Daemon,
            post(redrive),
        )),
        wanted(Endpoint::change(
            "/dead-letters/discard",
            "discard",
            "Finds out what would be deleted, or deletes what was found.",
            Role::Admin,
            Scope::Daemon,
            post(discard),
        )),
        Endpoint {
            answer: Answer::Json(describe::<Known>),
            ..Endpoint::read("/jobs", "jobs", "The last jobs on dead letters.", get(jobs))
        },
        job(Endpoint::read("/jobs/{job}", "job", "How far a job is.", get(one))),
        Endpoint {
            answer: Answer::Events(describe::<Job>),
            ..Endpoint::read(
                "/jobs/{job}/live",
                "watch_job",
                "The same as it goes on, as server-sent events, until it has ended.",
                get(live),
            )
        },
        job(Endpoint::change(
            "/jobs/{job}/stop",
            "stop_job",
            "Stops a job: what is under way may finish, the rest goes back.",
            Role::Operator,
            Scope::Daemon,
            post(stop),
        )),
    ]
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "too many", detail),
            Refused::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "not found", detail),
            Refused::NoDryRun(_) => Self::conflict(detail),
            Refused::Selection(_) => Self::invalid(detail),
        }
    }
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Listing>, Refusal> {
    let Query(asked) = asked?;
    look(&api, &caller, asked, None).await.map(Json)
}

async fn inspect(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Listing>, Refusal> {
    let Query(asked) = asked?;
    let listing = look(&api, &caller, asked, Some(id.clone())).await?;
    if listing.entries.is_empty() {
        let detail = match caller.routes {
            None => format!("none of {} dead letters is of an event `{id}`", listing.summary.seen),
            Some(_) => format!("no dead letter of this route is of an event `{id}`"),
        };
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not found", detail));
    }
    Ok(Json(listing))
}

async fn look(
    api: &Api,
    caller: &Caller,
    asked: Asked,
    id: Option<String>,
) -> Result<Listing, Refusal> {
    let Asked { sink, queue, consumer_group, route, class, since, until, max, whole } = asked;
    caller.sees_one(route.as_deref())?;
    may_read_elsewhere(caller, queue.as_ref(), consumer_group.as_ref())?;
    let sight = match id {
        Some(_) => caller.sight(whole)?,
        None => Sight::Outside,
    };
    let sinks = looked_at(api, caller, sink, route.as_deref())?;
    if sinks.is_empty() && caller.routes.is_some() {
        return Ok(Listing::default());
    }
    let selection = Selection {
        sinks,
        queue,
        consumer_group,
        route,
        class,
        since,
        until,
        id,
        ..Selection::default()
    };
    let mut job = api.jobs.look(selection, sight).await?;
    if let Some(error) = job.error {
        return Err(Refusal::conflict(error));
    }
    job.entries.truncate(max.unwrap_or(ENTRIES));
    if caller.routes.is_some() {
        // How many others have there is not theirs to know.
        job.summary.seen = job.summary.meant;
        job.summary.unread = job.summary.unread.min(1);
    }
    Ok(Listing { groups: job.groups, entries: job.entries, summary: job.summary })
}

/// The sinks to look at; none: all. To look is to receive, and whoever has some routes receives only
/// where these park.
fn looked_at(
    api: &Api,
    caller: &Caller,
    sink: Option<String>,
    route: Option<&str>,
) -> Result<Vec<String>, Refusal> {
    if caller.routes.is_none() {
        return Ok(sink.into_iter().collect());
    }
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let routes = plan.routes.iter().filter(|it| route == Some(&*it.name));
    let parks = routes.flat_map(|it| &it.dead_letters).filter_map(|index| plan.sinks.get(*index));
    let mine: Vec<String> = parks.map(|it| it.name.to_string()).collect();
    match sink {
        None => Ok(mine),
        Some(sink) if mine.contains(&sink) => Ok(vec![sink]),
        Some(sink) => {
            let detail = format!(
                "{} is limited to some routes, and `{sink}` holds the dead letters of none of them",
                caller.name
            );
            Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail))
        }
    }
}

/// Whether they may have done with what was chosen what the file does not say.
fn may_deal_with(caller: &Caller, selection: &Selection) -> Result<(), Refusal> {
    let Selection { queue, consumer_group, to, .. } = selection;
    may_read_elsewhere(caller, queue.as_ref(), consumer_group.as_ref())?;
    may_send_straight(caller, to.as_ref())
}

/// Straight into a sink, an event goes past what its route makes of it: nothing is redacted, sealed
/// or held against a schema, and whoever reads there gets to see it.
fn may_send_straight(caller: &Caller, to: Option<&String>) -> Result<(), Refusal> {
    if to.is_none() || caller.role == Role::Admin {
        return Ok(());
    }
    let text = "`to` is for admins: it sends events past the steps of their routes, as they are";
    Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", text))
}

/// A queue or a consumer group that the file does not name can be anybody's: whoever reads it takes
/// its messages from them for a while.
fn may_read_elsewhere(
    caller: &Caller,
    queue: Option<&String>,
    consumer_group: Option<&String>,
) -> Result<(), Refusal> {
    if (queue.is_none() && consumer_group.is_none())
        || (caller.role == Role::Admin && caller.routes.is_none())
    {
        return Ok(());
    }
    let text = "`queue` and `consumer_group` are for admins of all routes: what they name may be read \
                by somebody else";
    Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", text))
}

async fn redrive(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Begun, Refusal> {
    begin(&api, &caller, Kind::Redrive, wanted?.0)
}

async fn discard(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Begun, Refusal> {
    begin(&api, &caller, Kind::Discard, wanted?.0)
}

type Begun = (StatusCode, Extension<Change>, Json<Job>);

fn begin(api: &Api, caller: &Caller, task: Kind, wanted: Wanted) -> Result<Begun, Refusal> {
    let (job, confirms) = match wanted {
        Wanted::DryRun(selection) => {
            may_deal_with(caller, &selection)?;
            (api.jobs.dry_run(task, *selection)?, None)
        }
        // Somebody else may have asked for it.
        Wanted::Confirm(job) => {
            may_deal_with(caller, &api.jobs.watch(&job)?.borrow().selection)?;
            let (audit, metrics, caller) = (api.audit.clone(), api.metrics.clone(), caller.clone());
            // Hours may pass until it is known what it has done.
            let ended = move |job: &Job| {
                let after = json!({
                    "job": job.id, "state": job.state, "summary": job.summary, "error": job.error,
                });
                let change = Change { before: None, after: Some(after) };
                audit.job_ended(&caller, job.task, change, &metrics);
            };
            (api.jobs.confirm(task, &job, Box::new(ended))?, Some(job))
        }
    };
    let mut selection = json!(job.selection);
    if let Some(selection) = selection.as_object_mut() {
        selection.retain(|_, chosen| !chosen.is_null());
    }
    let mut after = json!({ "job": job.id, "dry_run": job.dry_run, "selection": selection });
    if let Some(of) = confirms {
        after["confirms"] = json!(of);
    }
    let change = Change { before: None, after: Some(after) };
    Ok((StatusCode::ACCEPTED, Extension(change), Json(job)))
}

/// Jobs show what they have found, of whatever route.
const JOBS: &str = "jobs are";

async fn jobs(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Known>, Refusal> {
    caller.sees_all(JOBS)?;
    Ok(Json(Known { jobs: api.jobs.known() }))
}

async fn one(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
) -> Result<Json<Job>, Refusal> {
    caller.sees_all(JOBS)?;
    let job = api.jobs.watch(&job)?.borrow().clone();
    Ok(Json(job))
}

async fn stop(
    State(api): State<Api>,
    Path(job): Path<String>,
) -> Result<(Extension<Change>, Json<Job>), Refusal> {
    let job = api.jobs.stop(&job)?;
    let before = Some(json!({ "job": job.id, "state": job.state }));
    Ok((Extension(Change { before, after: None }), Json(job)))
}

async fn live(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    caller.sees_all(JOBS)?;
    let mut job = api.jobs.watch(&job)?;
    job.mark_changed();
    let events = stream::unfold(Some(job), async |job| {
        let mut job = job?;
        // A job that is forgotten has ended, and that was told.
        job.changed().await.ok()?;
        let now = job.borrow_and_update().clone();
        let is_over = !matches!(now.state, JobState::Waiting | JobState::Running);
        if !is_over {
            sleep(TOLD_EVERY).await;
        }
        let event = Event::default().json_data(now).unwrap_or_default();
        Some((Ok::<_, Infallible>(event), (!is_over).then_some(job)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
