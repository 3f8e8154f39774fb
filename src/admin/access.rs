//! Who asks, and whether they may: every request to an endpoint passes here first.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{RawPathParams, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

pub mod browser;
pub mod jwt;
pub mod keys;
mod scope;
mod stream;
pub mod token;

use scope::forbidden;
pub use stream::Streams;

use super::{
    Api,
    answer::Refusal,
    audit::{Change, Deed},
    endpoint::{Role, Rule},
    setting::{Certificate, Listener},
};
use crate::config::{names::Names, plan::Plan};

/// How long an answer may take to begin. A reload waits for what is new in the file.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Who asks. An extension of every request that reaches a handler, but for those of endpoints that
/// are open to everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Caller {
    /// What the audit log calls them.
    pub name: Arc<str>,
    /// By what they are known.
    pub by: Way,
    /// What they may do.
    pub role: Role,
    /// The routes that they may see and do it with; none: all.
    pub routes: Option<BTreeSet<Arc<str>>>,
}

/// By what somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// They are on this machine, and nobody is asked who they are.
    Local,
    /// A token of the configuration.
    Token,
    /// A token of the issuer.
    Jwt,
    /// A certificate of their own.
    Certificate,
}

impl Way {
    /// Whether a browser shows it with whatever request a page has it send.
    fn is_ambient(self) -> bool {
        matches!(self, Self::Local | Self::Certificate)
    }

    /// A short name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
        }
    }
}

/// The other end of a connection; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The names in its certificate, if it has shown one of an authority that is trusted.
    pub certificate: Option<Arc<[String]>>,
}

impl Caller {
    /// Whoever is on this machine, where nobody is asked who they are.
    #[must_use]
    pub fn local() -> Self {
        Self { name: "local".into(), by: Way::Local, role: Role::Admin, routes: None }
    }

    fn known(name: &str, by: Way, role: Role, routes: Option<&Names>) -> Self {
        let routes = routes.map(|it| it.0.iter().map(|name| name.as_str().into()).collect());
        Self { name: name.into(), by, role, routes }
    }
}

/// How long a caller is known, from when they have asked.
type Until = Option<time::OffsetDateTime>;

/// What stands before an endpoint.
#[derive(Debug, Clone)]
pub struct Guard {
    api: Api,
    rule: Rule,
}

impl Guard {
    /// Of an endpoint of this rule.
    #[must_use]
    pub fn new(api: &Api, rule: Rule) -> Self {
        Self { api: api.clone(), rule }
    }

    /// Who asks, or nobody in particular where that is no matter.
    async fn caller(
        &self,
        listener: &Listener,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Option<(Caller, Until)>, Refusal> {
        if listener.open.iter().any(|open| open.endpoint() == self.rule.name) {
            return Ok(None);
        }
        self.api.caller(listener, peer, headers).await.map(Some)
    }
}

impl Api {
    /// Who asks.
    async fn caller(
        &self,
        listener: &Listener,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<(Caller, Until), Refusal> {
        if listener.is_locked() {
            return Err(locked());
        }
        if !listener.has_callers() {
            return match browser::is_for_loopback(headers) {
                true => Ok((Caller::local(), None)),
                false => Err(forbidden(
                    "without tokens this is for this machine alone: ask by the name `localhost` or \
                     the address 127.0.0.1, or set `admin.tokens` in the configuration",
                )),
            };
        }
        let asks_certificate = listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        if asks_certificate && peer.certificate.is_none() {
            return Err(unknown("show a certificate of an authority of `admin.tls.clients`"));
        }
        match bearer(headers)? {
            Some(token) => self.bearer(listener, token).await,
            None => certified(listener, peer)
                .map(|caller| (caller, None))
                .ok_or_else(|| unknown("send a token: `Authorization: Bearer …`")),
        }
    }

    async fn bearer(&self, listener: &Listener, token: &str) -> Result<(Caller, Until), Refusal> {
        let found = token::find(token, listener.tokens.iter().map(|known| &known.sha256));
        if let Some(known) = found.and_then(|place| listener.tokens.get(place)) {
            let routes = known.routes.as_ref();
            return Ok((Caller::known(&known.name, Way::Token, known.role, routes), None));
        }
        match &listener.jwt {
            Some(jwt) => jwt::caller(jwt, &self.keys, token).await,
            None => Err(unknown("nobody has this token, or nobody has it any more")),
        }
    }
}

/// The token that a request bears, if it bears one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(unknown("only tokens are understood: `Authorization: Bearer …`")),
    }
}

