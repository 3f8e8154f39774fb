//! One AMQP connection: its tokens, its request nodes and its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::{Duration, SystemTime},
};

use fe2o3_amqp::{
    Session,
    connection::{Connection as AmqpConnection, ConnectionHandle},
    sasl_profile::SaslProfile,
    session::SessionHandle,
};
use fe2o3_amqp_cbs::{client::CbsClient, token::CbsToken};
use fe2o3_amqp_management::{client::MgmtClient, request::Request, response::Response};
use fe2o3_amqp_types::{
    definitions::Fields,
    messaging::FromBody,
    primitives::{Symbol, Timestamp, Value},
};
use tokio::{task::AbortHandle, time::Instant};

use super::{
    Settings,
    auth::Token,
    error::{Error, ErrorKind},
    wire::Wire,
};
use crate::management;

/// The largest frame we take. Larger frames mean fewer of them for large events.
const MAX_FRAME_BYTES: u32 = 256 * 1024;
/// Sessions on one connection: one per link. The service allows 4999.
const MAX_CHANNEL: u16 = 2047;
/// A token is renewed this long before it ends, or after two thirds of its life if that is later.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// Tokens are never renewed more often than this.
const RENEW_PAUSE: Duration = Duration::from_millis(500);

/// An open connection. All links of a client share one.
pub(crate) struct Connection {
    settings: Arc<Settings>,
    amqp: tokio::sync::Mutex<ConnectionHandle<()>>,
    /// Taken out during a request, so that a request that is given up takes the links with it:
    /// its late answer must not be read as the answer to the next.
    cbs: tokio::sync::Mutex<Option<(CbsClient, SessionHandle<()>)>>,
    management: tokio::sync::Mutex<Option<(MgmtClient, SessionHandle<()>)>>,
    /// Hubs that a token was put for, and when it wants renewal.
    tokens: Mutex<HashMap<String, Option<Instant>>>,
    renewal: Mutex<Option<AbortHandle>>,
    wire: Wire,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.renewal).take() {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Connection {
    /// Connects. The caller sets the deadline.
    pub(crate) async fn open(settings: Arc<Settings>) -> Result<Self, Error> {
        let endpoint = &settings.endpoint;
        let (wire, stream) = Wire::connect(endpoint).await?;
        let idle = u32::try_from(settings.options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let amqp = AmqpConnection::builder()
            .container_id(settings.options.id.clone())
            .scheme(endpoint.scheme())
            .domain(endpoint.host())
            .hostname(endpoint.host())
            .sasl_hostname(endpoint.host())
            // TLS from the first byte, as on port 5671, without the AMQP header for it.
            .alt_tls_establishment(true)
            .sasl_profile(SaslProfile::Anonymous)
            .max_frame_size(MAX_FRAME_BYTES)
            .channel_max(MAX_CHANNEL)
            .idle_time_out(idle)
            .properties(product())
            .open_with_stream(stream)
            .await
            .map_err(Error::from_open)?;
        Ok(Self {
            settings,
            amqp: amqp.into(),
            cbs: None.into(),
            management: None.into(),
            tokens: Mutex::default(),
            renewal: Mutex::default(),
            wire,
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.wire.is_up()
    }

    /// Waits until it is down.
    pub(crate) async fn ended(&self) {
        self.wire.ended().await;
    }

    pub(crate) fn age(&self) -> Duration {
        self.wire.age()
    }

    /// Ends the connection without a word, and with it all its links.
    pub(crate) fn cut(&self) {
        self.wire.cut();
    }

    /// Tells the peer goodbye.
    pub(crate) async fn close(&self) {
        let close = async { self.amqp.lock().await.close().await };
        if !matches!(
            tokio::time::timeout(self.settings.options.call_timeout, close).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("connection did not close cleanly");
        }
        self.cut();
    }

    /// Runs one call against its deadline. A peer that has not sent a byte for all that time is
    /// taken for dead: the connection is cut, so that every other link learns of it at once.
    pub(crate) async fn within<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (start, limit) = (Instant::now(), self.settings.options.call_timeout);
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(_) => {
                self.suspect(start);
                Err(Error::new(operation, ErrorKind::Timeout, format!("after {limit:?}")))
            }
        }
    }

    /// A call that began at `since` was not answered: cuts the connection if nothing else was
    /// heard meanwhile either.
    pub(crate) fn suspect(&self, since: Instant) {
        if !self.wire.heard_since(since) {
            tracing::warn!("nothing heard from the peer, connection given up");
            self.cut();
        }
    }

    /// A session of its own for a link, so that links do not share a transfer window.
    pub(crate) async fn session(&self) -> Result<SessionHandle<()>, Error> {
        let mut amqp = self.amqp.lock().await;
        Session::builder().begin(&mut amqp).await.map_err(Error::from_begin)
    }

    /// Puts a token for `hub` unless there is one, and keeps it fresh as long as the connection
    /// lives.
    pub(crate) async fn authorize(self: &Arc<Self>, hub: &str) -> Result<(), Error> {
        if lock(&self.tokens).contains_key(hub) {
            return Ok(());
        }
        self.put_token(hub).await?;
        let mut renewal = lock(&self.renewal);
        if renewal.is_none() {
            #[expect(clippy::disallowed_methods, reason = "ends with the connection it renews for")]
            let task = tokio::spawn(renew(Arc::downgrade(self)));
            *renewal = Some(task.abort_handle());
        }
        Ok(())
    }

    /// The service refused the token it has: the next [`authorize`](Self::authorize) puts one.
    pub(crate) fn forget_token(&self, hub: &str) {
        lock(&self.tokens).remove(hub);
    }

    async fn put_token(&self, hub: &str) -> Result<(), Error> {
        let audience = self.settings.endpoint.audience(hub);
        let token = self.token(&audience).await?;
        self.within("put token", async {
            let mut slot = self.cbs.lock().await;
            let (mut client, session) = match slot.take() {
                Some(cbs) => cbs,
                None => {
                    let mut session = self.session().await?;
                    let client =
                        CbsClient::attach(&mut session).await.map_err(Error::from_node_attach)?;
                    (client, session)
                }
            };
            let expires = token.expires.map(timestamp);
            let put = CbsToken::new(token.value.secret(), token.kind, expires);
            let result = client.put_token(audience, put).await;
            result.map_err(|error| Error::from_node("put token", error))?;
            *slot = Some((client, session));
            lock(&self.tokens).insert(hub.to_owned(), token.expires.map(renew_at));
            Ok(())
        })
        .await
    }

    /// A token from the credential. That one is slow says nothing about the peer.
    async fn token(&self, audience: &str) -> Result<Token, Error> {
        let limit = self.settings.options.call_timeout;
        match tokio::time::timeout(limit, self.settings.auth.token(audience)).await {
            Ok(token) => token,
            Err(_) => {
                let detail = format!("no answer after {limit:?}");
                Err(Error::new("get token", ErrorKind::Credential, detail))
            }
        }
    }

    /// The earliest renewal, and the hubs that want one by now.
    fn renewals(&self) -> (Option<Instant>, Vec<String>) {
        let (tokens, now) = (lock(&self.tokens), Instant::now());
        let due = tokens.iter().filter(|(_, at)| at.is_some_and(|at| at <= now));
        let due = due.map(|(hub, _)| hub.clone()).collect();
        (tokens.values().flatten().min().copied(), due)
    }

    /// Asks the management node. The deadline is that of a call.
    pub(crate) async fn ask<R>(
        &self,
        operation: &'static str,
        request: R,
    ) -> Result<R::Response, Error>
    where
        R: Request,
        <R::Response as Response>::Error: Into<fe2o3_amqp_management::error::Error>,
        for<'de> <R::Response as Response>::Body: FromBody<'de> + std::fmt::Debug + Send,
    {
        self.within(operation, async {
            let mut slot = self.management.lock().await;
            let (mut client, session) = match slot.take() {
                Some(management) => management,
                None => {
                    let mut session = self.session().await?;
                    let client = MgmtClient::builder()
                        .management_node_address(management::NODE)
                        .attach(&mut session)
                        .await
                        .map_err(Error::from_node_attach)?;
                    (client, session)
                }
            };
            let result = client.call(request).await;
            // A refusal is an answer: the links are in order.
            if matches!(result, Ok(_) | Err(fe2o3_amqp_management::error::Error::Status(_))) {
                *slot = Some((client, session));
            }
            result.map_err(|error| Error::from_node(operation, error))
        })
        .await
    }
}

/// Renews tokens until the connection is gone. A failure is tried again with the client's
/// back-off; links live on until the old token has really ended.
async fn renew(connection: Weak<Connection>) {
    let mut failures = 0;
    loop {
        let Some(open) = connection.upgrade().filter(|open| open.is_up()) else { return };
        let (next, due) = open.renewals();
        let mut failed = false;
        for hub in due {
            if let Err(error) = open.put_token(&hub).await {
                tracing::warn!(%hub, %error, "token not renewed");
                failed = true;
            }
        }
        failures = if failed { failures + 1 } else { 0 };
        let pause = open.settings.options.backoff.delay(failures).max(RENEW_PAUSE);
        // Tokens without an end, and hubs yet to come, are looked at once in a while.
        let next = next.unwrap_or_else(|| Instant::now() + RENEW_BEFORE);
        drop(open);
        let wake = if failed { Instant::now() + pause } else { next.max(Instant::now() + pause) };
        // A hub authorised meanwhile may have a shorter-lived token.
        tokio::time::sleep_until(wake.min(Instant::now() + RENEW_BEFORE / 10)).await;
    }
}

fn renew_at(expires: SystemTime) -> Instant {
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.saturating_sub(RENEW_BEFORE).max(left * 2 / 3)
}

fn timestamp(time: SystemTime) -> Timestamp {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    Timestamp::from_milliseconds(i64::try_from(millis).unwrap_or(i64::MAX))
}

fn product() -> Fields {
    let mut properties = Fields::new();
    for (key, value) in [
        ("product", env!("CARGO_PKG_NAME")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", std::env::consts::OS),
    ] {
        properties.insert(Symbol::from(key), Value::String(value.to_owned()));
    }
    properties
}
