//! What the daemon says of itself: the few metrics that the demo shows.

use std::collections::BTreeMap;

/// One reading of `/metrics`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// How long events took: cumulative counts by upper bound in seconds, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Latency(Vec<(f64, f64)>);

impl Metrics {
    /// Reads the text format. What is no sample is passed over.
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(Sample::parse).collect())
    }

    /// The sum of all samples of `name` that bear these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.with(name, labels).map(|sample| sample.value).sum()
    }

    /// The histogram `eventferry_delivery_seconds` of a route into a sink.
    pub(crate) fn latency(&self, route: &str, sink: &str) -> Latency {
        let labels = [("route", route), ("sink", sink)];
        let buckets = self.with("eventferry_delivery_seconds_bucket", &labels);
        let bounds = buckets.filter_map(|bucket| {
            let bound = bucket.labels.get("le")?.replace("+Inf", "inf");
            Some((bound.parse().ok()?, bucket.value))
        });
        Latency(bounds.collect())
    }

    fn with<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            let bears = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).is_some_and(|given| given == value)
            };
            sample.name == name && labels.iter().all(bears)
        })
    }
}

impl Sample {
    /// Reads `name{label="value",…} number`. The daemon's label values are names from its
    /// configuration, which hold neither quotes nor commas.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}')?.split(',').filter_map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        Some(Self { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
    }
}

impl Latency {
    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut earlier = earlier.0.iter().map(|(_, count)| *count);
        let buckets = self.0.iter();
        Self(buckets.map(|(le, count)| (*le, count - earlier.next().unwrap_or(0.0))).collect())
    }

    /// The seconds within which `share` of the events were delivered, interpolated inside a bucket
    /// the way Prometheus does it; none where there are no events.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let wanted = share * total;
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= wanted {
                let inside = (wanted - below) / (count - below);
                return Some(if bound.is_finite() { low + (bound - low) * inside } else { low });
            }
            (low, below) = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP eventferry_received_total Events received from a source.
eventferry_received_total{source=\"orders\"} 12
eventferry_received_total{source=\"devices\"} 30
eventferry_delivery_seconds_bucket{route=\"r\",sink=\"s\",le=\"0.01\"} 50
eventferry_delivery_seconds_bucket{route=\"r\",sink=\"s\",le=\"0.1\"} 100
eventferry_delivery_seconds_bucket{route=\"r\",sink=\"s\",le=\"+Inf\"} 100
plain 7
";

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_asked_for() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("eventferry_received_total", &[("source", "orders")]), 12.0);
        assert_eq!(metrics.sum("eventferry_received_total", &[]), 42.0);
        assert_eq!(metrics.sum("plain", &[]), 7.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
    }

    #[test]
    fn a_quantile_is_interpolated_inside_its_bucket() {
        let latency = Metrics::parse(TEXT).latency("r", "s");
        assert_eq!(latency.quantile(0.5), Some(0.01));
        assert_eq!(latency.quantile(0.75).map(|seconds| (seconds * 1000.0).round()), Some(55.0));
        assert_eq!(latency.since(&latency).quantile(0.99), None);
        assert_eq!(latency.since(&Latency::default()), latency);
    }
}
