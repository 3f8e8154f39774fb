//! Whether a sink is asked at all. Pure: time is handed in.

use std::{ops::RangeInclusive, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::config::{problem::Finding, units::Span};

/// When a sink that does not work is left alone, and for how long. Its events wait meanwhile, and
/// none of their attempts is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Breaker")]
pub struct BreakerConfig {
    /// Requests in a row of which the service took nothing, because it did not answer, throttled
    /// or refused all of us. What it says against one event does not count.
    pub failures: u32,
    /// How long it is left alone before one event is sent to see whether it works again; doubled
    /// each time that it does not.
    pub open: Span,
    /// It is never left alone for longer, unless it asks for that itself.
    pub open_max: Span,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let (open, open_max) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { failures: 5, open: Span(open), open_max: Span(open_max) }
    }
}

const FAILURES: RangeInclusive<u32> = 1..=1000;
const OPEN: RangeInclusive<Span> =
    Span(Duration::from_millis(10))..=Span(Duration::from_secs(60 * 60));

impl BreakerConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !FAILURES.contains(&self.failures) {
            let (least, most) = FAILURES.into_inner();
            let text =
                format!("{} is out of bounds; from {least} to {most} is allowed", self.failures);
            findings.push(Finding::new(text).below("failures"));
        }
        for (name, span) in [("open", self.open), ("open_max", self.open_max)] {
            if !OPEN.contains(&span) {
                let (least, most) = OPEN.into_inner();
                let text = format!("{span} is out of bounds; from {least} to {most} is allowed");
                findings.push(Finding::new(text).below(name));
            }
        }
        if findings.is_empty() && self.open > self.open_max {
            let text =
                format!("{} is less than `open`, {}; make it longer", self.open_max, self.open);
            findings.push(Finding::new(text).below("open_max"));
        }
        findings
    }
}

/// A circuit breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// How often it has opened since the sink last worked.
    trips: u32,
}

/// What a breaker thinks of its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It works, or has failed so often in a row.
    Closed { failures: u32 },
    /// One event is on its way to see whether it works.
    HalfOpen,
    /// It is left alone until then.
    Open { until: Instant },
    /// It is left alone until somebody resets it, because somebody said so.
    Held,
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Anything.
    Free,
    /// One event. Whoever gets this must report, or [give it back](Breaker::unused).
    Probe,
    /// Nothing, until then.
    NotBefore(Instant),
    /// Nothing, until it is known what became of the probe.
    AfterProbe,
    /// Nothing, until it is reset.
    AfterReset,
}

