//! The task that owns a source's settling half: it keeps the leases of what is open, settles what
//! has ended in full batches, and writes checkpoints.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

mod done;

use super::{Budget, Note, Pending};
use crate::{
    deliver::backoff::Backoff,
    delivery::{Outcome, Settled, Token},
    fault::Verdict,
    source::{Extended, Lease, Settle, earlier},
    telemetry::SourceMetrics,
    trace::Operation,
};
use done::{BATCH, Done, Ended};

/// How often checkpoints are written: at most this much is repeated after a crash.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// How often the service is asked what waits there.
const BACKLOG_EVERY: Duration = Duration::from_secs(15);
/// How long that may take, while nothing is settled.
const BACKLOG_MAX: Duration = Duration::from_secs(2);
/// An intake that has been told to stop ends within about a second; longer than this its last
/// deliveries are not waited for.
const INTAKE_MAX: Duration = Duration::from_secs(2);
/// Leases are given up this long before the service's own total ends.
const TOTAL_MARGIN: Duration = Duration::from_secs(600);
/// Nothing is due: far enough to be no deadline.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// The settling task of one source.
pub struct Keeper {
    settle: Box<dyn Settle>,
    lease: Option<Lease>,
    notes: mpsc::UnboundedReceiver<Note>,
    /// Freed when a settlement is confirmed, not before.
    budget: Arc<Budget>,
    metrics: SourceMetrics,
    done: Done,
    held: Leases,
}

/// Open leases, in the order in which they fall due.
#[derive(Debug, Default)]
struct Leases {
    open: HashMap<Token, Held>,
    /// When each falls due. May hold some that are not open any more.
    due: BTreeSet<(Instant, Token)>,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// When it ends, unless it is extended.
    until: Instant,
    /// When its service took the oldest that was received with it.
    enqueued: Option<OffsetDateTime>,
    pending: Weak<Pending>,
}

impl Keeper {
    /// A keeper that has nothing open.
    #[must_use]
    pub fn new(
        settle: Box<dyn Settle>,
        lease: Option<Lease>,
        notes: mpsc::UnboundedReceiver<Note>,
        budget: Arc<Budget>,
        metrics: SourceMetrics,
    ) -> Self {
        Self {
            settle,
            lease,
            notes,
            budget,
            metrics,
            done: Done::default(),
            held: Leases::default(),
        }
    }

