//! The HTTP listener: liveness, readiness, metrics, reload.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    daemon::{
        health::Health,
        reload::{Applied, By, Refused, Request},
    },
    telemetry::Metrics,
};

/// Opens the listener, so that a port in use is an error at start.
///
/// # Errors
/// The address cannot be bound.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving /livez, /readyz, /metrics and /reload");
    Ok(listener)
}

/// Serves until it is dropped.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    reload: mpsc::Sender<Request>,
) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(render).with_state(metrics))
        .route("/reload", post(again).with_state(reload));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener has ended");
    }
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