/// Whoever has a certificate with one of these names. With several: the first of the file.
fn certified(listener: &Listener, peer: &Peer) -> Option<Caller> {
    let names = peer.certificate.as_ref()?;
    let is_theirs = |known: &&Certificate| names.contains(&known.name);
    let Certificate { name, role, routes } = listener.certificates.iter().find(is_theirs)?;
    Some(Caller::known(name, Way::Certificate, *role, routes.as_ref()))
}

/// Nobody knows who asks.
pub(super) fn unknown(detail: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Nobody may ask.
pub(super) fn locked() -> Refusal {
    forbidden(
        "the admin API does not know who may ask: set `admin.tokens` (`eventferry token` makes one) \
         or `admin.jwt` in the configuration, or let it listen on 127.0.0.1",
    )
}

/// Lets a request pass to its handler if whoever asks may, and tells the audit log if it changes
/// anything.
pub async fn guard(
    State(guard): State<Guard>,
    Extension(peer): Extension<Peer>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let Guard { api, rule } = &guard;
    let Some(plan) = api.health.plan() else { return Refusal::unavailable().into_response() };
    let Some(listener) = &plan.admin else { return Refusal::unavailable().into_response() };
    let answer = async {
        let (caller, until) = match guard.caller(listener, &peer, request.headers()).await? {
            Some(known) => known,
            None => return Ok((next.run(request).await, None)),
        };
        let named = params.iter().next().map(|(_, value)| value.to_owned());
        let deed = rule.changes.then(|| {
            Deed::begin(
                &api.audit,
                &api.metrics,
                &caller,
                peer.address.ip(),
                &request,
                rule.about(&named),
            )
        });
        let permitted = permit(rule, &caller, named.as_deref(), &plan, request.headers());
        if let Err(refusal) = permitted {
            let refused = refusal.into_response();
            if let Some(deed) = deed {
                deed.end(refused.status(), None);
            }
            return Ok((refused, None));
        }
        request.extensions_mut().insert(caller);
        let answered = timeout(ANSWER_MAX, next.run(request)).await;
        let mut answer = answered.unwrap_or_else(|_| late().into_response());
        let change = answer.extensions_mut().remove::<Change>();
        if let Some(deed) = deed {
            deed.end(answer.status(), change);
        }
        Ok((answer, Some(until)))
    };
    let answer = match answer.await {
        Ok((answer, Some(until))) => api.streams.bound(answer, api, listener, until),
        Ok((answer, None)) => answer,
        Err(refusal) => refused(refusal),
    };
    api.metrics.admin_answered(rule.name, answer.status().as_u16());
    answer
}

/// Whether they may, and want it themselves. To look can have effects, too: whoever looks at dead
/// letters receives them.
fn permit(
    rule: &Rule,
    caller: &Caller,
    named: Option<&str>,
    plan: &Plan,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    rule.permits(caller, named, plan)?;
    if caller.by.is_ambient() && browser::is_foreign(headers) {
        return Err(forbidden("a page of another origin may not ask for anything here"));
    }
    Ok(())
}

/// As an answer that says how to become known, where that is what is missing.
fn refused(refusal: Refusal) -> Response {
    let mut answer = refusal.into_response();
    if answer.status() == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    answer
}

fn late() -> Refusal {
    let text = "there is no answer yet, and it may still be done: look at the status";
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "too late", text)
}

/// What no endpoint has answered is a refusal of the same form.
pub async fn nothing_there() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not found", "there is nothing here; see /openapi.json")
}

/// No answer is kept by anybody on the way, or taken for what it is not.
pub async fn seal(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
