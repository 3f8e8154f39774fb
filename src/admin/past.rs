//! What has been: the last hour, and the last errors.

use axum::{Extension, Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    endpoint::{Answer, Endpoint, describe},
};
use crate::{
    daemon::history::Hour,
    telemetry::errors::{Error, Place},
};

/// The last errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Errors {
    /// By route, sink and class of the cause, what was met last first.
    pub errors: Vec<Error>,
}

/// What can be asked of what has been.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            answer: Answer::Json(describe::<Hour>),
            ..Endpoint::read(
                "/history",
                "history",
                "The last hour of each source and of each route into a sink, in steps of 10 s.",
                get(history),
            )
        },
        Endpoint {
            answer: Answer::Json(describe::<Errors>),
            ..Endpoint::read(
                "/errors",
                "errors",
                "What has failed lately, by source, or by route and sink, and by cause, with an event's metadata.",
                get(errors),
            )
        },
    ]
}

async fn history(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Hour>, Refusal> {
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let mut hour = api.history.hour();
    hour.sources.retain(|of| caller.sees_source(&plan, &of.source));
    hour.legs.retain(|of| caller.sees(&of.route));
    hour.parked.retain(|of| caller.sees(&of.route));
    Ok(Json(hour))
}

/// What no route took is told to those who may see all routes.
async fn errors(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<Errors> {
    let mut errors = api.metrics.errors().known();
    let plan = api.health.plan();
    errors.retain(|error| match &error.place {
        Place::Leg { route, .. } => caller.sees(route),
        Place::Source { source } => plan.as_ref().is_some_and(|it| caller.sees_source(it, source)),
    });
    Json(Errors { errors })
}
