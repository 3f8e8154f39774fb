//! The control API: [`Control`] over HTTP and JSON.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    config::Settings,
    control::{Append, Control, ControlError, Steal, Trim},
    fault::Fault,
    view::StateView,
};

pub(crate) fn router(control: Control) -> Router {
    Router::new()
        .route("/health", get(async || "ok"))
        .route("/state", get(state))
        .route("/log", get(log))
        .route("/events", get(events))
        .route("/append", post(append))
        .route("/fault", post(fault).delete(disarm))
        .route("/steal", post(steal))
        .route("/trim", post(trim))
        .route("/settings", get(settings).post(set_settings))
        .route("/hubs/{hub}/recreate", post(recreate))
        .route("/hubs/{hub}/grow", post(grow))
        .route("/reset", post(reset))
        .with_state(control)
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoHub(_) | Self::NoPartition(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::NotBase64 => StatusCode::BAD_REQUEST,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

#[derive(Deserialize)]
struct Range {
    hub: String,
    partition: String,
    #[serde(default)]
    from: i64,
}

async fn state(State(control): State<Control>) -> Json<StateView> {
    Json(control.state())
}

async fn log(State(control): State<Control>) -> String {
    control.log()
}

async fn events(
    State(control): State<Control>,
    Query(range): Query<Range>,
) -> Result<Response, ControlError> {
    let events = control.events(&range.hub, &range.partition, range.from)?;
    Ok(Json(events).into_response())
}

async fn append(
    State(control): State<Control>,
    Json(append): Json<Append>,
) -> Result<Json<Value>, ControlError> {
    Ok(Json(json!({ "sequence_numbers": control.append(append)? })))
}

async fn fault(State(control): State<Control>, Json(fault): Json<Fault>) -> Json<Value> {
    Json(json!({ "id": control.arm(fault) }))
}

async fn disarm(State(control): State<Control>) {
    control.disarm();
}

async fn steal(
    State(control): State<Control>,
    Json(request): Json<Steal>,
) -> Result<Json<Value>, ControlError> {
    control.steal(&request)?;
    Ok(Json(json!({})))
}

async fn trim(
    State(control): State<Control>,
    Json(request): Json<Trim>,
) -> Result<Json<Value>, ControlError> {
    Ok(Json(json!({ "removed": control.trim(&request)? })))
}

async fn settings(State(control): State<Control>) -> Json<Settings> {
    Json(control.settings())
}

/// Fields that are not given keep their value.
async fn set_settings(State(control): State<Control>, Json(changes): Json<Value>) -> Response {
    let current = serde_json::to_value(control.settings());
    let (Ok(Value::Object(mut merged)), Value::Object(changes)) = (current, changes) else {
        return (StatusCode::BAD_REQUEST, "not an object").into_response();
    };
    merged.extend(changes);
    match serde_json::from_value::<Settings>(Value::Object(merged)) {
        Ok(settings) => {
            control.set_settings(settings.clone());
            Json(settings).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn recreate(
    State(control): State<Control>,
    Path(hub): Path<String>,
) -> Result<Json<Value>, ControlError> {
    control.recreate_hub(&hub)?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Grow {
    partitions: u32,
}

async fn grow(
    State(control): State<Control>,
    Path(hub): Path<String>,
    Json(request): Json<Grow>,
) -> Result<Json<Value>, ControlError> {
    control.grow_hub(&hub, request.partitions)?;
    Ok(Json(json!({})))
}

async fn reset(State(control): State<Control>) -> Json<Value> {
    control.reset();
    Json(json!({}))
}
