//! What is counted of one source.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::SourceMetrics;
use crate::{
    delivery::Outcome,
    fault::Fault,
    source::Backlog,
    trace::{Operation, Request, SpanContext, Tracer},
};

impl SourceMetrics {
    /// What decides which of its events are traced; none where none is.
    #[must_use]
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.all.tracer()
    }

    /// Begins the span of a request to it about so many events; none where none of them is traced.
    pub fn span(
        &self,
        operation: Operation,
        events: usize,
        about: impl Iterator<Item = SpanContext>,
    ) -> Option<Request> {
        let request = Request::begin(self.all.tracer(), operation, &self.source, events, about)?;
        Some(request.to(self.all.peers().sources.get(&self.source).cloned()))
    }

    /// It was asked for events, and after so long has said why there are none.
    pub fn receive_failed(&self, fault: &Fault, took: Duration) {
        let class = fault.class;
        self.failed(fault);
        self.all.receive_failed.with_label_values(&[&*self.source, class]).inc();
        if let Some(span) = Request::failed(self.all.tracer(), Operation::Receive, &self.source) {
            let peer = self.all.peers().sources.get(&self.source).cloned();
            span.since(took).to(peer).end(Some(class));
        }
    }

    /// Its pipeline has started.
    pub fn started(&self) {
        self.all.pipeline_starts.with_label_values(&[&*self.source]).inc();
        // A former one may have ended in the middle of something.
        self.in_flight((0, 0));
    }

    /// Whether somebody has paused it.
    pub fn paused(&self, is_paused: bool) {
        self.all.source_paused.with_label_values(&[&*self.source]).set(is_paused.into());
    }

    /// A batch came in.
    pub fn received(&self, events: usize) {
        self.received.inc_by(events as u64);
    }

    /// Events between the last one read and the next were gone.
    pub fn gap(&self, partition: &str, events: u64) {
        self.all.gaps.with_label_values(&[&*self.source, partition]).inc_by(events);
    }

    /// A partition is read again that could not be.
    pub fn receiver_reopened(&self, class: &'static str) {
        self.all.reopened.with_label_values(&[&*self.source, class]).inc();
    }

    /// A partition is not read on, because one of its events does not get through.
    pub fn partition_stalled(&self, partition: &str) {
        self.all.stalls.with_label_values(&[&*self.source, partition]).inc();
    }

    /// What is between receive and settle.
    pub fn in_flight(&self, (events, bytes): (usize, usize)) {
        self.in_flight_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A delivery ended.
    pub fn settled(&self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => &self.delivered,
            Outcome::Duplicate => &self.duplicate,
            Outcome::Filtered => &self.filtered,
            Outcome::DeadLettered => &self.dead_lettered,
            Outcome::Returned { .. } => &self.returned,
        }
        .inc();
    }

    /// A settlement failed.
    pub fn settle_failed(&self, fault: &Fault) {
        self.failed(fault);
        self.all.settle_failed.with_label_values(&[&*self.source, fault.class]).inc();
    }

    /// Leases ended too early.
    pub fn leases_lost(&self, events: usize) {
        self.all.leases_lost.with_label_values(&[&*self.source]).inc_by(events as u64);
    }

    /// How many partitions this replica has.
    pub fn partitions_owned(&self, partitions: usize) {
        let partitions = i64::try_from(partitions).unwrap_or(i64::MAX);
        self.all.partitions_owned.with_label_values(&[&*self.source]).set(partitions);
    }

    /// It has taken one.
    pub fn partition_taken(&self) {
        self.all.partitions_taken.with_label_values(&[&*self.source]).inc();
    }

    /// Another reader has taken one from it.
    pub fn partition_lost(&self, partition: &str) {
        self.all.partitions_lost.with_label_values(&[&*self.source]).inc();
        self.forget(partition);
    }

    /// It has given one up.
    pub fn partition_handed_over(&self, partition: &str) {
        self.all.partitions_handed_over.with_label_values(&[&*self.source]).inc();
        self.forget(partition);
    }

    /// The backlog of a partition is another replica's to tell.
    fn forget(&self, partition: &str) {
        let labels = [&*self.source, partition];
        let _ = self.all.backlog_events.remove_label_values(&labels);
        let _ = self.all.settled_number.remove_label_values(&labels);
        let _ = self.all.retention.remove_label_values(&labels);
    }

    /// What waits at the service, and here.
    pub fn backlog(&self, backlog: &[Backlog]) {
        let all = &self.all;
        for Backlog { partition, events, reach, .. } in backlog {
            let labels = [&*self.source, partition.as_str()];
            let events = i64::try_from(*events).unwrap_or(i64::MAX);
            all.backlog_events.with_label_values(&labels).set(events);
            if let Some(reach) = reach {
                all.settled_number.with_label_values(&labels).set(reach.settled);
                all.retention.with_label_values(&labels).set(reach.margin());
            }
        }
        let labels = [&*self.source];
        let oldest = backlog.iter().filter_map(|it| it.oldest).min();
        let age = oldest.map(|since| (OffsetDateTime::now_utc() - since).whole_seconds().max(0));
        match age {
            Some(age) => all.backlog_age.with_label_values(&labels).set(age),
            None if backlog.iter().all(|it| it.events == 0) => {
                all.backlog_age.with_label_values(&labels).set(0);
            }
            // Something waits, and nobody knows for how long.
            None => _ = all.backlog_age.remove_label_values(&labels),
        }
    }

    /// It was told to end, and has.
    pub fn drained(&self, took: Duration) {
        let labels = [&*self.source];
        self.all.drains.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
