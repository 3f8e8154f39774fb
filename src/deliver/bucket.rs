//! How much a sink is sent in a second. Pure: time is handed in.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::{problem::Finding, units::Size};

/// How much a sink is sent in a second, whoever sends it. What is over waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limit")]
pub struct LimitConfig {
    /// Events in a second, in the long run; 0.5 is one in two seconds. Those of one second may go
    /// at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<f64>,
    /// Bytes in a second, in the long run. Those of one second may go at once, and an event that
    /// is larger than that goes by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Size>,
}

/// About one event in a day.
const EVENTS_MIN: f64 = 0.00001;
const EVENTS_MAX: f64 = 1_000_000.0;
const BYTES_MIN: Size = Size(1 << 10);
const BYTES_MAX: Size = Size(16 << 30);
/// A request is put off this long at most so that it can hold more.
const FILL: Duration = Duration::from_millis(100);
/// One that is longer than any wait: beyond it, clocks end.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

impl LimitConfig {
    /// What it allows in a second, in words; none where there is no limit.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let events = self.events_per_second.map(|events| format!("{events} events"));
        let bytes = self.bytes_per_second.map(|bytes| bytes.to_string());
        let parts: Vec<_> = [events, bytes].into_iter().flatten().collect();
        let of_all = "in a second, of all routes together";
        (!parts.is_empty()).then(|| format!("{} {of_all}", parts.join(" and ")))
    }

    /// What is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let events = EVENTS_MIN..=EVENTS_MAX;
        if let Some(events) = self.events_per_second.filter(|number| !events.contains(number)) {
            let text = format!(
                "{events} events in a second cannot be kept to; from {EVENTS_MIN} to {EVENTS_MAX} can"
            );
            findings.push(Finding::new(text).below("events_per_second"));
        }
        let bytes = BYTES_MIN..=BYTES_MAX;
        if let Some(bytes) = self.bytes_per_second.filter(|number| !bytes.contains(number)) {
            let text = format!(
                "{bytes} in a second cannot be kept to; from {BYTES_MIN} to {BYTES_MAX} can"
            );
            findings.push(Finding::new(text).below("bytes_per_second"));
        }
        findings
    }
}

/// A token bucket: it holds what one second brings, or one token if that is less, and is full at
/// first. Over any span of time at most `burst + rate × span` is taken out of it, and on top of
/// that what is [owed](Self::owe) at its end.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    /// Below nothing while something is owed.
    tokens: f64,
    /// When the tokens were counted.
    at: Instant,
}

impl Bucket {
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        let burst = per_second.max(1.0);
        Self { per_second, burst, tokens: burst, at: now }
    }

    /// Takes out whole tokens: as many as there are, up to `most`.
    ///
    /// # Errors
    /// There are so few that it is better to wait: until when.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Result<usize, Instant> {
        self.fill(now);
        let most = most.max(1) as f64;
        let least = (self.per_second * FILL.as_secs_f64()).min(most).min(self.burst).max(1.0);
        if self.tokens < least {
            return Err(now + self.time_for(least - self.tokens));
        }
        let taken = self.tokens.min(most).floor();
        self.tokens -= taken;
        Ok(taken as usize)
    }

    /// Puts back tokens that were taken and not used.
    pub(super) fn put_back(&mut self, tokens: usize) {
        self.tokens = (self.tokens + tokens as f64).min(self.burst);
    }

    /// Takes out tokens that are not there: nothing more is taken until they have come in.
    pub(super) fn owe(&mut self, tokens: usize) {
        self.tokens -= tokens as f64;
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Rounded up, so that a wait is never in vain.
    fn time_for(&self, tokens: f64) -> Duration {
        let time = Duration::try_from_secs_f64(tokens / self.per_second).unwrap_or(LONGEST);
        time.min(LONGEST) + Duration::from_millis(1)
    }
}

/// The buckets of a sink.
#[derive(Debug)]
pub(super) struct Limit {
    events: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// What a request may hold by the limit of its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) events: usize,
    /// One event may have more.
    pub(super) bytes: usize,
}

impl Limit {
    pub(super) fn new(config: LimitConfig, now: Instant) -> Self {
        let events = config.events_per_second;
        let bytes = config.bytes_per_second.map(|Size(bytes)| bytes as f64);
        let bucket = |per_second| Bucket::new(per_second, now);
        Self { events: events.map(bucket), bytes: bytes.map(bucket) }
    }

