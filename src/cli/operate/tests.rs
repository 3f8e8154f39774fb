use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;

#[test]
fn where_to_go_back_to_is_a_place_a_time_or_a_number() {
    assert_eq!(to("earliest"), Ok(To::Earliest));
    assert_eq!(to("17"), Ok(To::SequenceNumber(17)));
    let noon = OffsetDateTime::parse("2026-11-21T12:00:00Z", &Rfc3339).unwrap();
    assert_eq!(to("2026-11-21T12:00:00Z"), Ok(To::Time(noon)));
    assert!(matches!(to("2h"), Ok(To::Time(_))));
    insta::assert_snapshot!(to("latest").unwrap_err());
}

#[test]
fn checkpoints_are_a_table() {
    let told = serde_json::from_value(json!({
        "partitions": [
            { "source": "telemetry", "partition": "0", "owner": null, "first_sequence_number": 0,
              "checkpoint": { "sequence_number": 41, "offset": "x" },
              "last_sequence_number": 10_041, "lag": 10_000 },
            { "source": "telemetry", "partition": "1", "owner": "eventferry-a1", "checkpoint": null,
              "first_sequence_number": 0, "last_sequence_number": -1, "lag": 0 },
        ],
        "problems": ["source orders: does not answer in time"],
    }));
    insta::assert_snapshot!(listed(&told.unwrap(), Paint::Plain));
    let none = Checkpoints { partitions: Vec::new(), problems: Vec::new() };
    insta::assert_snapshot!(listed(&none, Paint::Plain));
}

#[test]
fn a_rewind_says_what_it_means() {
    let mut answer: RewindAnswer = serde_json::from_value(json!({
        "source": "telemetry", "dry_run": true,
        "partitions": [
            { "partition": "0", "from": 14, "to": 5, "repeats": 10, "gone": 3, "refused": null },
            { "partition": "1", "from": 14, "to": null, "repeats": 0, "gone": 0, "refused": null },
            { "partition": "2", "from": 14, "to": null, "repeats": 0, "gone": 0,
              "refused": "partition 2 is read by the replica `eventferry-b2`: ask that one" },
        ],
        "notes": ["route `over` delivers an event once: of what comes again, it drops what it remembers"],
    }))
    .unwrap();
    let dry = told(&answer);
    answer.dry_run = false;
    insta::assert_snapshot!(format!("{dry}\n{}", told(&answer)));
}
