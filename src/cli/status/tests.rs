use serde_json::json;

use super::*;

#[test]
fn a_status_reads_well() {
    let leg = |sink: &str, p99: f64| {
        json!({
            "sink": sink, "in_flight": 4, "delivered": 1200, "retried": 3, "dead_lettered": 1, "returned": 0,
            "duplicates": 0, "p50_seconds": 0.025, "p99_seconds": p99,
        })
    };
    let sink = |name: &str,
                problem: Option<&str>,
                breaker: &str,
                held: bool,
                limit: Option<f64>| {
        json!({
            "name": name, "problem": problem, "breaker": breaker, "held": held, "concurrency": 4,
            "limit": limit.map_or(json!({}), |it| json!({ "events_per_second": it })),
            "limit_overridden": limit.is_some(), "shared": false,
        })
    };
    let source = |name: &str, paused: bool, problem: Option<&str>, backlog: Option<u64>| {
        json!({
            "name": name, "problem": problem, "paused": paused, "received": 1204, "settled": 1201,
            "in_flight": 3, "backlog": backlog, "backlog_age_seconds": null, "partitions": null,
            "shared": false,
        })
    };
    let mut status: Status = serde_json::from_value(json!({
        "version": "1.2.3", "generation": "0123456789ab", "uptime_seconds": 7384,
        "problems": ["source bills: GetQueueUrl failed"],
        "sources": [
            source("orders", true, None, Some(17)),
            source("bills", false, Some("GetQueueUrl failed"), None),
        ],
        "routes": [
            { "name": "over", "from": ["orders"], "to": [leg("order_hub", 2.5), leg("audit", 0.1)],
              "dead_letters": [], "dead_lettered": 0, "dead_lettered_by": {}, "returned": 0, "filtered": 0,
              "rate_limit": { "per_second": 25.0 }, "rate_limit_overridden": true, "promises": [] },
        ],
        "sinks": [
            sink("order_hub", None, "open", true, None),
            sink("audit", None, "closed", false, Some(20.0)),
            sink("parked", None, "probing", false, None),
            sink("archive", Some("no hub of this \u{1b}name"), "closed", false, None),
        ],
    }))
    .unwrap();
    let sick = shown(&status, Paint::Plain);
    status.problems.clear();
    let well = shown(&status, Paint::Plain);
    insta::assert_snapshot!(sick);
    assert!(well.starts_with("ready, eventferry 1.2.3, "), "{well}");
    assert!(shown(&status, Paint::Colour).contains("\x1b[31mpaused\x1b[0m"));
}
