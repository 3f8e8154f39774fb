//! What has been: the last hour, and the last errors.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    endpoint::{Endpoint, describe},
};
use crate::{daemon::history::Hour, telemetry::errors::Error};

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
            answer: Some(describe::<Hour>),
            ..Endpoint::read(
                "/history",
                "history",
                "The last hour of each source and of each route into a sink, in steps of 10 s.",
                get(history),
            )
        },
        Endpoint {
            answer: Some(describe::<Errors>),
            ..Endpoint::read(
                "/errors",
                "errors",
                "What has failed lately, by route, sink and cause, each with an event's metadata.",
                get(errors),
            )
        },
    ]
}

// access: cut down to the sources and routes of the caller.
async fn history(State(api): State<Api>) -> Json<Hour> {
    Json(api.history.hour())
}

// access: cut down to the routes of the caller; `unrouted` is for those who may see all.
async fn errors(State(api): State<Api>) -> Json<Errors> {
    Json(Errors { errors: api.metrics.errors().known() })
}
