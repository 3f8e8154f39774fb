//! The HTTP listener: liveness, readiness, metrics, the page, and the API that the page and the
//! command line use.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::State,
    http::{StatusCode, header},
    response::{
        IntoResponse, Json,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::StreamExt;
use tokio::{sync::mpsc, time::interval};
use tokio_util::sync::CancellationToken;

pub mod access;
pub mod answer;
pub mod audit;
pub mod dead_letters;
pub mod endpoint;
pub mod listener;
pub mod openapi;
pub mod operations;
mod page;
mod passing;
pub mod past;
pub mod setting;
pub mod settings;
pub mod sight;
pub mod status;
pub mod tap;
pub mod tls;
pub mod traces;

use access::{Caller, Streams, keys::Keys};
use answer::Refusal;
use audit::Audit;
use endpoint::{Answer, Endpoint, describe};
use listener::Opened;
use status::{Status, Watch};

use crate::{
    daemon::{
        health::Health, history::History, jobs::Jobs, operation::Operations, reload::Request,
    },
    pipeline::tap::Taps,
    telemetry::Metrics,
};

/// How often whoever looks at the page is told.
pub(crate) const LIVE_EVERY: Duration = Duration::from_secs(1);

pub use listener::{ListenError, listen};

/// What the API can ask. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    /// The state of every connector, and what runs.
    pub health: Arc<Health>,
    /// All counts.
    pub metrics: Arc<Metrics>,
    /// Where a status is taken from.
    pub watch: Watch,
    /// Has the file read again.
    pub reload: mpsc::Sender<Request>,
    /// Has it pause, slow down, go back, or end.
    pub operations: Operations,
    /// Who has changed what.
    pub audit: Arc<Audit>,
    /// The keys that verify tokens of an issuer.
    pub keys: Arc<Keys>,
    /// The bound on answers without an end.
    pub streams: Streams,
    /// Who looks at what passes.
    pub taps: Arc<Taps>,
    /// The last hour.
    pub history: Arc<History>,
    /// What is done to dead letters.
    pub jobs: Arc<Jobs>,
    /// The file that the daemon was started with, if there is one.
    pub file: Option<PathBuf>,
}

/// All that the API can do.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    let areas = [
        own(),
        past::endpoints(),
        tap::endpoints(),
        traces::endpoints(),
        dead_letters::endpoints(),
        operations::endpoints(),
        settings::endpoints(),
        audit::endpoints(),
        openapi::endpoints(),
    ];
    areas.into_iter().flatten().collect()
}

fn own() -> Vec<Endpoint> {
    vec![
        Endpoint {
            answer: Answer::Json(describe::<Status>),
            ..Endpoint::read(
                "/status",
                "status",
                "Sources, routes and sinks with their counts and what is wrong with them.",
                get(status),
            )
        },
        Endpoint {
            answer: Answer::Json(describe::<Caller>),
            ..Endpoint::read("/caller", "caller", "Who asks, and what they may do.", get(caller))
        },
        Endpoint {
            answer: Answer::Events(describe::<Status>),
            ..Endpoint::read(
                "/status/live",
                "watch_status",
                "The same every second, as server-sent events.",
                get(live),
            )
        },
        Endpoint::read(
            "/metrics",
            "metrics",
            "All metrics, as Prometheus reads them.",
            get(render),
        ),
    ]
}

/// Serves until `end`, and then until what was asked before is answered.
pub async fn serve(listener: Opened, api: Api, end: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .merge(page::router())
        .merge(endpoint::router(endpoints(), &api))
        .fallback(access::nothing_there)
        .with_state(api);
    listener.serve(router, end).await;
}

async fn status(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Status>, Refusal> {
    api.watch.seen_by(&caller).map(Json).ok_or_else(Refusal::unavailable)
}

/// A status every second, for as long as somebody looks.
async fn live(
    State(Api { watch, .. }): State<Api>,
    Extension(caller): Extension<Caller>,
) -> impl IntoResponse {
    let ticks = futures::stream::unfold(interval(LIVE_EVERY), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    });
    let events = ticks.filter_map(move |()| {
        let status = watch.lately_seen_by(&caller);
        let event = status.and_then(|status| Event::default().json_data(status).ok());
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn caller(Extension(caller): Extension<Caller>) -> Json<Caller> {
    Json(caller)
}

/// Where it is not for this machine alone, whoever asks may be anybody, and is told names: faults
/// carry words of the services.
async fn ready(State(Api { health, .. }): State<Api>) -> impl IntoResponse {
    let mut problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let listener = health.plan().and_then(|plan| plan.admin.clone());
    if listener.is_none_or(|it| it.has_callers() || it.is_locked()) {
        for problem in &mut problems {
            if let Some((name, _)) = problem.split_once(": ") {
                *problem = format!("{name}: see the log or /status");
            }
        }
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", problems.join("\n")))
}

async fn render(
    State(Api { metrics, .. }): State<Api>,
    caller: Option<Extension<Caller>>,
) -> Result<impl IntoResponse, Refusal> {
    if caller.is_some_and(|Extension(caller)| caller.routes.is_some()) {
        let text = "metrics are of all routes, and you are limited to some; ask for /status";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", text));
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()))
}
