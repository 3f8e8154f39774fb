//! Answers without an end: only so many at once, and none for longer than whoever asked is known.

use std::{future::ready, sync::Arc};

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::admin::{Api, answer::Refusal, setting::Listener};

/// Streams at once. Each is a connection that stays.
const STREAMS_MAX: usize = 64;

/// The bound on streams, of a whole daemon.
#[derive(Debug, Clone)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Streams {
    /// The same answer; if it is a stream, one that ends when the token of whoever asked does, or
    /// when another configuration says anything else of who may ask. Clients then ask again.
    pub(super) fn bound(
        &self,
        answer: Response,
        api: &Api,
        listener: &Listener,
        until: Option<OffsetDateTime>,
    ) -> Response {
        let kind = answer.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return answer;
        }
        let Ok(permit) = self.0.clone().try_acquire_owned() else {
            let text = format!("{STREAMS_MAX} streams are open, which is the most; close one");
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams", text)
                .into_response();
        };
        let (health, known) = (api.health.clone(), listener.clone());
        let is_known = move || {
            let same = health.plan().is_some_and(|it| it.admin.as_deref() == Some(&known));
            same && until.is_none_or(|until| OffsetDateTime::now_utc() < until)
        };
        let (head, body) = answer.into_parts();
        let body = body.into_data_stream().take_while(move |_| {
            let _held = &permit;
            ready(is_known())
        });
        Response::from_parts(head, Body::from_stream(body))
    }
}
