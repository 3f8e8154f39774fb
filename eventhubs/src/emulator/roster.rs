//! The connections and links that are alive, and the means to end them from outside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use fe2o3_amqp_types::definitions::{Error as AmqpError, ErrorCondition, Fields};
use fe2o3_amqp_types::primitives::{Symbol, Value};
use tokio::sync::mpsc;

use super::{fault::Place, wire::Wire};

/// The live connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// A live connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) wire: Wire,
    pub(crate) since: Instant,
    /// Known once the client has opened.
    pub(crate) container: OnceLock<String>,
    /// Ends the connection; the first order counts.
    pub(crate) orders: mpsc::Sender<AmqpError>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// When a token was last put, by hub in lower case.
    tokens: Mutex<BTreeMap<String, Instant>>,
    /// When the last link ended.
    idle_since: Mutex<Option<Instant>>,
    pub(crate) cbs_pairs: AtomicU64,
}

/// A live link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) epoch: Option<i64>,
    pub(crate) properties: String,
    /// Ends the link; the first order counts.
    pub(crate) orders: mpsc::Sender<LinkOrder>,
    /// Ends the session that the link is part of; the first order counts.
    pub(crate) session_orders: mpsc::Sender<AmqpError>,
    pub(crate) events: AtomicU64,
    /// The newest event that was delivered; -1 when there is none.
    pub(crate) last_delivered: AtomicI64,
    active: Mutex<Instant>,
}

/// An order to end a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkOrder {
    pub(crate) error: AmqpError,
    pub(crate) closed: bool,
}

/// An error as the service writes it: with a description and with an info map, without which the
/// Python client cannot read it.
pub(crate) fn amqp_error(condition: &str, description: impl Into<String>) -> AmqpError {
    let mut info = Fields::new();
    info.insert(Symbol::from("tracking-id"), Value::String("emulator".to_owned()));
    AmqpError::new(ErrorCondition::Custom(Symbol::from(condition)), description.into(), info)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    pub(crate) fn enter(&self, id: u64, orders: mpsc::Sender<AmqpError>) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            id,
            wire: Wire::new(),
            since: Instant::now(),
            container: OnceLock::new(),
            orders,
            links: Mutex::default(),
            tokens: Mutex::default(),
            idle_since: Mutex::default(),
            cbs_pairs: AtomicU64::new(0),
        });
        lock(&self.connections).insert(id, Arc::clone(&connection));
        connection
    }

    pub(crate) fn leave(&self, id: u64) {
        lock(&self.connections).remove(&id);
    }

    pub(crate) fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        lock(&self.connections).get(&id).cloned()
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).values().cloned().collect()
    }

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.connections().iter().flat_map(|connection| connection.links()).collect()
    }
}

impl Connection {
    pub(crate) fn place(&self) -> Place {
        Place { conn: self.id, client_container: self.container.get().cloned(), ..Place::default() }
    }

    pub(crate) fn attach(&self, link: Arc<Link>) {
        lock(&self.links).insert(link.id, link);
    }

    pub(crate) fn detach(&self, id: u64) {
        let mut links = lock(&self.links);
        links.remove(&id);
        if links.is_empty() {
            *lock(&self.idle_since) = Some(Instant::now());
        }
    }

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.links).values().cloned().collect()
    }

    /// Since when there has been no link, and whether there ever was one.
    pub(crate) fn idle_since(&self) -> Option<(Instant, bool)> {
        if !lock(&self.links).is_empty() {
            return None;
        }
        let last = *lock(&self.idle_since);
        Some((last.unwrap_or(self.since), last.is_some()))
    }

    pub(crate) fn put_token(&self, hub: &str) {
        lock(&self.tokens).insert(hub.to_lowercase(), Instant::now());
    }

    pub(crate) fn token_put_at(&self, hub: &str) -> Option<Instant> {
        lock(&self.tokens).get(&hub.to_lowercase()).copied()
    }
}

impl Link {
    pub(crate) fn new(
        place: Place,
        name: String,
        orders: mpsc::Sender<LinkOrder>,
        session_orders: mpsc::Sender<AmqpError>,
    ) -> Self {
        Self {
            id: place.link_id.unwrap_or_default(),
            place,
            name,
            epoch: None,
            properties: String::new(),
            orders,
            session_orders,
            events: AtomicU64::new(0),
            last_delivered: AtomicI64::new(-1),
            active: Mutex::new(Instant::now()),
        }
    }

    /// Takes note that events passed.
    pub(crate) fn passed(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        *lock(&self.active) = Instant::now();
    }

    pub(crate) fn active_at(&self) -> Instant {
        *lock(&self.active)
    }

    /// Orders the link to end, unless it has been ordered to already.
    pub(crate) fn end(&self, error: AmqpError, closed: bool) {
        let _ = self.orders.try_send(LinkOrder { error, closed });
    }
}
