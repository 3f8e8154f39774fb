//! What the admin API can do, as a table: each entry says who may do it, and is described by it.

use axum::{Router, http::Method, routing::MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::Api;

/// What somebody may do, each of them all that the one before may.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See what runs and how it is doing, but no payload.
    Viewer,
    /// Also pause, resume, slow down, reload, and bring dead letters back.
    Operator,
    /// Also see payloads, go back to earlier events, throw events away, end the daemon, and read
    /// who has changed what.
    Admin,
}

/// What a request is about: who is limited to some routes may ask about these alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The daemon as a whole: nobody who is limited to some routes may change it. What is read of
    /// it is cut down to them by the handler.
    Daemon,
    /// The route that the path names as `{route}`.
    Route,
    /// The source that the path names as `{source}`: all routes that read it.
    Source,
    /// The sink that the path names as `{sink}`: all routes that send to it.
    Sink,
}

/// Something that the API can do.
pub struct Endpoint {
    /// How.
    pub method: Method,
    /// Where, with its parameters in braces.
    pub path: &'static str,
    /// Its name in the description, unique.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Who may do it.
    pub needs: Role,
    /// Of what.
    pub scope: Scope,
    /// Whether it changes anything: then it is audited.
    pub changes: bool,
    /// The parameters of its query; none if it takes none.
    pub query: Option<Describe>,
    /// What it takes as its body; none if it takes none.
    pub body: Option<Describe>,
    /// What it answers; none if it answers text or a stream.
    pub answer: Option<Describe>,
    /// What does it.
    pub handler: MethodRouter<Api>,
}

/// Describes a type.
pub type Describe = fn(&mut SchemaGenerator) -> Schema;

/// The description of a type.
#[must_use]
pub fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Endpoint {
    /// Something that a viewer may read.
    #[must_use]
    pub fn read(
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: MethodRouter<Api>,
    ) -> Self {
        Self {
            method: Method::GET,
            path,
            name,
            summary,
            needs: Role::Viewer,
            scope: Scope::Daemon,
            changes: false,
            query: None,
            body: None,
            answer: None,
            handler,
        }
    }

    /// Something that changes what runs, by `POST`.
    #[must_use]
    pub fn change(
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        needs: Role,
        scope: Scope,
        handler: MethodRouter<Api>,
    ) -> Self {
        let method = Method::POST;
        Self { method, needs, scope, changes: true, ..Self::read(path, name, summary, handler) }
    }
}

/// Serves them all.
pub fn router(endpoints: Vec<Endpoint>) -> Router<Api> {
    let add = |router: Router<Api>, it: Endpoint| router.route(it.path, it.handler);
    endpoints.into_iter().fold(Router::new(), add)
}
