//! Joins the branches of a fan-out into one outcome per delivery, and tells its source.
//!
//! `model/` has these steps for a model checker: what changes here changes there.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    delivery::{Outcome, Row, Settled, Ties, Token},
    source::InFlight,
    trace::{Process, SpanContext},
};

pub mod keeper;

/// Of a delivery that is not leased.
const ENDLESS: u64 = u64::MAX;

/// A delivery under way. Its branches are the only ones that hold it; the last of them to finish
/// settles it.
#[derive(Debug)]
pub struct Pending {
    token: Token,
    /// When it was received: its lease and its latency count from here.
    pub since: Instant,
    bytes: usize,
    branches: AtomicU32,
    worst: AtomicU64,
    /// Milliseconds after `since` for which its lease is known to last: 0 once it is gone, and
    /// [`ENDLESS`] where it has none.
    lasts: AtomicU64,
    ties: Option<Ties>,
    process: OnceLock<Process>,
    notes: Arc<mpsc::UnboundedSender<Note>>,
}

/// The way to the settling task of a source, which takes each delivery from here to its end.
#[derive(Debug, Clone)]
pub struct Desk {
    notes: Arc<mpsc::UnboundedSender<Note>>,
    /// For how long the source lends each delivery at first.
    lease: Option<Duration>,
}

/// A delivery that is about to begin.
#[derive(Debug)]
pub struct Opening {
    /// What the source settles it by.
    pub token: Token,
    /// When it was received.
    pub since: Instant,
    /// What it counts against the budget.
    pub bytes: usize,
    /// What it depends on beside itself.
    pub ties: Option<Ties>,
    /// Its span, if anything is traced.
    pub process: Option<Process>,
}

impl Desk {
    /// One, and what it is told. `lease` is for how long the source lends each delivery at first.
    #[must_use]
    pub fn new(lease: Option<Duration>) -> (Self, mpsc::UnboundedReceiver<Note>) {
        let (notes, told) = mpsc::unbounded_channel();
        (Self { notes: Arc::new(notes), lease }, told)
    }

    /// Starts a delivery that ends when all of its branches have finished. The settling task must
    /// be [told](Self::opened) before one of them does.
    pub fn open(&self, opening: Opening, branches: u32) -> (Arc<Pending>, Branches) {
        let Opening { token, since, bytes, ties, process } = opening;
        let pending = Arc::new(Pending {
            token,
            since,
            bytes,
            branches: AtomicU32::new(branches),
            worst: AtomicU64::new(0),
            lasts: AtomicU64::new(self.lease.map_or(ENDLESS, millis)),
            ties,
            process: process.map(OnceLock::from).unwrap_or_default(),
            notes: self.notes.clone(),
        });
        (pending.clone(), Branches { pending, left: branches })
    }

    /// Has the leases kept of what was opened. `oldest` is when the service took the oldest of it.
    pub fn opened(&self, pending: Vec<Arc<Pending>>, oldest: Option<OffsetDateTime>) {
        self.tell(Note::Opened { pending, oldest });
    }

    /// Passes on what was told of deliveries that another desk has opened.
    pub fn tell(&self, note: Note) {
        // Without a settling task nothing is kept, and all of it comes again.
        let _ = self.notes.send(note);
    }
}

/// What the settling task of a source is told. The channel is bounded by the source's budget:
/// there is one `Settled` for each delivery that the budget has let in.
#[derive(Debug)]
pub enum Note {
    /// Deliveries came in; their leases are to be kept from now on.
    Opened {
        /// They.
        pending: Vec<Arc<Pending>>,
        /// When the service took the oldest of them.
        oldest: Option<OffsetDateTime>,
    },
    /// One has ended.
    Settled {
        /// How.
        settled: Settled,
        /// What it counted against the budget.
        bytes: usize,
        /// Its span, if it is traced.
        span: Option<SpanContext>,
    },
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(ENDLESS)
}

/// The branches of a delivery that nobody has taken yet. Dropping them unfinished returns it.
#[derive(Debug)]
#[must_use = "a dropped branch returns its delivery to the source"]
pub struct Branches {
    pending: Arc<Pending>,
    left: u32,
}

impl Iterator for Branches {
    type Item = Branch;

