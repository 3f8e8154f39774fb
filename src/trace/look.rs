//! Spans for whoever looks: those of the next deliveries, whatever the share says and whether there
//! is a collector or not.
//!
//! Where nobody looks, a delivery costs one load. Where somebody does, each is asked about, and so
//! many are chosen and no more: only what is about these is handed over.

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
    /// The spans of its deliveries, and of those that were chosen and have not ended.
    deliveries: HashSet<u64>,
    chosen: HashSet<u64>,
    send: mpsc::Sender<Heard>,
    dropped: Arc<AtomicU64>,
}

/// A span that a look has heard of.
#[derive(Debug)]
pub struct Heard {
    /// It.
    pub span: Span,
    /// Whether it is one of the deliveries that were asked for, and not of what came of them.
    pub is_chosen: bool,
}

/// One look. It ends when it is dropped.
#[derive(Debug)]
pub struct Look {
    looks: Arc<Looks>,
    number: u64,
    spans: mpsc::Receiver<Heard>,
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
            chosen: HashSet::new(),
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

    /// Whether somebody wants the delivery with this span, which these routes take. One that passes
    /// while another is asked about is wanted by nobody: no delivery waits for this.
    pub(super) fn want<'a>(
        &self,
        context: SpanContext,
        routes: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        if !self.are_open() {
            return false;
        }
        let Ok(mut all) = self.all.try_lock() else { return false };
        let mut is_wanted = false;
        for look in all.iter_mut() {
            let is_meant = || match &look.route {
                None => true,
                Some(route) => routes.clone().any(|taken| *taken == **route),
            };
            let goes_on = look.follows && look.traces.contains(&context.trace);
            let is_new = !goes_on && look.left > 0 && is_meant();
            if !(is_new || goes_on) || look.deliveries.len() >= DELIVERIES_MAX {
                continue;
            }
            if is_new {
                look.left -= 1;
                look.traces.insert(context.trace);
                look.chosen.insert(context.span);
            }
            look.deliveries.insert(context.span);
            is_wanted = true;
        }
        is_wanted
    }

    /// A span has ended: whoever looks at a delivery that it is about is told.
    pub(super) fn pass(&self, span: &Span) {
        let looked_at = || span.links.iter().filter(|link| link.is_looked_at);
        if !self.are_open() || !(span.context.is_looked_at || looked_at().next().is_some()) {
            return;
        }
        let about =
            || looked_at().map(|link| link.span).chain(span.parent).chain([span.context.span]);
        for look in self.all().iter_mut() {
            if !about().any(|span| look.deliveries.contains(&span)) {
                continue;
            }
            let is_chosen = look.chosen.remove(&span.context.span);
            // Whoever has left takes the look away.
            if look.send.try_send(Heard { span: span.clone(), is_chosen }).is_err() {
                look.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends all of them.
    pub fn end(&self) {
        let mut all = self.all();
        all.clear();
        self.open.store(0, Ordering::Release);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// The next span that has ended; none once it was [ended](Looks::end). Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
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
