//! What has ended and its source has not confirmed.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{delivery::Settled, trace::SpanContext};

/// A settlement waits this long for company, so that services are asked in full batches.
const LINGER: Duration = Duration::from_millis(20);
/// Settlements handed over at once; connectors cut them into requests of their own size. Few
/// enough that leases which fall due meanwhile do not wait for long.
pub(super) const BATCH: usize = 100;

/// An ended delivery that the source has not confirmed.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) settled: Settled,
    pub(super) bytes: usize,
    pub(super) span: Option<SpanContext>,
    pub(super) failures: u32,
}

/// What has ended and is to be settled.
#[derive(Debug, Default)]
pub(super) struct Done {
    ready: VecDeque<Ended>,
    /// Since when those wait for company.
    since: Option<Instant>,
    /// What could not be settled, and when it is tried again.
    failed: Vec<(Instant, Ended)>,
}

impl Done {
    pub(super) fn push(&mut self, ended: Ended, now: Instant) {
        self.since.get_or_insert(now);
        self.ready.push_back(ended);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.failed.is_empty()
    }

    /// Whether it can be settled at once, because that is as many as are settled together.
    pub(super) fn fills_a_batch(&self) -> bool {
        self.ready.len() >= BATCH
    }

    /// When what is here has had company for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let again = self.failed.iter().map(|(at, _)| *at);
        again.chain(self.since).min().map(|at| at + LINGER)
    }

    /// Takes out what is settled next.
    pub(super) fn batch(&mut self, now: Instant) -> Vec<Ended> {
        let due = self.failed.extract_if(.., |(at, _)| *at <= now).map(|(_, ended)| ended);
        self.ready.extend(due);
        let batch = self.ready.drain(..self.ready.len().min(BATCH)).collect();
        self.since = (!self.ready.is_empty()).then_some(now);
        batch
    }

    /// It could not be settled; it is tried again at that time.
    pub(super) fn again(&mut self, at: Instant, ended: Ended) {
        self.failed.push((at, ended));
    }

    /// Nothing waits any longer. Answers how many batches that makes: what fails in one of them and
    /// falls due meanwhile comes behind all of these.
    pub(super) fn hasten(&mut self) -> usize {
        self.ready.extend(self.failed.drain(..).map(|(_, ended)| ended));
        self.ready.len().div_ceil(BATCH)
    }
}
