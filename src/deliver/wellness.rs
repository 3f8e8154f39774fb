//! Whether a sink works, as far as its lanes have seen.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Shared by the lanes of a sink and by those that choose between sinks. An unwell sink counts as
/// well again when its pause is over, so that somebody tries it.
#[derive(Debug)]
pub(super) struct Wellness {
    epoch: Instant,
    /// Milliseconds after the epoch.
    unwell_until: AtomicU64,
}

impl Default for Wellness {
    fn default() -> Self {
        Self { epoch: Instant::now(), unwell_until: AtomicU64::new(0) }
    }
}

impl Wellness {
    pub(super) fn is_well(&self) -> bool {
        let until = self.unwell_until.load(Ordering::Relaxed);
        until == 0 || Instant::now() >= self.epoch + Duration::from_millis(until)
    }

    /// It did not work, and is left alone until then.
    pub(super) fn unwell(&self, until: Instant) {
        let millis = u64::try_from((until - self.epoch).as_millis()).unwrap_or(u64::MAX);
        self.unwell_until.fetch_max(millis, Ordering::Relaxed);
    }

    /// It has answered.
    pub(super) fn well(&self) {
        self.unwell_until.store(0, Ordering::Relaxed);
    }
}
