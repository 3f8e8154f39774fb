use serde_json::json;

use super::*;

/// `match`, `no_match`, or what is wrong with the pattern.
fn verdict(pattern: &Value, event: &Value) -> String {
    let Value::Object(map) = pattern else { return "not a mapping".to_owned() };
    match Pattern::read(map) {
        Err(errors) => format!("invalid: {}", errors[0]),
        Ok(pattern) => {
            let mut wanted = Wanted::default();
            pattern.want(&mut wanted);
            let mut fields = Fields::new(&wanted);
            fields.read("", event).unwrap();
            if pattern.matches(&fields) { "match".to_owned() } else { "no_match".to_owned() }
        }
    }
}

/// AWS's own verdicts, where the folder with them is there.
#[test]
fn aws_judges_alike() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/cases/event-patterns/eventbridge.json");
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let ours = verdict(&case["pattern"], &case["event"]);
        let ours = ours.split(':').next().unwrap();
        if ours != case["expect"] {
            wrong.push(format!("{}: {ours}, by AWS {}", case["name"], case["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn values_of_different_array_elements_do_not_match_together() {
    let event = json!({"items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 5}]});
    let of = |sku, count| json!({"items": {"sku": [sku], "count": [count]}});
    assert_eq!(verdict(&of("a", 1), &event), "match");
    assert_eq!(verdict(&of("a", 5), &event), "no_match");
}

#[test]
fn too_many_ways_are_refused_before_they_are_counted_out() {
    let field = |n: usize| json!({ format!("f{n}"): ["x"] });
    let choice = || json!({ "$or": (0..20).map(field).collect::<Vec<_>>() });
    let mut pattern = serde_json::Map::new();
    (0..30).for_each(|n| _ = pattern.insert(format!("o{n}"), choice()));
    let errors = Pattern::read(&pattern).unwrap_err();
    assert!(errors[0].to_string().ends_with("ways to match; 1000 are allowed"), "{errors:?}");
}

/// Our own table: every operator, nesting, arrays, and what is no pattern.
#[test]
fn every_case_of_the_table_is_judged_as_it_says() {
    let options = serde_saphyr::options! { strict_booleans: true };
    let table = include_str!("cases.yaml");
    let table: Value = serde_saphyr::from_str_with_options(table, options).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    let mut judge = |pattern: &Value, event: &Value, expected: &str| {
        count += 1;
        let ours = verdict(pattern, event);
        if ours.split(':').next() != Some(expected) {
            wrong.push(format!("{pattern} on {event}: {ours}, not {expected}"));
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for case in list(&table["patterns"]) {
        list(&case["yes"]).iter().for_each(|event| judge(&case["pattern"], event, "match"));
        list(&case["no"]).iter().for_each(|event| judge(&case["pattern"], event, "no_match"));
    }
    list(&table["invalid"]).iter().for_each(|pattern| judge(pattern, &Value::Null, "invalid"));
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 150, "{count}");
}