    fn next(&mut self) -> Option<Branch> {
        self.left = self.left.checked_sub(1)?;
        Some(Branch { pending: self.pending.clone(), finished: false })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Branches {}

impl Drop for Branches {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// The duty to finish one branch of a delivery. Dropping it unfinished returns the delivery to its
/// source: forgetting can duplicate, never lose.
#[derive(Debug)]
#[must_use = "a dropped branch returns its delivery to the source"]
pub struct Branch {
    pending: Arc<Pending>,
    finished: bool,
}

impl Pending {
    /// What the source settles it by.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Notes that its lease is gone: it will come again, so whoever has not begun to send it
    /// should not.
    pub fn lose(&self) {
        self.lasts.store(0, Ordering::Relaxed);
    }

    /// Notes for how long its lease lasts, whether or not whoever keeps it comes to see that it has
    /// ended.
    fn lasts_until(&self, end: Instant) {
        self.lasts.store(millis(end - self.since), Ordering::Relaxed);
    }

    fn has_lapsed(&self) -> bool {
        match self.lasts.load(Ordering::Relaxed) {
            ENDLESS => false,
            lasts => self.since.elapsed() >= Duration::from_millis(lasts),
        }
    }

    /// Its span, if it is traced.
    #[must_use]
    pub fn span(&self) -> Option<SpanContext> {
        self.process.get()?.context()
    }

    /// Those of its key that are out with it, and its place among them.
    fn row(&self) -> Option<(&Row, i64)> {
        match (&self.ties, &self.token) {
            (Some(Ties { row: Some(row), .. }), Token::Position { sequence, .. }) => {
                Some((row, *sequence))
            }
            _ => None,
        }
    }

    fn finish(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::Returned { .. })
            && let Some((row, sequence)) = self.row()
        {
            // At once, not when the source is told: what is behind it may be about to be sent.
            row.break_at(sequence);
        }
        self.worst.fetch_max(rank(outcome), Ordering::AcqRel);
        let left = self.branches.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == 0 || planted!(FirstBranchSettles) {
            let outcome = outcome_of(self.worst.load(Ordering::Acquire));
            let settled = Settled { token: self.token.clone(), outcome };
            // The settling task outlives all branches, except at a forced end, where an unsettled
            // delivery comes again.
            if let Some(process) = self.process.get() {
                process.end(outcome);
            }
            let (bytes, span) = (self.bytes, self.span());
            let _ = self.notes.send(Note::Settled { settled, bytes, span });
        }
    }
}

impl Branch {
    /// Ends this branch.
    pub fn finish(mut self, outcome: Outcome) {
        self.finished = true;
        self.pending.finish(outcome);
    }

    /// As many branches in the place of this one; none ends it, as returned.
    pub fn split(mut self, count: u32) -> Branches {
        // This one is among them, so that the delivery cannot end meanwhile.
        self.pending.branches.fetch_add(count.saturating_sub(1), Ordering::AcqRel);
        self.finished = count > 0;
        Branches { pending: self.pending.clone(), left: count }
    }

    /// Whether the lease is gone, or another replica has the partition, so that sending now would
    /// only duplicate; or one before it in its key has gone back, so that it would overtake.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let Pending { ties, token, .. } = &*self.pending;
        let is_cut = || match (ties, token) {
            (Some(ties), Token::Position { sequence, .. }) => ties.are_cut(*sequence),
            _ => false,
        };
        self.pending.has_lapsed() || is_cut()
    }

    /// Begins the span of a delivery that had none, because it was not known what would be done with
    /// it.
    pub fn trace(&self, process: Process) {
        // One that has a span keeps it.
        let _ = self.pending.process.set(process);
    }

    /// The span of the delivery, if anything is traced: that of one that has failed is recorded.
    #[must_use]
    pub fn failed_span(&self) -> Option<SpanContext> {
        Some(self.pending.process.get()?.failed())
    }

    /// The span of the delivery, if it is traced.
    #[must_use]
    pub fn span(&self) -> Option<SpanContext> {
        self.pending.span()
    }

    /// When the delivery was received.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.pending.since
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        if !self.finished && planted!(ForgottenIsDone) {
            self.pending.finish(Outcome::Delivered);
        } else if !self.finished {
            self.pending.finish(Outcome::Returned { after: None });
        }
    }
}

