//! What the admin API can do, as a table: each entry says who may do it, and is described by it.

use axum::{Router, http::Method, middleware::from_fn_with_state, routing::MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::{
    Api,
    access::{self, Guard},
};

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

impl Role {
    /// All of them, the one that may least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its name, as the configuration has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
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

/// Who may ask for an endpoint, and what becomes of that.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The name of the endpoint.
    pub name: &'static str,
    /// Who may.
    pub needs: Role,
    /// Of what.
    pub scope: Scope,
    /// Whether it changes anything.
    pub changes: bool,
}

impl Rule {
    /// What a request to it is about, of which the path names this.
    #[must_use]
    pub fn about(&self, named: &Option<String>) -> Option<String> {
        let kind = match self.scope {
            Scope::Daemon => return None,
            Scope::Route => "route",
            Scope::Source => "source",
            Scope::Sink => "sink",
        };
        named.as_ref().map(|name| format!("{kind} {name}"))
    }
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
    /// What it answers when it is done.
    pub answer: Answer,
    /// What does it.
    pub handler: MethodRouter<Api>,
}

/// What an endpoint answers when it is done.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// Text.
    Text,
    /// JSON of a type.
    Json(Describe),
    /// Server-sent events, with JSON of a type as the data of each.
    Events(Describe),
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
            answer: Answer::Text,
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

    /// Who may ask for it.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule { name: self.name, needs: self.needs, scope: self.scope, changes: self.changes }
    }
}

/// Serves them all to those who may ask.
pub fn router(endpoints: Vec<Endpoint>, api: &Api) -> Router<Api> {
    let add = |router: Router<Api>, it: Endpoint| {
        let guard = from_fn_with_state(Guard::new(api, it.rule()), access::guard);
        router.route(it.path, it.handler.route_layer(guard))
    };
    endpoints.into_iter().fold(Router::new(), add)
}
