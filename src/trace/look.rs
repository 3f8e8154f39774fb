//! Spans for whoever looks: those of the next deliveries, whatever the share says and whether there
//! is a collector or not.
//!
//! Where nobody looks, a delivery costs one load. Whoever looks has so many deliveries traced and no
//! more, so that what it costs does not grow with the flow.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{Span, SpanContext};

/// Looks that may be open at once.
pub const LOOKS_MAX: usize = 8;
/// Deliveries of a look, with others of their traces: a producer may have put a million events into
/// one.
const DELIVERIES_MAX: usize = 1_000;
/// Spans that wait for whoever looks.
const WAITING_MAX: usize = 1_024;

/// The looks at a daemon.
#[derive(Debug, Default)]
pub struct Looks {
    /// How many are open.
    open: AtomicUsize,
    all: Mutex<Vec<Opened>>,
    /// Tells one from another.
    next: AtomicU64,
}

#[derive(Debug)]
struct Opened {
    number: u64,
    route: Option<Arc<str>>,
    /// Whether whatever else happens in a trace is wanted, by whichever route.
    follows: bool,
    /// Deliveries that are still to be chosen.
    left: u32,
    traces: HashSet<u128>,
    /// The spans of the deliveries that were chosen.
    deliveries: HashSet<u64>,
    send: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// One look. It ends when it is dropped.
#[derive(Debug)]
pub struct Look {
    looks: Arc<Looks>,
    number: u64,
    spans: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
}

impl Looks {
    /// Looks at the next `deliveries` that this route takes, or at all, and with `follows` at
    /// whatever else happens in their traces; none while [`LOOKS_MAX`] are open.
    #[must_use]
    pub fn open(
        self: &Arc<Self>,
        route: Option<Arc<str>>,
        deliveries: u32,
        follows: bool,
    ) -> Option<Look> {
        let mut all = self.all();
        if all.len() >= LOOKS_MAX {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, spans) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::<AtomicU64>::default();
        all.push(Opened {
            number,
            route,
            follows,
            left: deliveries,
            traces: HashSet::new(),
            deliveries: HashSet::new(),
            send,
            dropped: dropped.clone(),
        });
        self.open.store(all.len(), Ordering::Release);
        Some(Look { looks: self.clone(), number, spans, dropped })
    }

    /// Whether anybody looks.
    pub(super) fn are_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody wants the delivery with this span, which these routes take.
    pub(super) fn want<'a>(
        &self,
        context: SpanContext,
        routes: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        if !self.are_open() {
            return false;
        }
        let mut is_wanted = false;
        for look in self.all().iter_mut() {
            let is_meant = || match &look.route {
                None => true,
                Some(route) => routes.clone().any(|taken| *taken == **route),
            };
            let is_new = look.left > 0 && is_meant();
            let goes_on = look.follows && look.traces.contains(&context.trace);
            if !(is_new || goes_on) || look.deliveries.len() >= DELIVERIES_MAX {
                continue;
            }
            if !goes_on {
                look.left -= 1;
                look.traces.insert(context.trace);
            }
            look.deliveries.insert(context.span);
            is_wanted = true;
        }
        is_wanted
    }

    /// A span has ended: whoever looks at a delivery that it is about is told.
    pub(super) fn pass(&self, span: &Span) {
        if !self.are_open() {
            return;
        }
        let links = span.links.iter().map(|link| link.span);
        let about = links.chain(span.parent).chain([span.context.span]);
        for look in self.all().iter() {
            // Whoever has left takes the look away.
            if about.clone().any(|span| look.deliveries.contains(&span))
                && look.send.try_send(span.clone()).is_err()
            {
                look.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// The next span that has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Span> {
        self.spans.recv().await
    }

    /// How many spans came too fast to be told.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut all = self.looks.all();
        all.retain(|look| look.number != self.number);
        self.looks.open.store(all.len(), Ordering::Release);
    }
}
