//! What is sent to a collector, in the protocol's own shapes.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status, span, status},
};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use tracing::Level;

use crate::{
    telemetry::logs::Line,
    trace::{Kind, Span, SpanContext, Value},
};

/// What tells this process from others: by the convention's names, and what the environment adds.
/// <https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable>
pub(super) fn resource() -> Resource {
    let given = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let given: Vec<_> = given
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .collect();
    let service = std::env::var("OTEL_SERVICE_NAME").ok();
    let own = [
        ("service.name", service.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned())),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", uuid::Uuid::new_v4().to_string()),
    ];
    let own = own.into_iter().filter(|(name, _)| !given.iter().any(|(other, _)| other == name));
    let own: Vec<_> = own.map(|(name, value)| (name.to_owned(), value)).collect();
    let attributes = own.into_iter().chain(given).map(|(name, value)| text(&name, value)).collect();
    Resource { attributes, ..Default::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn pair(name: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: name.to_owned(), value, ..Default::default() }
}

fn text(name: &str, value: impl Into<String>) -> KeyValue {
    pair(name, any_value::Value::StringValue(value.into()))
}

fn attribute((name, value): &(&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(value) => text(name, &**value),
        Value::Number(number) => pair(name, any_value::Value::IntValue(*number)),
    }
}

fn ids(context: &SpanContext) -> (Vec<u8>, Vec<u8>) {
    (context.trace.to_be_bytes().to_vec(), context.span.to_be_bytes().to_vec())
}

/// Spans as one request holds them.
pub(super) fn spans(resource: &Resource, spans: &[Span]) -> ResourceSpans {
    let spans = spans.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..Default::default() }];
    ResourceSpans { resource: Some(resource.clone()), scope_spans, ..Default::default() }
}

fn span(it: &Span) -> proto::Span {
    let (trace_id, span_id) = ids(&it.context);
    let kind = match it.kind {
        Kind::Client => span::SpanKind::Client,
        Kind::Consumer => span::SpanKind::Consumer,
    };
    let link = |context: &SpanContext| {
        let (trace_id, span_id) = ids(context);
        span::Link { trace_id, span_id, ..Default::default() }
    };
    let status = it
        .error
        .as_ref()
        .map(|error| Status { code: status::StatusCode::Error.into(), message: error.to_string() });
    proto::Span {
        trace_id,
        span_id,
        parent_span_id: it.parent.map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec()),
        flags: u32::from(it.context.is_sampled),
        name: it.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanos(it.start),
        end_time_unix_nano: nanos(it.end),
        attributes: it.attributes.iter().map(attribute).collect(),
        links: it.links.iter().map(link).collect(),
        status,
        ..Default::default()
    }
}

/// Lines of the log as one request holds them.
pub(super) fn lines(resource: &Resource, lines: &[Line]) -> ResourceLogs {
    let log_records = lines.iter().map(line).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..Default::default() }];
    ResourceLogs { resource: Some(resource.clone()), scope_logs, ..Default::default() }
}

fn line(it: &Line) -> LogRecord {
    let (severity, word) = match it.level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    };
    let (trace_id, span_id) = it.context.as_ref().map(ids).unwrap_or_default();
    let body = AnyValue { value: Some(any_value::Value::StringValue(it.message.clone())) };
    let fields = it.fields.iter().map(|(name, value)| text(name, value.as_str()));
    LogRecord {
        time_unix_nano: nanos(it.time),
        observed_time_unix_nano: nanos(it.time),
        severity_number: severity.into(),
        severity_text: word.to_owned(),
        body: Some(body),
        attributes: fields.chain([text("target", it.target)]).collect(),
        trace_id,
        span_id,
        ..Default::default()
    }
}

/// All metrics, under the names by which they are served as well.
pub(super) fn metrics(
    resource: &Resource,
    families: &[MetricFamily],
    start: SystemTime,
) -> ResourceMetrics {
    let times = Times { start: nanos(start), now: nanos(SystemTime::now()) };
    let metrics = families.iter().filter_map(|family| times.metric(family)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    ResourceMetrics { resource: Some(resource.clone()), scope_metrics, ..Default::default() }
}

struct Times {
    start: u64,
    now: u64,
}

impl Times {
    fn metric(&self, family: &MetricFamily) -> Option<Metric> {
        let all = family.get_metric();
        let data = match family.get_field_type() {
            MetricType::COUNTER => Data::Sum(Sum {
                data_points: all
                    .iter()
                    .map(|it| self.number(it.get_label(), it.get_counter().get_value()))
                    .collect(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            MetricType::GAUGE => Data::Gauge(Gauge {
                data_points: all
                    .iter()
                    .map(|it| self.number(it.get_label(), it.get_gauge().get_value()))
                    .collect(),
            }),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: all
                    .iter()
                    .map(|it| self.histogram(it.get_label(), it.get_histogram()))
                    .collect(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
            }),
            // We have none.
            MetricType::SUMMARY | MetricType::UNTYPED => return None,
        };
        let name = family.name().to_owned();
        let unit = match () {
            () if name.contains("_seconds") => "s",
            () if name.contains("_bytes") => "By",
            () => "1",
        };
        Some(Metric {
            name,
            description: family.help().to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Default::default()
        })
    }

    fn number(&self, labels: &[LabelPair], value: f64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..Default::default()
        }
    }

    fn histogram(
        &self,
        labels: &[LabelPair],
        histogram: &prometheus::proto::Histogram,
    ) -> HistogramDataPoint {
        let finite = || histogram.get_bucket().iter().filter(|it| it.upper_bound().is_finite());
        // Theirs count from the beginning, ours between two bounds.
        let up_to = finite().map(prometheus::proto::Bucket::cumulative_count);
        let up_to: Vec<u64> = up_to.chain([histogram.get_sample_count()]).collect();
        let below = [0].into_iter().chain(up_to.iter().copied());
        let between = up_to.iter().zip(below).map(|(up_to, below)| up_to.saturating_sub(below));
        let bucket_counts = between.collect();
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: histogram.get_sample_count(),
            sum: Some(histogram.get_sample_sum()),
            bucket_counts,
            explicit_bounds: finite().map(prometheus::proto::Bucket::upper_bound).collect(),
            ..Default::default()
        }
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    labels.iter().map(|label| text(label.name(), label.value())).collect()
}
