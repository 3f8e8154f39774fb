//! The HTTP listener: liveness, readiness, metrics, status and the page that shows it, reload.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{
        Html, IntoResponse, Json,
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

pub mod status;

use status::Watch;

use crate::{
    daemon::{
        health::Health,
        reload::{Applied, By, Refused, Request},
    },
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

/// Serves until it is dropped.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    reload: mpsc::Sender<Request>,
) {
    let watch = Watch::new(health.clone(), metrics.clone());
    let router = Router::new()
        .route("/", get(page))
        .route("/status", get(status).with_state(watch.clone()))
        .route("/status/live", get(live).with_state(watch))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(render).with_state(metrics))
        .route("/reload", post(again).with_state(reload));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener has ended");
    }
}

/// The page. It has everything in it, so that it works without a network.
async fn page() -> impl IntoResponse {
    // Nothing else is to run in it, or be asked by it.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("admin/page.html")))
}

async fn status(State(watch): State<Watch>) -> impl IntoResponse {
    match watch.now() {
        Some(status) => Json(status).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// A status every second, for as long as somebody looks.
async fn live(State(watch): State<Watch>) -> impl IntoResponse {
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

async fn ready(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", problems.join("\n")))
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

/// Has the file read again, and answers what became of it.
async fn again(State(reload): State<mpsc::Sender<Request>>) -> impl IntoResponse {
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
