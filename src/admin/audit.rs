//! Who has changed what: a record of every request that changes something, done or refused for want
//! of rights, and of every other file that the daemon has taken up or refused. In the log, for
//! `GET /audit`, and for a source that reads them as events.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
    routing::get,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Api,
    access::Caller,
    endpoint::{Answer, Endpoint, Role, describe},
};
use crate::{
    config::units::Span,
    daemon::{jobs::Kind as Task, reload::By},
    event::Attributes,
    source::memory::{Config, Kind, Message, Queue},
    telemetry::Metrics,
};

/// The latest records, which `GET /audit` has.
const RECORDS_MAX: usize = 1_000;
/// Records that wait for the route that reads them.
const WAITING_MAX: usize = 10_000;
/// Characters of what the request says, of which there may be many.
const TEXT_CHARS_MAX: usize = 256;
/// The type of the events of a source that reads them.
pub const EVENT_TYPE: &str = "eventferry.admin.changed";

/// A request that changed something, or should have.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Record {
    /// When it was answered, as RFC 3339 has it, in UTC.
    pub time: String,
    /// Who asked; `nobody` where the daemon took up a file without a request.
    pub who: Arc<str>,
    /// By what they are known: `local`, `token`, `jwt` or `certificate`. Without a request, what
    /// made the daemon look: `change` of the file, or a `signal`.
    pub by: &'static str,
    /// The address that they asked from; of a proxy, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub from: Option<IpAddr>,
    /// What they may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How they asked.
    pub method: String,
    /// Where, without a query.
    pub path: String,
    /// The route, source or sink that it is about; none where it is about the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How it was before, where the endpoint tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// How it is now, where the endpoint tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// The status of the answer; none if whoever asked has gone before there was one, and of what a
    /// job has done in the end.
    pub status: Option<u16>,
}

/// What a request has changed: a handler makes it an extension of its answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// How it was before. Never a secret or a payload.
    pub before: Option<Value>,
    /// How it is now. Never a secret or a payload.
    pub after: Option<Value>,
}

/// The latest records, the latest last, and what a source reads.
#[derive(Default)]
pub struct Audit {
    records: Mutex<VecDeque<Record>>,
    /// None before a source has asked for it.
    queue: OnceLock<Queue>,
    /// Whether the configuration has a source that reads them.
    is_read: AtomicBool,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    /// Its records, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().rev().cloned().collect()
    }

    /// What a source reads them from: those from the first call on.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        self.queue.get_or_init(|| {
            let visibility = Span(std::time::Duration::from_secs(30));
            Queue::new(&Config { kind: Kind::Fifo, visibility, ..Config::named("audit") })
        })
    }

    /// Whether a source reads them from now on. What waits when there is none any more is for the
    /// next one.
    pub fn read_by_a_source(&self, is_read: bool) {
        self.is_read.store(is_read, Ordering::Relaxed);
        if is_read {
            let _ = self.queue();
        }
    }

    /// The daemon has read another file without a request: as if somebody had asked for it.
    pub fn reloaded(&self, by: By, status: StatusCode, change: Change, metrics: &Metrics) {
        let Change { before, after } = change;
        let record = Record {
            time: now(),
            who: "nobody".into(),
            by: by.as_str(),
            from: None,
            role: None,
            method: "POST".to_owned(),
            path: "/reload".to_owned(),
            about: None,
            before,
            after,
            status: Some(status.as_u16()),
        };
        self.push(record, metrics);
    }

    /// What somebody has had done to dead letters has ended.
    pub(super) fn job_ended(&self, caller: &Caller, task: Task, change: Change, metrics: &Metrics) {
        let Change { before, after } = change;
        let record = Record {
            time: now(),
            who: caller.name.clone(),
            by: caller.by.as_str(),
            from: None,
            role: Some(caller.role),
            method: "POST".to_owned(),
            path: format!("/dead-letters/{}", task.as_str()),
            about: None,
            before,
            after,
            status: None,
        };
        self.push(record, metrics);
    }

    fn push(&self, record: Record, metrics: &Metrics) {
        tracing::info!(
            target: "eventferry::audit",
            who = %record.who,
            by = record.by,
            from = record.from.map(tracing::field::display),
            role = record.role.map(Role::as_str),
            method = record.method,
            path = record.path,
            about = record.about,
            before = record.before.as_ref().map(tracing::field::display),
            after = record.after.as_ref().map(tracing::field::display),
            status = record.status,
            "admin request"
        );
        if let Some(queue) = self.queue.get().filter(|_| self.is_read.load(Ordering::Relaxed)) {
            if queue.len() < WAITING_MAX {
                queue.put([message(&record)]);
            } else {
                metrics.audit_dropped();
            }
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }
}

