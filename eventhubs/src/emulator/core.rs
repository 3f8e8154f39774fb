//! What all connections and the control API share.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    admission::Displaced,
    armed::{Faults, Moment},
    config::Settings,
    fault::{After, Fault, Kind, Place},
    journal::{Entry, Journal, What},
    namespace::{Hub, Namespace, machine_clock_ms},
    roster::{Connection, Link, Roster, amqp_error},
};
use crate::condition;

/// The emulator's shared state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) roster: Roster,
    settings: RwLock<Settings>,
    ids: AtomicU64,
    reads: Mutex<(Instant, u32)>,
}

impl Core {
    pub(crate) fn new(namespace: Arc<Namespace>, settings: Settings) -> Self {
        Self {
            namespace,
            faults: Faults::default(),
            journal: Journal::default(),
            roster: Roster::default(),
            settings: RwLock::new(settings),
            ids: AtomicU64::new(1),
            reads: Mutex::new((Instant::now(), 0)),
        }
    }

    /// A number that names nothing else.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(crate) fn disposition_delay(&self) -> Duration {
        Duration::from_millis(self.settings().disposition_delay_ms)
    }

    /// The service's clock, in milliseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        machine_clock_ms().saturating_add(self.settings().clock_offset_ms)
    }

    pub(crate) fn note(&self, place: &Place, what: What) {
        self.journal.write(Entry { t: self.now(), place: place.clone(), what });
    }

    /// Whether one more read at `$management` is within the limit of this second.
    pub(crate) fn may_read(&self) -> bool {
        let Some(limit) = self.settings().max_management_reads_per_second else { return true };
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.0.elapsed() >= Duration::from_secs(1) {
            *reads = (Instant::now(), 0);
        }
        reads.1 += 1;
        reads.1 <= limit
    }

    /// Lets the fault happen that is due at this moment and place, if any. Faults of connections,
    /// sessions and links happen by themselves; what is returned is for the caller to carry out.
    pub(crate) fn strike(
        &self,
        moment: Moment,
        place: &Place,
        events: u64,
        bytes: u64,
    ) -> Option<Kind> {
        let fault = self.faults.strike(moment, place, events, bytes)?;
        self.note(place, What::Fault { fault: fault.kind.clone() });
        if self.carry_out(&fault, place) { None } else { Some(fault.kind) }
    }

    /// Carries out a fault of a connection, session or link. `false`: it is none of these.
    fn carry_out(&self, fault: &Fault, place: &Place) -> bool {
        let Some(connection) = self.roster.connection(place.conn) else { return true };
        let link = || {
            let links = connection.links();
            links.into_iter().find(|link| Some(link.id) == place.link_id)
        };
        const TEXT: &str = "The emulator was asked to do this.";
        match &fault.kind {
            Kind::AmqpClose { condition } => {
                let _ = connection.orders.try_send(amqp_error(condition, TEXT));
            }
            Kind::SessionEnd { condition } => {
                if let Some(link) = link() {
                    let _ = link.session_orders.try_send(amqp_error(condition, TEXT));
                }
            }
            Kind::Detach { condition, closed } => {
                if let Some(link) = link() {
                    link.end(amqp_error(condition, TEXT), *closed);
                }
            }
            kind if kind.is_of_connection() => connection.wire.bend(kind, fault.seed),
            _ => return false,
        }
        true
    }

    /// Arms a fault. One that also strikes what is alive already does so now, or after its time.
    pub(crate) fn arm(self: &Arc<Self>, fault: Fault, runtime: &tokio::runtime::Handle) -> u64 {
        let id = self.next_id();
        self.faults.arm(id, fault.clone());
        if !fault.strikes_the_living() {
            return id;
        }
        match fault.after {
            Some(After::Ms(ms)) => {
                let core = Arc::clone(self);
                runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    core.strike_the_living(id, &fault);
                });
            }
            _ => self.strike_the_living(id, &fault),
        }
        id
    }

    fn strike_the_living(&self, id: u64, fault: &Fault) {
        let mut struck = Vec::new();
        let links = self.roster.links().into_iter().map(|link| link.place.clone());
        let connections = self.roster.connections().into_iter().map(|c| c.place());
        let places: Vec<Place> = links.chain(connections).collect();
        for place in places.iter().filter(|place| fault.scope.contains(place)) {
            let subject =
                (place.conn, if fault.kind.is_of_connection() { None } else { place.link_id });
            let is_target = fault.kind.is_of_connection() || place.link_id.is_some();
            if !is_target || struck.contains(&subject) || !self.faults.spend(id) {
                continue;
            }
            struck.push(subject);
            self.note(place, What::Fault { fault: fault.kind.clone() });
            self.carry_out(fault, place);
        }
    }

    /// Sends receivers away that another one has displaced.
    pub(crate) fn displace(&self, displaced: Vec<Displaced>) {
        let links = self.roster.links();
        for gone in displaced {
            if let Some(link) = links.iter().find(|link| link.id == gone.id) {
                link.end(amqp_error(condition::LINK_STOLEN, gone.description), true);
            }
        }
    }

    /// A link has ended, by whatever cause.
    pub(crate) fn ended(&self, connection: &Connection, link: &Link, hub: Option<&Hub>) {
        if let Some(hub) = hub {
            hub.admission.leave(link.id);
        }
        connection.detach(link.id);
        self.note(&link.place, What::Detached);
    }
}
