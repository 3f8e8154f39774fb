//! How long deliveries have taken lately: what the counts of the last minutes say, and not those
//! since the start, in which an hour of trouble stays for days.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use prometheus::proto::Metric;
use tokio::time::Instant;

/// How long a delivery counts.
const WINDOW: Duration = Duration::from_secs(300);
/// How often the counts are noted, at most.
const STEP: Duration = Duration::from_secs(10);

/// A route and a sink.
type Leg = (String, String);
/// The upper bound of each bucket of a histogram, and how many were not above it.
type Counts = Vec<(f64, u64)>;

/// How long deliveries have taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies(Arc<BTreeMap<Leg, Counts>>);

/// What the counts were, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(Instant, Latencies)>);

impl Recent {
    /// What has come to `now` in the last minutes, or since the start. To be asked every few
    /// seconds.
    pub(super) fn since(&mut self, now: Latencies, at: Instant) -> Latencies {
        let is_over =
            |noted: Option<&(Instant, _)>| noted.is_some_and(|(noted, _)| *noted + WINDOW <= at);
        while is_over(self.0.get(1)) {
            self.0.pop_front();
        }
        let before = self.0.front().filter(|noted| is_over(Some(noted)));
        let lately = before.map_or_else(|| now.clone(), |(_, before)| now.without(before));
        if self.0.back().is_none_or(|(noted, _)| *noted + STEP <= at) {
            self.0.push_back((at, now));
        }
        lately
    }
}

impl Latencies {
    /// What these histograms say.
    pub(super) fn of<'m>(metrics: impl Iterator<Item = &'m Metric>) -> Self {
        let counts = |metric: &Metric| {
            let label = |name: &str| {
                let found = metric.get_label().iter().find(|label| label.name() == name);
                found.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            let buckets = buckets.map(|it| (it.upper_bound(), it.cumulative_count()));
            // What is above all bounds has no bucket there.
            let all = (f64::INFINITY, histogram.get_sample_count());
            ((label("route"), label("sink")), buckets.chain([all]).collect())
        };
        Self(Arc::new(metrics.map(counts).collect()))
    }

    fn without(&self, before: &Self) -> Self {
        let less = |(leg, counts): (&Leg, &Counts)| {
            // One that is forgotten and comes again counts from nothing.
            let past = before.0.get(leg).filter(|past| {
                past.last().map(|(_, count)| count) <= counts.last().map(|(_, count)| count)
            });
            let past = past.into_iter().flatten().map(|(_, count)| *count);
            let past = past.chain(std::iter::repeat(0));
            let counts = counts.iter().zip(past);
            let counts = counts.map(|((bound, now), past)| (*bound, now.saturating_sub(past)));
            (leg.clone(), counts.collect())
        };
        Self(Arc::new(self.0.iter().map(less).collect()))
    }

    /// The upper bound of the bucket in which this part of all is reached; none of none, or where
    /// it is beyond all bounds.
    pub(super) fn quantile(&self, route: &str, sink: &str, part: f64) -> Option<f64> {
        let counts = self.0.get(&(route.to_owned(), sink.to_owned()))?;
        let (_, all) = counts.last()?;
        let wanted = (*all as f64 * part).ceil() as u64;
        let (bound, _) = counts.iter().find(|(_, count)| wanted > 0 && *count >= wanted)?;
        Some(*bound).filter(|bound| bound.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn what_was_slow_is_forgotten_after_five_minutes() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route(&"pair".into(), &"far".into());
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut recent = Recent::default();
        let mut p99 = |after: u32| {
            let all = metrics.gather();
            let family = all.iter().find(|it| it.name() == "eventferry_delivery_seconds").unwrap();
            let now = Latencies::of(family.get_metric().iter());
            recent.since(now, start + second * after).quantile("pair", "far", 0.99)
        };
        assert_eq!(p99(0), None, "there was none");
        (0..10).for_each(|_| route.delivered(1, 5_000 * second));
        assert_eq!(p99(1), None, "it is above all bounds");
        (0..2_000).for_each(|_| route.delivered(1, 4 * second));
        for after in (1..290).step_by(10) {
            assert_eq!(p99(after), Some(5.0), "{after}");
        }
        (0..10).for_each(|_| route.delivered(1, second / 1_000));
        assert_eq!(p99(295), Some(5.0));
        // In steps of ten seconds.
        for after in (300..315).step_by(5) {
            p99(after);
        }
        assert_eq!(p99(320), Some(0.001));
        for after in (320..620).step_by(10) {
            p99(after);
        }
        assert_eq!(p99(640), None, "there was none in five minutes");
    }
}
