use serde_json::json;

use super::*;
use crate::redrive::entry::fixtures::{entry, foreign};

#[test]
fn an_entry_is_one_line_whatever_it_holds() {
    let mut parked = entry("e\n1", "orders", "invalid", 100);
    let mut record = (**parked.record.as_ref().unwrap()).clone();
    (record.error, record.redriven) = ("bad\x1b[31m\nthing".to_owned(), 2);
    parked.record = Some(std::sync::Arc::new(record));
    assert_eq!(
        line(&parked, Some("no way")),
        "1970-01-01T00:01:40Z  parked  e 1  orders -> far  invalid  redriven 2x  bad [31m thing  \
         (skipped: no way)"
    );
    assert_eq!(line(&foreign("f"), None), "-                     parked  f  no record of ours");
}

#[test]
fn a_body_is_shown_only_if_asked_for() {
    let parked = entry("e-1", "orders", "invalid", 100);
    let shown = whole(&parked, false);
    assert!(shown.contains("bytes          7\n") && !shown.contains("\"n\""), "{shown}");
    assert!(whole(&parked, true).contains("body           {\"n\":1}\n"));
    let json = as_json(&parked, None, true, false);
    assert_eq!((&json["event"]["data"], &json["bytes"]), (&Json::Null, &json!(7)));
    assert_eq!(json["record"]["class"], "invalid");
    assert_eq!(as_json(&parked, None, true, true)["event"]["data"], json!({ "n": 1 }));
}

#[test]
fn a_moment_is_a_time_or_how_long_ago() {
    assert_eq!(moment("1970-01-01T00:01:40Z").unwrap().unix_timestamp(), 100);
    let two_hours_ago = || OffsetDateTime::now_utc() - Duration::from_secs(7_200);
    let (before, ago, after) = (two_hours_ago(), moment("2h").unwrap(), two_hours_ago());
    assert!((before..=after).contains(&ago), "{ago}");
    assert!(moment("yesterday").unwrap_err().contains("`yesterday` is no time"));
}

#[test]
fn a_pattern_is_that_of_a_route() {
    assert!(!pattern(r#"{ "type": ["order.placed"] }"#).unwrap().is_always());
    assert!(pattern("{").unwrap_err().contains("not a JSON object"));
    assert!(pattern(r#"{ "tpye": ["x"] }"#).unwrap_err().contains("did you mean `type`?"));
}

#[test]
fn the_sum_says_what_has_become_of_each() {
    let mut summary =
        Summary { seen: 12, meant: 10, redriven: 4, duplicates: 1, ..Summary::default() };
    summary.failed.insert("invalid".into(), 2);
    summary.skipped.insert("no route".into(), 1);
    let text = "10 entries of 12\n4 redriven\n1 had been delivered before\n2 failed again: invalid\n\
                1 skipped: no route\n2 left\n";
    assert_eq!(told(&summary, true), text);
}

fn summary_of(view: View) -> String {
    let mut out = Vec::new();
    let mut page = Page { view, out: &mut out, groups: BTreeMap::new(), failed: None };
    for (route, class, at) in
        [("orders", "invalid", 100), ("orders", "invalid", 50), ("a", "loop", 7)]
    {
        page.entry(&entry("e", route, class, at), None);
    }
    page.entry(&foreign("f"), None);
    let summary = Summary { seen: 5, meant: 4, ..Summary::default() };
    page.end(&summary, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_summary_counts_by_route_and_class_for_people_and_for_programs() {
    let text = summary_of(View::Groups { json: false });
    let orders = "       2  orders                    invalid           1970-01-01T00:00:50Z  1970-01-01T00:01:40Z\n";
    assert!(text.starts_with(" entries  route ") && text.contains(orders), "{text}");
    assert!(text.ends_with("4 entries of 5\n"), "{text}");
    let lines = summary_of(View::Groups { json: true });
    let lines: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "three groups and the sum: {lines:?}");
    assert_eq!((&lines[0]["route"], &lines[0]["class"]), (&Json::Null, &Json::Null));
    let orders = json!({
        "route": "orders", "class": "invalid", "entries": 2,
        "first": "1970-01-01T00:00:50Z", "last": "1970-01-01T00:01:40Z",
    });
    assert_eq!(lines[2], orders);
    assert_eq!(
        (&lines[3]["summary"]["meant"], &lines[3]["summary"]["left"]),
        (&json!(4), &json!(4))
    );
}