    /// Runs until `stop`, or until nothing is open and nothing can come any more. Whoever cancels
    /// `stop` has made sure that nothing more will end, or no longer cares: what has ended by then
    /// is settled as far as one more try of each goes.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut can_come = true;
        let mut checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
        let mut backlog_at = Instant::now();
        let mut notes = Vec::with_capacity(BATCH);
        // What could not be settled is tried again, though nothing more comes.
        while can_come || !self.done.is_empty() {
            let now = Instant::now();
            let extend_at = self.held.next_due();
            // Timers are a millisecond late: a lease that is due, or a full batch, waits for none.
            if extend_at <= now {
                self.extend().await;
                // A service that refuses extensions for long must not hold up the rest.
                while let Ok(note) = self.notes.try_recv() {
                    self.note(note, now);
                }
                self.flush().await;
                continue;
            }
            if self.done.fills_a_batch() && !stop.is_cancelled() {
                self.flush().await;
                continue;
            }
            let flush_at = self.done.due().unwrap_or(now + NEVER);
            tokio::select! {
                biased;
                () = sleep_until(extend_at) => {}
                () = sleep_until(flush_at) => self.flush().await,
                () = sleep_until(checkpoint_at) => {
                    checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
                    self.checkpoint().await;
                }
                count = self.notes.recv_many(&mut notes, BATCH), if can_come => {
                    can_come = count > 0;
                    let now = Instant::now();
                    notes.drain(..).for_each(|note| self.note(note, now));
                }
                () = sleep_until(backlog_at) => {
                    backlog_at = Instant::now() + BACKLOG_EVERY;
                    self.backlog().await;
                }
                () = stop.cancelled() => break,
            }
        }
        // What a last poll still brought goes back, too.
        let until = Instant::now() + INTAKE_MAX;
        while let Ok(Some(note)) = timeout_at(until, self.notes.recv()).await {
            self.note(note, Instant::now());
        }
        self.give_back();
        for _ in 0..self.done.hasten() {
            self.flush().await;
        }
        self.checkpoint().await;
    }

    fn note(&mut self, note: Note, now: Instant) {
        match note {
            Note::Opened { pending, oldest } => {
                if let Some(lease) = self.lease {
                    self.held.hold(pending, oldest, lease.duration);
                }
            }
            Note::Settled { settled, bytes, span } => {
                if self.lease.is_some() {
                    self.held.open.remove(&settled.token);
                }
                self.metrics.settled(settled.outcome);
                self.done.push(Ended { settled, bytes, span, failures: 0 }, now);
            }
        }
    }

    /// Gives back what is still open, as it came: a sink that does not answer is not waited for. If it
    /// has the event all the same, that comes twice.
    fn give_back(&mut self) {
        let now = Instant::now();
        let mut open: Vec<_> = self.held.open.drain().collect();
        open.sort_unstable_by(|one, other| (one.1.since, &one.0).cmp(&(other.1.since, &other.0)));
        for (token, held) in open {
            // One that is gone has ended, and was told of.
            let Some(pending) = held.pending.upgrade() else { continue };
            pending.lose();
            let settled = Settled { token, outcome: Outcome::Returned { after: None } };
            self.metrics.settled(settled.outcome);
            let (bytes, span) = (pending.bytes, pending.span());
            self.done.push(Ended { settled, bytes, span, failures: 0 }, now);
        }
    }

    /// Settles what is ready. What fails stays, to be tried again.
    async fn flush(&mut self) {
        let now = Instant::now();
        let ready = self.done.batch(now);
        if ready.is_empty() {
            return;
        }
        failpoint!(BeforeSettle);
        let traced = ready.iter().filter_map(|ended| ended.span);
        let span = self.metrics.span(Operation::Settle, ready.len(), traced);
        let failed = self.settle.settle(ready.iter().map(|e| e.settled.clone()).collect()).await;
        if let Some(span) = span {
            span.end(failed.first().map(|(_, fault)| fault.class));
        }
        let mut failed: HashMap<_, _> =
            failed.into_iter().map(|(settled, fault)| (settled.token, fault)).collect();
        let (mut events, mut bytes) = (0, 0);
        for mut ended in ready {
            let fault = failed.remove(&ended.settled.token);
            match fault {
                Some(fault) if fault.verdict != Verdict::Reject => {
                    self.metrics.settle_failed(&fault);
                    tracing::warn!(source = %self.metrics.source, error = %fault, "settling failed, will retry");
                    ended.failures += 1;
                    let again = now + Backoff::SERVICE.delay(ended.failures, None);
                    self.done.again(again, ended);
                    continue;
                }
                Some(fault) => {
                    // The message will come again; that is all that is left to say.
                    self.metrics.settle_failed(&fault);
                    tracing::warn!(source = %self.metrics.source, error = %fault, "settling refused");
                }
                None => {}
            }
            events += 1;
            bytes += ended.bytes;
        }
        self.budget.free(events, bytes);
        self.metrics.in_flight(self.budget.in_flight());
    }

    /// Extends the leases that have run for half their time.
    async fn extend(&mut self) {
        let Some(lease) = self.lease else { return };
        let now = Instant::now();
        let total = lease.total_max.saturating_sub(margin(&lease));
        let (due, expired) = self.held.take_due(now, total);
        if !expired.is_empty() {
            self.metrics.leases_lost(expired.len());
            tracing::warn!(
                source = %self.metrics.source, events = expired.len(),
                "leases have run out: not extended in time, or the service's longest time is over; \
                 the events will come again"
            );
        }
        if due.is_empty() {
            return;
        }
        let by = self.held.extension(&due, now, lease);
        let Extended { lost, unknown, fault } = self.settle.extend(&due, by).await;
        lost.iter().for_each(|token| self.held.lose(token));
        if !lost.is_empty() {
            self.metrics.leases_lost(lost.len());
            tracing::warn!(source = %self.metrics.source, events = lost.len(), "leases lost; the events will come again");
        }
        if let Some(fault) = fault {
            tracing::warn!(source = %self.metrics.source, error = %fault, "extending leases failed, will retry");
        }
        let is_unknown: HashSet<_> = unknown.iter().collect();
        let extended: Vec<_> = due.into_iter().filter(|it| !is_unknown.contains(it)).collect();
        self.held.extended(&extended, now + by);
        self.held.wait(extended, now + by / 2);
        self.held.wait(unknown, Instant::now() + by / 10);
    }

    async fn checkpoint(&mut self) {
        if let Err(fault) = self.settle.checkpoint().await {
            self.metrics.settle_failed(&fault);
            tracing::warn!(source = %self.metrics.source, error = %fault, "writing checkpoints failed, will retry");
        }
    }

    async fn backlog(&mut self) {
        let source = &self.metrics.source;
        match timeout(BACKLOG_MAX, self.settle.backlog()).await {
            Ok(Ok(mut backlog)) => {
                let open = self.held.open.values().map(|held| held.enqueued);
                // What is open is older than what waits, as a rule; a lease keeps it from sight.
                if let Some(one) = backlog.first_mut() {
                    one.oldest = open.fold(one.oldest, earlier);
                }
                self.metrics.backlog(&backlog);
            }
            Ok(Err(error)) => tracing::debug!(%source, %error, "asking for the backlog failed"),
            Err(_) => tracing::debug!(%source, "asking for the backlog takes too long"),
        }
    }
}

