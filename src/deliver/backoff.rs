//! How long to wait before the next try.

use std::time::Duration;

/// Exponential back-off with full jitter, bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub min: Duration,
    /// No wait is longer, except at a server's own request (see [`HINT_MAX`]).
    pub max: Duration,
}

/// A server's hint is obeyed up to here: a service that asks for an hour may not park a lane.
pub const HINT_MAX: Duration = Duration::from_secs(300);

impl Backoff {
    /// For connections and whole services, where a route's own setting does not apply.
    pub const SERVICE: Self =
        Self { min: Duration::from_millis(200), max: Duration::from_secs(30) };

    /// The wait after the `failures`-th failure in a row (1 for the first): between half and the
    /// whole of `min` doubled each time, within `max`; never shorter than the server's hint.
    #[must_use]
    pub fn delay(&self, failures: u32, hint: Option<Duration>) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let jittered = doubled.min(self.max).mul_f64(jitter());
        jittered.max(hint.unwrap_or_default().min(HINT_MAX))
    }
}

/// Between a half and one.
fn jitter() -> f64 {
    #[cfg(test)]
    if let Some(jitter) = crate::pipeline::simulation::jitter() {
        return jitter;
    }
    rand::random_range(0.5..=1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_within_its_bounds_and_obeys_the_hint() {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2) };
        for (failures, whole) in [(1, 100), (2, 200), (3, 400), (6, 2000), (u32::MAX, 2000)] {
            let delay = backoff.delay(failures, None);
            let whole = Duration::from_millis(whole);
            assert!(delay >= whole / 2 && delay <= whole, "{failures}: {delay:?}");
        }
        assert_eq!(backoff.delay(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.delay(1, Some(Duration::MAX)), HINT_MAX);
    }
}