/// Outcomes in one word, the worst highest: a delivery is returned if any branch was, and counts
/// as dead-lettered if any branch did. The longest delay wins.
fn rank(outcome: Outcome) -> u64 {
    const STEP: u64 = 1 << 60;
    match outcome {
        Outcome::Filtered => STEP,
        Outcome::Duplicate => 2 * STEP,
        Outcome::Delivered => 3 * STEP,
        Outcome::DeadLettered => 4 * STEP,
        Outcome::Returned { after } => {
            let millis = u64::try_from(after.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            5 * STEP + millis.min(STEP - 1)
        }
    }
}

fn outcome_of(rank: u64) -> Outcome {
    match rank >> 60 {
        1 => Outcome::Filtered,
        2 => Outcome::Duplicate,
        3 => Outcome::Delivered,
        4 => Outcome::DeadLettered,
        _ => {
            let millis = rank & ((1 << 60) - 1);
            Outcome::Returned { after: (millis > 0).then(|| Duration::from_millis(millis)) }
        }
    }
}

/// Bounds what is between receive and settle.
#[derive(Debug)]
pub struct Budget {
    max: InFlight,
    events: AtomicUsize,
    bytes: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// An empty one.
    #[must_use]
    pub fn new(max: InFlight) -> Self {
        Self { max, events: 0.into(), bytes: 0.into(), freed: Notify::new() }
    }

    /// Waits until there is room for another batch. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let (events, bytes) = self.in_flight();
            if events < self.max.events && bytes < self.max.bytes.0 {
                return;
            }
            freed.await;
        }
    }

    /// Waits until nothing is in flight. Cancel-safe.
    pub async fn empty(&self) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.in_flight().0 == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Events and bytes in flight.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.events.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    /// Whether half of it is taken.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        let (events, bytes) = self.in_flight();
        events >= self.max.events.div_ceil(2) || bytes >= self.max.bytes.0.div_ceil(2)
    }

    /// Takes a batch in, whatever its size: what was received is here already.
    pub fn take(&self, events: usize, bytes: usize) {
        self.events.fetch_add(events, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Lets settled events go.
    pub fn free(&self, events: usize, bytes: usize) {
        self.events.fetch_sub(events, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(token: Token, ties: Option<Ties>) -> Opening {
        Opening { token, since: Instant::now(), bytes: 7, ties, process: None }
    }

    fn ends(outcomes: &[Option<Outcome>]) -> Outcome {
        let (desk, mut told) = Desk::new(None);
        let token = Token::Lease { serial: 1, handle: "h".into() };
        let count = u32::try_from(outcomes.len()).unwrap();
        let (_, branches) = desk.open(opening(token, None), count);
        for (branch, outcome) in branches.zip(outcomes) {
            assert!(told.try_recv().is_err(), "settled before its last branch");
            match outcome {
                Some(outcome) => branch.finish(*outcome),
                None => drop(branch),
            }
        }
        match told.try_recv() {
            Ok(Note::Settled { settled, bytes: 7, span: None }) => settled.outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_behind_a_returned_event_of_its_key_is_not_to_be_sent() {
        let (desk, mut told) = Desk::new(None);
        let (tenure, row) = (crate::delivery::Tenure::begin(), Some(Row::new()));
        let ties = Ties { tenure, row };
        let mut branches = Vec::new();
        for sequence in 0..3 {
            let token = Token::Position { partition: "0".into(), tenure: 0, sequence };
            branches.extend(desk.open(opening(token, Some(ties.clone())), 1).1);
        }
        let mut branches = branches.into_iter();
        let (first, second, third) =
            (branches.next().unwrap(), branches.next().unwrap(), branches.next().unwrap());
        second.finish(Outcome::Returned { after: None });
        assert!(!first.is_lost(), "it was before it");
        assert!(third.is_lost());
        first.finish(Outcome::Delivered);
        drop(third);
        assert!(told.try_recv().is_ok());
    }

    #[test]
    fn a_fan_out_ends_with_its_worst_branch() {
        use Outcome::{DeadLettered, Delivered, Filtered, Returned};
        let soon = Returned { after: Some(Duration::from_millis(5)) };
        let late = Returned { after: Some(Duration::from_secs(9)) };
        assert_eq!(ends(&[Some(Delivered), Some(Filtered)]), Delivered);
        assert_eq!(ends(&[Some(Delivered), Some(DeadLettered)]), DeadLettered);
        assert_eq!(ends(&[Some(late), Some(DeadLettered), Some(soon)]), late);
    }

    #[test]
    fn a_branch_that_is_split_ends_with_the_last_of_its_parts() {
        let (desk, mut told) = Desk::new(None);
        let token = Token::Lease { serial: 1, handle: "h".into() };
        let (_, mut branches) = desk.open(opening(token.clone(), None), 1);
        let mut parts = branches.next().unwrap().split(3);
        parts.next().unwrap().finish(Outcome::Delivered);
        parts.next().unwrap().finish(Outcome::DeadLettered);
        assert!(told.try_recv().is_err(), "settled before its last part");
        parts.next().unwrap().finish(Outcome::Delivered);
        let Ok(Note::Settled { settled, .. }) = told.try_recv() else { panic!("not settled") };
        assert_eq!(settled.outcome, Outcome::DeadLettered);
        let (_, mut branches) = desk.open(opening(token, None), 1);
        assert_eq!(branches.next().unwrap().split(0).len(), 0);
        let Ok(Note::Settled { settled, .. }) = told.try_recv() else { panic!("not settled") };
        assert_eq!(settled.outcome, Outcome::Returned { after: None });
    }

    #[test]
    fn a_forgotten_branch_returns_the_delivery() {
        assert_eq!(ends(&[Some(Outcome::Delivered), None]), Outcome::Returned { after: None });
    }
}