/// What is left of the service's longest time when a lease is given up.
fn margin(lease: &Lease) -> Duration {
    TOTAL_MARGIN.min(lease.total_max / 10)
}

impl Leases {
    fn hold(
        &mut self,
        pending: Vec<Arc<Pending>>,
        enqueued: Option<OffsetDateTime>,
        lasts: Duration,
    ) {
        for pending in pending {
            let (since, until) = (pending.since, pending.since + lasts);
            let held = Held { since, until, enqueued, pending: Arc::downgrade(&pending) };
            self.due.insert((since + lasts / 2, pending.token().clone()));
            self.open.insert(pending.token().clone(), held);
        }
    }

    fn next_due(&mut self) -> Instant {
        while let Some((at, token)) = self.due.first() {
            if self.open.contains_key(token) {
                return *at;
            }
            self.due.pop_first();
        }
        Instant::now() + NEVER
    }

    /// Takes out what is due: tokens to extend, and those that must not be extended any more.
    fn take_due(&mut self, now: Instant, total: Duration) -> (Vec<Token>, Vec<Token>) {
        let (mut due, mut expired) = (Vec::new(), Vec::new());
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, token)) = self.due.pop_first() else { break };
            match self.open.get(&token) {
                None => {}
                Some(held) if now - held.since >= total || held.until <= now => {
                    self.lose(&token);
                    expired.push(token);
                }
                Some(_) => due.push(token),
            }
        }
        (due, expired)
    }

    /// How long `due` can be held from now: no longer than the oldest of them has left, since a
    /// service that is asked for more refuses.
    fn extension(&self, due: &[Token], now: Instant, lease: Lease) -> Duration {
        let since = due.iter().filter_map(|token| self.open.get(token)).map(|held| held.since);
        let oldest = since.min().unwrap_or(now);
        let end = lease.total_max.saturating_sub(margin(&lease) / 2);
        lease.duration.min(end.saturating_sub(now - oldest))
    }

    fn lose(&mut self, token: &Token) {
        if let Some(pending) = self.open.remove(token).and_then(|held| held.pending.upgrade()) {
            pending.lose();
        }
    }

    /// The service has taken it: what it was asked before then, it may have done later.
    fn extended(&mut self, tokens: &[Token], until: Instant) {
        for token in tokens {
            if let Some(held) = self.open.get_mut(token) {
                held.until = until;
                if let Some(pending) = held.pending.upgrade() {
                    pending.lasts_until(until);
                }
            }
        }
    }

    fn wait(&mut self, tokens: Vec<Token>, until: Instant) {
        let open = tokens.into_iter().filter(|token| self.open.contains_key(token));
        self.due.extend(open.map(|token| (until, token)));
    }
}

#[cfg(test)]
mod tests;