impl Breaker {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed { failures: 0 }, trips: 0 }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether something may be sent now.
    pub(super) fn pass(&mut self, now: Instant) -> Pass {
        match self.state {
            State::Closed { .. } => Pass::Free,
            State::HalfOpen => Pass::AfterProbe,
            State::Held => Pass::AfterReset,
            State::Open { until } if now < until => Pass::NotBefore(until),
            State::Open { .. } => {
                self.state = State::HalfOpen;
                Pass::Probe
            }
        }
    }

    /// The service has answered for an event, whatever it said of that.
    pub(super) fn answered(&mut self) {
        if self.state != State::Held {
            self.reset();
        }
    }

    /// Leaves the sink alone until it is [reset](Self::reset), however it answers.
    pub(super) fn hold(&mut self) {
        self.state = State::Held;
    }

    /// The sink is to be sent to again, whatever it has said.
    pub(super) fn reset(&mut self) {
        (self.state, self.trips) = (State::Closed { failures: 0 }, 0);
    }

    /// A request has failed as a whole; `probe` says whether it was the probe, and `hint` for how
    /// long the service asks to be left alone.
    pub(super) fn failed(&mut self, probe: bool, hint: Option<Duration>, now: Instant) {
        match self.state {
            State::Closed { failures } if failures + 1 < self.config.failures => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => self.open(hint, now),
            State::HalfOpen if probe => self.open(hint, now),
            // Sent before it opened: that the sink does not work is known.
            State::HalfOpen | State::Open { .. } | State::Held => {}
        }
    }

    /// The probe was not sent after all; somebody else may.
    pub(super) fn unused(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    fn open(&mut self, hint: Option<Duration>, now: Instant) {
        self.trips = self.trips.saturating_add(1);
        let BreakerConfig { open, open_max, .. } = self.config;
        let wait = Backoff { min: *open, max: *open_max }.delay(self.trips, hint);
        self.state = State::Open { until: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn breaker(failures: u32) -> Breaker {
        Breaker::new(BreakerConfig { failures, ..BreakerConfig::default() })
    }

    /// Fails until it is open; until when.
    fn trip(breaker: &mut Breaker, now: Instant) -> Instant {
        for _ in 0..breaker.config.failures {
            assert_eq!(breaker.pass(now), Pass::Free);
            breaker.failed(false, None, now);
        }
        match breaker.pass(now) {
            Pass::NotBefore(until) => until,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let (mut breaker, now) = (breaker(3), Instant::now());
        for _ in 0..10 {
            breaker.failed(false, None, now);
            breaker.failed(false, None, now);
            breaker.answered();
        }
        assert_eq!(breaker.pass(now), Pass::Free);
        assert!(trip(&mut breaker, now) > now);
    }

    #[test]
    fn one_probe_goes_and_the_others_wait_for_it() {
        let (mut breaker, now) = (breaker(2), Instant::now());
        let until = trip(&mut breaker, now);
        assert_eq!(breaker.pass(until), Pass::Probe);
        assert_eq!(breaker.pass(until), Pass::AfterProbe);
        // What was sent before says nothing new.
        breaker.failed(false, None, until);
        assert_eq!(breaker.pass(until), Pass::AfterProbe);
        breaker.answered();
        assert_eq!(breaker.pass(until), Pass::Free);
    }

    #[test]
    fn a_probe_that_is_not_sent_is_for_somebody_else() {
        let (mut breaker, now) = (breaker(1), Instant::now());
        let until = trip(&mut breaker, now);
        assert_eq!(breaker.pass(until), Pass::Probe);
        breaker.unused(until);
        assert_eq!(breaker.pass(until), Pass::Probe);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_its_bound() {
        let (mut breaker, mut now) = (breaker(1), Instant::now());
        let mut until = trip(&mut breaker, now);
        for whole in [1, 2, 4, 8, 16, 30, 30] {
            let (wait, whole) = (until - now, Duration::from_secs(whole));
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            now = until;
            assert_eq!(breaker.pass(now), Pass::Probe);
            breaker.failed(true, None, now);
            let Pass::NotBefore(next) = breaker.pass(now) else { panic!("{breaker:?}") };
            until = next;
        }
        breaker.pass(until);
        breaker.answered();
        assert!(trip(&mut breaker, until) - until <= Duration::from_secs(1), "from the start");
    }

    #[test]
    fn one_that_is_held_open_stays_so_until_it_is_reset() {
        let (mut breaker, now) = (breaker(1), Instant::now());
        breaker.hold();
        // Requests that were under way.
        breaker.answered();
        breaker.failed(false, None, now);
        breaker.unused(now);
        assert_eq!(breaker.pass(now + Duration::from_secs(86_400)), Pass::AfterReset);
        breaker.reset();
        assert_eq!(breaker.pass(now), Pass::Free);
    }

    #[test]
    fn the_services_hint_is_obeyed() {
        let (mut breaker, now) = (breaker(1), Instant::now());
        breaker.failed(false, Some(Duration::from_secs(42)), now);
        assert_eq!(breaker.pass(now), Pass::NotBefore(now + Duration::from_secs(42)));
    }

    #[test]
    fn what_cannot_be_kept_to_is_found() {
        let findings = |json| {
            let config: BreakerConfig = serde_json::from_value(json).unwrap();
            let findings = config.findings();
            findings.iter().map(|one| format!("{}: {one}", one.path)).collect::<Vec<_>>()
        };
        use serde_json::json;
        assert!(findings(json!({})).is_empty());
        assert_eq!(
            findings(json!({"failures": 0, "open": "1ms"})),
            [
                "failures: 0 is out of bounds; from 1 to 1000 is allowed",
                "open: 1ms is out of bounds; from 10ms to 1h is allowed",
            ]
        );
        assert_eq!(
            findings(json!({"open": "1m"})),
            ["open_max: 30s is less than `open`, 1m; make it longer"]
        );
    }

    proptest! {
        /// Whatever happens: it is never shut for good, and never lets two through to see.
        #[test]
        fn it_always_opens_up_again(
            failures in 1u32..6,
            steps in proptest::collection::vec((0u64..5000, 0u8..4), 1..200),
        ) {
            let (mut breaker, mut now) = (breaker(failures), Instant::now());
            let mut probing = false;
            for (wait, step) in steps {
                now += Duration::from_millis(wait);
                match step {
                    0 => { breaker.answered(); probing = false; }
                    1 => { breaker.failed(probing, None, now); probing = false; }
                    2 if probing => { breaker.unused(now); probing = false; }
                    _ => match breaker.pass(now) {
                        Pass::Probe => { prop_assert!(!probing); probing = true; }
                        Pass::AfterProbe => prop_assert!(probing),
                        Pass::NotBefore(until) => prop_assert!(until - now <= Duration::from_secs(30)),
                        Pass::Free => prop_assert!(!probing),
                        Pass::AfterReset => prop_assert!(false, "nobody holds it"),
                    },
                }
            }
            if !probing {
                let pass = breaker.pass(now + Duration::from_secs(30));
                prop_assert!(matches!(pass, Pass::Free | Pass::Probe), "{pass:?}");
            }
        }
    }
}
