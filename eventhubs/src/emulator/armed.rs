//! Which faults are armed, and when each strikes.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::fault::{After, Fault, Kind, Place};

/// Moments at which a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A client has opened its connection.
    Open,
    /// Bytes came from a client.
    Bytes,
    /// A client wants to attach a link.
    Attach,
    /// A link has been attached.
    Attached,
    /// A transfer came from a publisher.
    Transfer,
    /// Events are about to be kept.
    Append,
    /// An event is about to be delivered.
    Delivery,
    /// A token came.
    Cbs,
    /// A question came.
    Mgmt,
}

impl Fault {
    fn strikes_at(&self, moment: Moment) -> bool {
        match (&self.kind, self.after) {
            (kind, Some(After::Events(_))) if kind.is_of_connection() || kind.is_of_link() => {
                matches!(moment, Moment::Transfer | Moment::Delivery)
            }
            (kind, Some(After::Bytes(_))) if kind.is_of_connection() => moment == Moment::Bytes,
            (kind, Some(After::Bytes(_))) if kind.is_of_link() => {
                matches!(moment, Moment::Transfer | Moment::Delivery)
            }
            (kind, _) if kind.is_of_connection() && !self.scope.names_a_link() => {
                moment == Moment::Open
            }
            (kind, _) if kind.is_of_connection() || kind.is_of_link() => moment == Moment::Attached,
            (Kind::Cbs { .. } | Kind::CbsSilent, _) => moment == Moment::Cbs,
            (Kind::Mgmt { .. } | Kind::MgmtSilent, _) => moment == Moment::Mgmt,
            (Kind::AttachRefuse { .. } | Kind::CreditZero | Kind::StaleOffset, _) => {
                moment == Moment::Attach
            }
            (Kind::DupDelivery, _) => moment == Moment::Delivery,
            (Kind::Gap { .. }, _) => moment == Moment::Append,
            _ => moment == Moment::Transfer,
        }
    }

    /// Whether it also strikes what is there already when it is armed.
    pub(crate) fn strikes_the_living(&self) -> bool {
        (self.kind.is_of_connection() || self.kind.is_of_link())
            && matches!(self.after, None | Some(After::Ms(_)))
    }
}

/// The faults that are still to strike.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Mutex<Vec<Armed>>,
    /// Length of the list: nothing is locked on the way of every event while no fault is armed.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    id: u64,
    since: Instant,
    events: u64,
    bytes: u64,
}

impl Armed {
    /// Takes note of what passed, and says whether enough had passed before.
    fn is_due(&mut self, events: u64, bytes: u64) -> bool {
        let due = match self.fault.after {
            None => true,
            Some(After::Events(wanted)) => self.events >= wanted,
            Some(After::Bytes(wanted)) => self.bytes >= wanted,
            Some(After::Ms(wanted)) => self.since.elapsed() >= Duration::from_millis(wanted),
        };
        self.events += events;
        self.bytes += bytes;
        due
    }
}

impl Faults {
    pub(crate) fn arm(&self, id: u64, fault: Fault) {
        if fault.count == 0 {
            return;
        }
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(Armed { fault, id, since: Instant::now(), events: 0, bytes: 0 });
        self.count.store(armed.len(), Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.count.store(0, Ordering::Relaxed);
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        let armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.iter().map(|armed| armed.fault.clone()).collect()
    }

    /// Takes one strike from the fault with this id, if it has any left.
    pub(crate) fn spend(&self, id: u64) -> bool {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = armed.iter().position(|armed| armed.id == id) else { return false };
        armed[index].fault.count -= 1;
        if armed[index].fault.count == 0 {
            armed.remove(index);
        }
        self.count.store(armed.len(), Ordering::Relaxed);
        true
    }

    /// What strikes at this moment and place, while so much passes.
    pub(crate) fn strike(
        &self,
        moment: Moment,
        place: &Place,
        events: u64,
        bytes: u64,
    ) -> Option<Fault> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = None;
        for candidate in armed.iter_mut() {
            if candidate.fault.strikes_at(moment)
                && candidate.fault.scope.contains(place)
                && candidate.is_due(events, bytes)
                && due.is_none()
            {
                due = Some((candidate.id, candidate.fault.clone()));
            }
        }
        drop(armed);
        let (id, fault) = due?;
        self.spend(id);
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::fault::{LinkKind, Scope};

    fn place(link: LinkKind) -> Place {
        Place { conn: 1, link: Some(link), hub: Some("Orders".into()), ..Place::default() }
    }

    #[test]
    fn a_fault_strikes_as_often_as_asked_and_only_within_its_scope() {
        let faults = Faults::default();
        let scope = Scope { hub: Some("orders".into()), ..Scope::link(LinkKind::Send) };
        faults.arm(1, Fault::new(Kind::Released).within(scope).times(2));
        let strike = |link| faults.strike(Moment::Transfer, &place(link), 1, 0).is_some();
        assert!(!strike(LinkKind::Recv));
        assert_eq!(
            [strike(LinkKind::Send), strike(LinkKind::Send), strike(LinkKind::Send)],
            [true, true, false]
        );
    }

    #[test]
    fn a_fault_waits_for_what_has_to_pass() {
        let faults = Faults::default();
        faults.arm(1, Fault::new(Kind::Rst).after(After::Events(2)));
        let strike = || faults.strike(Moment::Delivery, &place(LinkKind::Recv), 1, 0).is_some();
        assert_eq!([strike(), strike(), strike(), strike()], [false, false, true, false]);
    }
}
