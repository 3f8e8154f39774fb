//! How many requests to a sink are under way at once. Pure: time is handed in.

use std::{ops::RangeInclusive, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::problem::Finding;

/// How many requests to a sink are under way at once: more for as long as it answers as fast as
/// ever, fewer when it throttles or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Concurrency")]
pub struct ConcurrencyConfig {
    /// Never fewer, and as many at first.
    pub min: usize,
    /// Never more. Without it: what the kind of sink is known to bear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self { min: 1, max: None }
    }
}

/// Each has a lane of its own, with a queue.
const REQUESTS: RangeInclusive<usize> = 1..=256;

impl ConcurrencyConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, number) in [("min", Some(self.min)), ("max", self.max)] {
            if let Some(number) = number.filter(|number| !REQUESTS.contains(number)) {
                let (least, most) = REQUESTS.into_inner();
                let text = format!("{number} is out of bounds; from {least} to {most} is allowed");
                findings.push(Finding::new(text).below(name));
            }
        }
        if let Some(max) = self.max.filter(|max| findings.is_empty() && *max < self.min) {
            let text = format!("{max} is less than `min`, {}; make it greater", self.min);
            findings.push(Finding::new(text).below("max"));
        }
        findings
    }
}

/// What is left of the limit when the service throttles.
const BACK_OFF: f64 = 0.7;
/// Latency holds while it is within this of the best.
const TOLERANCE: f64 = 2.0;
/// Differences that say nothing about load.
const NOISE: f64 = 0.005;
/// How much one answer weighs in the mean latency.
const SMOOTHING: f64 = 0.2;
/// How much one slower answer weighs against the best latency: what lasts is the new normal.
const FORGETTING: f64 = 0.01;

/// The limit of requests under way. It grows by one for each answer at first, and after the first
/// sign of trouble by one for each round of answers; trouble takes it down by a third.
#[derive(Debug)]
pub(super) struct Concurrency {
    min: f64,
    max: f64,
    limit: f64,
    /// Whether there has been no trouble yet.
    quick: bool,
    /// Seconds: the mean of late, and the best, both fading.
    latency: Option<(f64, f64)>,
    /// When it was taken down: what was sent before says nothing of the limit since.
    lowered: Option<Instant>,
}

impl Concurrency {
    /// One for a sink that bears `known` requests at once.
    pub(super) fn new(config: ConcurrencyConfig, known: usize) -> Self {
        let max = config.max.unwrap_or(known).max(1);
        let min = config.min.clamp(1, max) as f64;
        Self { min, max: max as f64, limit: min, quick: true, latency: None, lowered: None }
    }

    /// Requests that may be under way at once; at least one.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// The most that the limit can ever be.
    pub(super) fn max(&self) -> usize {
        self.max as usize
    }

    /// A request that took so long was answered; `under_way` were when it was, itself included.
    pub(super) fn answered(&mut self, took: Duration, under_way: usize) {
        let took = took.as_secs_f64();
        let (mean, best) = self.latency.unwrap_or((took, took));
        let mean = mean + SMOOTHING * (took - mean);
        let best = if took < best { took } else { best + FORGETTING * (took - best) };
        self.latency = Some((mean, best));
        if mean > best * TOLERANCE + NOISE {
            self.quick = false;
            return;
        }
        // A limit that is not reached is not tried.
        if under_way >= self.limit() {
            let step = if self.quick { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + step).min(self.max);
        }
    }

    /// A request that was sent then was throttled, or not answered.
    pub(super) fn throttled(&mut self, sent: Instant, now: Instant) {
        if self.lowered.is_some_and(|lowered| sent < lowered) {
            return;
        }
        (self.quick, self.lowered) = (false, Some(now));
        self.limit = (self.limit * BACK_OFF).max(self.min);
    }