    /// Grants as much as there is of what one request can hold.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn grant(&mut self, most: Grant, now: Instant) -> Result<Grant, Instant> {
        let mut grant = most;
        if let Some(bucket) = &mut self.events {
            grant.events = bucket.take(most.events, now)?;
        }
        if let Some(bucket) = &mut self.bytes {
            grant.bytes = bucket.take(most.bytes, now).inspect_err(|_| {
                if let Some(events) = &mut self.events {
                    events.put_back(grant.events);
                }
            })?;
        }
        Ok(grant)
    }

    /// What a request that was granted so much really holds.
    pub(super) fn used(&mut self, granted: Grant, used: Grant) {
        let settle = |bucket: &mut Option<Bucket>, granted: usize, used: usize| {
            let Some(bucket) = bucket else { return };
            match used.checked_sub(granted) {
                Some(over) => bucket.owe(over),
                None => bucket.put_back(granted - used),
            }
        };
        settle(&mut self.events, granted.events, used.events);
        settle(&mut self.bytes, granted.bytes, used.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(now: Instant, millis: u64) -> Instant {
        now + Duration::from_millis(millis)
    }

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10.0, now);
        assert_eq!(bucket.take(100, now), Ok(10));
        let until = bucket.take(100, now).unwrap_err();
        assert_eq!(until, after(now, 101), "time for one");
        assert_eq!(bucket.take(100, until), Ok(1));
        // A long rest saves up no more than a second.
        assert_eq!(bucket.take(100, after(now, 60_000)), Ok(10));
    }

    #[test]
    fn a_fast_limit_waits_for_more_than_one() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1000.0, now);
        assert_eq!(bucket.take(1000, now), Ok(1000));
        assert_eq!(bucket.take(10, after(now, 5)), Err(after(now, 11)));
        assert_eq!(bucket.take(10, after(now, 11)), Ok(10));
        // But not for longer than a tenth of a second.
        assert_eq!(bucket.take(1000, after(now, 100)), Err(after(now, 111)));
    }

    #[test]
    fn what_is_owed_is_waited_for_and_what_is_put_back_is_there() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1.0, now);
        bucket.owe(3);
        assert_eq!(bucket.take(1, now), Err(after(now, 3001)));
        bucket.put_back(9);
        assert_eq!(bucket.take(5, now), Ok(1), "no more than it can hold");
    }

    #[test]
    fn an_event_that_waits_for_bytes_takes_no_place_of_another() {
        let now = Instant::now();
        let config =
            LimitConfig { events_per_second: Some(2.0), bytes_per_second: Some(Size(1 << 10)) };
        let (mut limit, most) = (Limit::new(config, now), Grant { events: 10, bytes: 1 << 20 });
        let granted = limit.grant(most, now).unwrap();
        assert_eq!(granted, Grant { events: 2, bytes: 1 << 10 });
        // One event, four times as large as a second allows.
        limit.used(granted, Grant { events: 1, bytes: 4 << 10 });
        let until = limit.grant(most, now).unwrap_err();
        assert!(until > after(now, 3000) && until < after(now, 3200), "{:?}", until - now);
        assert_eq!(limit.grant(most, until).unwrap().events, 2);
    }

    #[test]
    fn without_a_limit_everything_is_granted() {
        let (now, most) = (Instant::now(), Grant { events: 10, bytes: 77 });
        let mut limit = Limit::new(LimitConfig::default(), now);
        assert!((0..1000).all(|_| limit.grant(most, now) == Ok(most)));
    }

    #[test]
    fn what_cannot_be_kept_to_is_found() {
        let findings = |json| {
            let config: LimitConfig = serde_json::from_value(json).unwrap();
            let findings = config.findings();
            findings.iter().map(|one| format!("{}: {one}", one.path)).collect::<Vec<_>>()
        };
        use serde_json::json;
        let fine = json!({"events_per_second": 0.1, "bytes_per_second": "1MiB"});
        assert!(findings(fine).is_empty() && findings(json!({})).is_empty());
        assert_eq!(
            findings(json!({"events_per_second": 0, "bytes_per_second": "1B"})),
            [
                "events_per_second: 0 events in a second cannot be kept to; from 0.00001 to 1000000 can",
                "bytes_per_second: 1B in a second cannot be kept to; from 1KiB to 16GiB can",
            ]
        );
    }

    proptest! {
        /// Whoever asks when, and whatever is put back.
        #[test]
        fn no_span_holds_more_than_burst_and_rate(
            per_second in 0.01f64..2000.0,
            calls in proptest::collection::vec((0u64..3000, 1usize..500, 0usize..9), 1..200),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(per_second, start);
            let mut now = start;
            let mut taken: Vec<(Instant, usize)> = Vec::new();
            for (wait, most, unused) in calls {
                now += Duration::from_millis(wait);
                if let Ok(tokens) = bucket.take(most, now) {
                    prop_assert!((1..=most).contains(&tokens));
                    let unused = unused.min(tokens);
                    bucket.put_back(unused);
                    taken.push((now, tokens - unused));
                }
            }
            for (from, (begin, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (end, tokens) in &taken[from..] {
                    sum += tokens;
                    let most = per_second.max(1.0) + per_second * (*end - *begin).as_secs_f64();
                    prop_assert!(sum as f64 <= most + 1e-6, "{sum} of {most}");
                }
            }
        }

        /// Whoever waits as long as it is told is served, and nobody is told to wait for long.
        #[test]
        fn a_wait_is_never_in_vain(
            per_second in 0.01f64..2000.0,
            mosts in proptest::collection::vec(1usize..500, 1..50),
        ) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(per_second, now);
            for most in mosts {
                if let Err(until) = bucket.take(most, now) {
                    let longest = Duration::from_secs_f64(1.0 / per_second).max(FILL);
                    prop_assert!(until - now <= longest + Duration::from_millis(2));
                    now = until;
                    prop_assert!(bucket.take(most, now).is_ok());
                }
            }
        }
    }
}