/// A record as a CloudEvent.
fn message(record: &Record) -> Message {
    let id = uuid::Uuid::now_v7().to_string();
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "urn:eventferry:admin",
        "type": EVENT_TYPE,
        "time": record.time,
        "datacontenttype": "application/json",
        "data": record,
    });
    if let Some(about) = &record.about {
        event["subject"] = json!(about);
    }
    Message {
        body: event.to_string().into(),
        attributes: Attributes::default(),
        message_id: Some(id.into()),
        subject: None,
        content_type: Some("application/cloudevents+json".into()),
        // One key: they stay in their order.
        key: Some("audit".into()),
    }
}

/// A request that is under way. Recorded when it ends, whichever way.
pub(super) struct Deed {
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    record: Option<Record>,
}

impl Deed {
    pub(super) fn begin(
        audit: &Arc<Audit>,
        metrics: &Arc<Metrics>,
        caller: &Caller,
        from: IpAddr,
        request: &Request,
        about: Option<String>,
    ) -> Self {
        let bounded = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
        let record = Record {
            time: String::new(),
            who: caller.name.clone(),
            by: caller.by.as_str(),
            from: Some(from),
            role: Some(caller.role),
            method: request.method().to_string(),
            path: bounded(request.uri().path()),
            about: about.as_deref().map(bounded),
            before: None,
            after: None,
            status: None,
        };
        Self { audit: audit.clone(), metrics: metrics.clone(), record: Some(record) }
    }

    pub(super) fn end(mut self, status: StatusCode, change: Option<Change>) {
        if let Some(record) = &mut self.record {
            let Change { before, after } = change.unwrap_or_default();
            (record.before, record.after) = (before, after);
            record.status = Some(status.as_u16());
        }
    }
}

impl Drop for Deed {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.time = now();
            self.audit.push(record, &self.metrics);
        }
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// Those who are limited to some routes are told what is about these, their sources and sinks.
async fn records(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Json<Vec<Record>> {
    let mut records = api.audit.records();
    let plan = api.health.plan();
    let is_theirs = |record: &Record| {
        let about = record.about.as_deref().and_then(|about| about.split_once(' '));
        match (about, &plan) {
            (Some(("route", route)), _) => caller.sees(route),
            (Some(("source", source)), Some(plan)) => caller.sees_source(plan, source),
            (Some(("sink", sink)), Some(plan)) => caller.sees_sink(plan, sink),
            _ => false,
        }
    };
    records.retain(|record| caller.routes.is_none() || is_theirs(record));
    Json(records)
}

/// What the API can tell of it.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        needs: Role::Admin,
        answer: Answer::Json(describe::<Vec<Record>>),
        ..Endpoint::read(
            "/audit",
            "audit",
            "The latest 1000 requests that changed something or were refused to, the latest first. \
             Lost with the process; the log has them all.",
            get(records),
        )
    }]
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    struct Kept {
        audit: Arc<Audit>,
        metrics: Arc<Metrics>,
    }

    fn kept() -> Kept {
        Kept { audit: Arc::default(), metrics: Metrics::new().unwrap() }
    }

    fn deed(Kept { audit, metrics }: &Kept) -> Deed {
        let request = Request::post("/routes/a/pause?secret=1").body(Body::empty()).unwrap();
        let from = IpAddr::from([10, 0, 0, 1]);
        Deed::begin(audit, metrics, &Caller::local(), from, &request, Some("route a".to_owned()))
    }

    #[test]
    fn a_request_is_recorded_whether_it_ends_or_is_left() {
        let kept = kept();
        let change = Change { before: Some(json!("runs")), after: Some(json!("paused")) };
        deed(&kept).end(StatusCode::OK, Some(change));
        drop(deed(&kept));
        let [left, done] = kept.audit.records().try_into().unwrap();
        assert_eq!((left.status, &left.before), (None, &None));
        assert_eq!((done.status, done.after), (Some(200), Some(json!("paused"))));
        assert_eq!((&*done.path, done.about.as_deref()), ("/routes/a/pause", Some("route a")));
    }

    #[test]
    fn so_many_records_are_kept_and_so_many_wait() {
        let kept = kept();
        deed(&kept).end(StatusCode::OK, None);
        assert_eq!(kept.audit.queue().len(), 0, "those from now on");
        deed(&kept).end(StatusCode::OK, None);
        assert_eq!(kept.audit.queue().len(), 0, "where one reads them");
        kept.audit.read_by_a_source(true);
        for _ in 0..=WAITING_MAX {
            deed(&kept).end(StatusCode::OK, None);
        }
        assert_eq!(kept.audit.records().len(), RECORDS_MAX);
        assert_eq!(kept.audit.queue().len(), WAITING_MAX);
        let metrics = String::from_utf8(kept.metrics.render()).unwrap();
        assert!(metrics.contains("eventferry_audit_dropped_total 1\n"), "one had no room");
        let event: Value = serde_json::from_slice(&kept.audit.queue().contents()[0].body).unwrap();
        assert_eq!((&event["subject"], &event["data"]["status"]), (&json!("route a"), &json!(200)));
    }
}