    /// The sink was away: who knows what it bears now.
    pub(super) fn start_over(&mut self) {
        (self.limit, self.quick, self.latency) = (self.min, true, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_millis(20);

    fn control(min: usize, max: usize) -> Concurrency {
        Concurrency::new(ConcurrencyConfig { min, max: Some(max) }, 8)
    }

    #[test]
    fn it_grows_fast_while_latency_holds_and_not_beyond_its_bound() {
        let mut control = control(1, 16);
        let limits: Vec<_> = (0..20)
            .map(|_| {
                control.answered(FAST, control.limit());
                control.limit()
            })
            .collect();
        assert_eq!(limits[..5], [2, 3, 4, 5, 6]);
        assert_eq!(limits.last(), Some(&16));
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_reached() {
        let mut control = control(4, 16);
        (0..50).for_each(|_| control.answered(FAST, 3));
        assert_eq!(control.limit(), 4);
    }

    #[test]
    fn it_does_not_grow_while_latency_grows() {
        let mut control = control(1, 64);
        (0..10).for_each(|_| control.answered(FAST, control.limit()));
        let reached = control.limit();
        // From here on each request waits behind the others.
        for _ in 0..20 {
            control.answered(FAST * 5, control.limit());
        }
        assert!(control.limit() <= reached + 1, "{} after {reached}", control.limit());
        // What lasts for long is the new normal.
        (0..300).for_each(|_| control.answered(FAST * 5, control.limit()));
        assert!(control.limit() > reached + 1);
    }

    #[test]
    fn a_throttle_takes_it_down_once_for_what_was_under_way() {
        let (mut control, now) = (control(1, 100), Instant::now());
        (0..99).for_each(|_| control.answered(FAST, control.limit()));
        assert_eq!(control.limit(), 100);
        (0..50).for_each(|_| control.throttled(now - FAST, now));
        assert_eq!(control.limit(), 70);
        control.throttled(now, now + FAST);
        assert_eq!(control.limit(), 49);
        // And now it grows by one for a whole round of answers.
        (0..49).for_each(|_| control.answered(FAST, control.limit()));
        assert!((49..=50).contains(&control.limit()), "{}", control.limit());
    }

    #[test]
    fn it_starts_over_after_an_outage() {
        let mut control = control(2, 100);
        (0..50).for_each(|_| control.answered(FAST, control.limit()));
        control.start_over();
        assert_eq!(control.limit(), 2);
        control.answered(FAST, 2);
        assert_eq!(control.limit(), 3);
    }

    #[test]
    fn without_a_bound_it_is_what_the_sink_bears() {
        let control = Concurrency::new(ConcurrencyConfig::default(), 8);
        assert_eq!((control.limit(), control.max()), (1, 8));
        // A sink that bears less than is asked for.
        let control = Concurrency::new(ConcurrencyConfig { min: 9, max: None }, 2);
        assert_eq!((control.limit(), control.max()), (2, 2));
    }

    #[test]
    fn what_cannot_be_kept_to_is_found() {
        let findings = |json| {
            let config: ConcurrencyConfig = serde_json::from_value(json).unwrap();
            let findings = config.findings();
            findings.iter().map(|one| format!("{}: {one}", one.path)).collect::<Vec<_>>()
        };
        use serde_json::json;
        assert!(findings(json!({})).is_empty() && findings(json!({"min": 9})).is_empty());
        assert_eq!(
            findings(json!({"min": 0, "max": 257})),
            [
                "min: 0 is out of bounds; from 1 to 256 is allowed",
                "max: 257 is out of bounds; from 1 to 256 is allowed",
            ]
        );
        assert_eq!(
            findings(json!({"min": 5, "max": 4})),
            ["max: 4 is less than `min`, 5; make it greater"]
        );
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            min in 1usize..20,
            more in 0usize..200,
            steps in proptest::collection::vec((0u8..8, 0u64..2000), 0..300),
        ) {
            let (mut control, mut now) = (control(min, min + more), Instant::now());
            for (step, millis) in steps {
                let took = Duration::from_millis(millis);
                now += took;
                match step {
                    0 => control.throttled(now - took, now),
                    1 => control.start_over(),
                    _ => control.answered(took, control.limit()),
                }
                prop_assert!((min..=min + more).contains(&control.limit()));
            }
        }
    }
}
