//! What passes a pipeline, for whoever looks at it: a copy of some events, never a wait.
//!
//! Where nobody looks, an event costs one load. Where somebody does, what cannot be handed over at
//! once is left out and counted: the flow goes before whoever looks at it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::event::Event;

/// Taps that may be open at once.
pub const TAPS_MAX: usize = 8;
/// Events that wait for whoever looks.
const WAITING_MAX: usize = 16;
/// Bytes of their bodies, which may be far larger than any service allows: compressed ones are
/// whole here. One alone may have more.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The taps of all pipelines of a daemon.
#[derive(Debug, Default)]
pub struct Taps {
    /// How many are open.
    open: AtomicUsize,
    all: Mutex<Vec<Opened>>,
    /// Events that no tap could be asked about, because another event passed at that moment or the
    /// list was being changed.
    missed: AtomicU64,
    /// Tells one from another.
    next: AtomicU64,
}

#[derive(Debug)]
struct Opened {
    number: u64,
    route: Option<Arc<str>>,
    every: u32,
    /// Events that it could have had since the last one that it was meant to have.
    met: u32,
    send: mpsc::Sender<Passed>,
    /// Bytes of what waits.
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// An event that has passed.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The source that brought it.
    pub source: Arc<str>,
    /// The event, as it came.
    pub event: Arc<Event>,
    /// When it passed.
    pub at: OffsetDateTime,
    /// What was planned for it.
    pub fate: Fate,
}

/// What was planned for an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// The routes that took it, in the order of the file.
    pub taken: Vec<Arc<str>>,
    /// The class of the cause for which it is parked without a route.
    pub unrouted: Option<&'static str>,
}

/// One look at what passes. It ends when it is dropped.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    number: u64,
    passed: mpsc::Receiver<Passed>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    missed: u64,
}

impl Taps {
    /// Opens one for the events that this route takes, or for all, and of these for one in
    /// `every`; none while [`TAPS_MAX`] are open.
    #[must_use]
    pub fn open(self: &Arc<Self>, route: Option<Arc<str>>, every: u32) -> Option<Tap> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TAPS_MAX {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, passed) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (every, met) = (every.max(1), 0);
        all.push(Opened {
            number,
            route,
            every,
            met,
            send,
            waiting: waiting.clone(),
            dropped: dropped.clone(),
        });
        self.open.store(all.len(), Ordering::Release);
        let missed = self.missed.load(Ordering::Relaxed);
        Some(Tap { taps: self.clone(), number, passed, waiting, dropped, missed })
    }

    /// Ends all of them.
    pub fn end(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
        self.open.store(0, Ordering::Release);
    }

    /// An event passes. `fate` is asked only if somebody looks.
    pub(super) fn pass(&self, source: &Arc<str>, event: &Arc<Event>, fate: impl FnOnce() -> Fate) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(mut all) = self.all.try_lock() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let fate = fate();
        let wants = |tap: &&mut Opened| match &tap.route {
            None => true,
            Some(route) => fate.taken.contains(route),
        };
        for tap in all.iter_mut().filter(wants) {
            tap.met += 1;
            if tap.met < tap.every {
                continue;
            }
            tap.met = 0;
            let bytes = event.body.len();
            let waiting = tap.waiting.load(Ordering::Relaxed);
            let has_room = waiting == 0 || waiting + bytes <= WAITING_BYTES_MAX;
            let (source, event, fate) = (source.clone(), event.clone(), fate.clone());
            let passed = Passed { source, event, at: OffsetDateTime::now_utc(), fate };
            tap.waiting.fetch_add(bytes, Ordering::Relaxed);
            // Whoever has left takes the tap away.
            if !has_room || tap.send.try_send(passed).is_err() {
                tap.waiting.fetch_sub(bytes, Ordering::Relaxed);
                tap.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tap {
    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> Option<Passed> {
        let passed = self.passed.recv().await?;
        self.waiting.fetch_sub(passed.event.body.len(), Ordering::Relaxed);
        Some(passed)
    }

    /// How many events it was meant to have and could not be handed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let missed = self.taps.missed.load(Ordering::Relaxed) - self.missed;
        self.dropped.load(Ordering::Relaxed) + missed
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut all = self.taps.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|tap| tap.number != self.number);
        self.taps.open.store(all.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::event;

    fn pass(taps: &Taps, id: &str, taken: &[&str]) {
        let event = Arc::new(Event { id: id.into(), ..event() });
        let taken = taken.iter().map(|route| Arc::from(*route)).collect();
        taps.pass(&"near".into(), &event, || Fate { taken, unrouted: None });
    }

    #[tokio::test]
    async fn a_tap_has_one_in_so_many_of_its_route() {
        let taps = Arc::new(Taps::default());
        taps.pass(&"near".into(), &Arc::new(event()), || panic!("nobody looks"));
        let mut tap = taps.open(Some("orders".into()), 2).unwrap();
        for (id, route) in [("1", "orders"), ("2", "other"), ("3", "orders"), ("4", "orders")] {
            pass(&taps, id, &[route]);
        }
        let passed = tap.next().await.unwrap();
        assert_eq!((&*passed.event.id, &*passed.source, tap.dropped()), ("3", "near", 0));
        pass(&taps, "5", &["other", "orders"]);
        assert_eq!(&*tap.next().await.unwrap().event.id, "5");
    }

    #[test]
    fn who_does_not_look_holds_nothing_up_and_is_told_what_was_left_out() {
        let taps = Arc::new(Taps::default());
        let tap = taps.open(None, 1).unwrap();
        (0..WAITING_MAX + 3).for_each(|_| pass(&taps, "1", &[]));
        assert_eq!(tap.dropped(), 3);
        let changing = taps.all.lock().unwrap();
        pass(&taps, "2", &[]);
        drop(changing);
        assert_eq!(tap.dropped(), 4);
        drop(tap);
        assert_eq!((taps.open.load(Ordering::Relaxed), taps.all.lock().unwrap().len()), (0, 0));
    }

    #[tokio::test]
    async fn large_bodies_wait_one_at_a_time() {
        let taps = Arc::new(Taps::default());
        let mut tap = taps.open(None, 1).unwrap();
        let body = bytes::Bytes::from(vec![0; WAITING_BYTES_MAX + 1]);
        let large = Arc::new(Event { body, ..event() });
        for _ in 0..2 {
            (0..3).for_each(|_| taps.pass(&"near".into(), &large, Fate::default));
            tap.next().await.unwrap();
        }
        assert_eq!(tap.dropped(), 4);
        let small = Arc::new(event());
        (0..WAITING_MAX).for_each(|_| taps.pass(&"near".into(), &small, Fate::default));
        assert_eq!(tap.dropped(), 4);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let taps = Arc::new(Taps::default());
        let mut open: Vec<_> = (0..TAPS_MAX).map(|_| taps.open(None, 1).unwrap()).collect();
        assert!(taps.open(None, 1).is_none());
        open.pop();
        assert!(taps.open(None, 1).is_some());
    }
}
