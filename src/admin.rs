//! The HTTP listener: liveness, readiness, metrics, the page, and the API that the page and the
//! command line use.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{
        IntoResponse, Json,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::StreamExt;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::interval,
};

pub mod answer;
pub mod dead_letters;
pub mod endpoint;
mod page;
pub mod past;
pub mod settings;
pub mod sight;
pub mod status;
pub mod tap;

use answer::Refusal;
use endpoint::{Endpoint, Role, Scope, describe};
use status::{Status, Watch};

use crate::{
    daemon::{
        health::Health,
        history::History,
        jobs::Jobs,
        reload::{Applied, By, Refused, Request},
    },
    pipeline::tap::Taps,
    telemetry::Metrics,
};

/// How often whoever looks at the page is told.
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// Opens the listener, so that a port in use is an error at start.
///
/// # Errors
/// The address cannot be bound.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving the page, /status, /livez, /readyz, /metrics and /reload");
    Ok(listener)
}

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
fn endpoints() -> Vec<Endpoint> {
    let own = vec![
        Endpoint {
            answer: Some(describe::<Status>),
            ..Endpoint::read(
                "/status",
                "status",
                "Sources, routes and sinks with their counts and what is wrong with them.",
                get(status),
            )
        },
        Endpoint::read(
            "/status/live",
            "watch_status",
            "The same every second, as server-sent events.",
            get(live),
        ),
        Endpoint::read(
            "/metrics",
            "metrics",
            "All metrics, as Prometheus reads them.",
            get(render),
        ),
        Endpoint::change(
            "/reload",
            "reload",
            "Reads the file again and takes it up, or says why not.",
            Role::Operator,
            Scope::Daemon,
            post(again),
        ),
    ];
    [own, tap::endpoints(), past::endpoints(), dead_letters::endpoints(), settings::endpoints()]
        .into_iter()
        .flatten()
        .collect()
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, api: Api) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .merge(page::router())
        .merge(endpoint::router(endpoints()))
        .with_state(api);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener has ended");
    }
}

async fn status(State(api): State<Api>) -> Result<Json<Status>, Refusal> {
    api.watch.now().map(Json).ok_or_else(Refusal::unavailable)
}

/// A status every second, for as long as somebody looks.
async fn live(State(Api { watch, .. }): State<Api>) -> impl IntoResponse {
    let ticks = futures::stream::unfold(interval(LIVE_EVERY), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    });
    let events = ticks.filter_map(move |()| {
        let event = watch.now().and_then(|status| Event::default().json_data(status).ok());
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn ready(State(Api { health, .. }): State<Api>) -> impl IntoResponse {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", problems.join("\n")))
}

async fn render(State(Api { metrics, .. }): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

/// Has the file read again, and answers what became of it.
async fn again(State(Api { reload, .. }): State<Api>) -> impl IntoResponse {
    let (answer, answered) = oneshot::channel();
    // Where nobody answers, the daemon is ending.
    let _ = reload.send(Request { by: By::Admin, answer }).await;
    let answer = answered.await.unwrap_or_else(|_| Err(Arc::new(Refused::Ending)));
    match answer {
        Ok(Applied { generation, difference }) => {
            (StatusCode::OK, format!("generation {generation}\n{difference}"))
        }
        Err(refused) => {
            let status = match *refused {
                Refused::Invalid(_) | Refused::Secrets(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::NeedsRestart(_) | Refused::NoFile => StatusCode::CONFLICT,
                Refused::Unusable(_) | Refused::Ending => StatusCode::SERVICE_UNAVAILABLE,
            };
            let why = refused.to_string();
            (status, format!("nothing has changed\n{}\n", why.trim_end()))
        }
    }
}
