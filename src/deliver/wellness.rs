//! Whether a sink works, as far as its lanes have seen.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Shared by the lanes of a sink and by those that choose between sinks. An unwell sink counts as
/// well again when its pause is over, so that somebody tries it.
#[derive(Debug)]
pub(super) struct Wellness {
    epoch: Instant,
    /// Milliseconds after the epoch, or [`ABSENT`].
    unwell_until: AtomicU64,
    /// Somebody wants it to be left alone, however it is.
    held: AtomicBool,
}

/// It has not connected, and nobody knows when it will.
const ABSENT: u64 = u64::MAX;

impl Default for Wellness {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            unwell_until: AtomicU64::new(0),
            held: AtomicBool::new(false),
        }
    }
}

impl Wellness {
    pub(super) fn is_well(&self) -> bool {
        let until = self.unwell_until.load(Ordering::Relaxed);
        let is_well = until == 0
            || (until != ABSENT && Instant::now() >= self.epoch + Duration::from_millis(until));
        is_well && !self.held.load(Ordering::Relaxed)
    }

    /// Whether it is left alone, however it is.
    pub(super) fn held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// It did not work, and is left alone until then.
    pub(super) fn unwell(&self, until: Instant) {
        let millis = u64::try_from((until - self.epoch).as_millis()).unwrap_or(u64::MAX);
        self.unwell_until.fetch_max(millis, Ordering::Relaxed);
    }

    /// It has not connected yet.
    pub(super) fn absent(&self) {
        self.unwell_until.store(ABSENT, Ordering::Relaxed);
    }

    /// It has answered, or connected.
    pub(super) fn well(&self) {
        self.unwell_until.store(0, Ordering::Relaxed);
    }
}
