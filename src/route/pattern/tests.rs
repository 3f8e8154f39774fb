use serde_json::json;

use super::*;

/// What all tests take for now.
const NOW: OffsetDateTime = time::macros::datetime!(2026-11-21 12:00:00 UTC);

/// `match`, `no_match`, or what is wrong with the pattern.
fn verdict(pattern: &Value, event: &Value) -> String {
    let Value::Object(map) = pattern else { return "not a mapping".to_owned() };
    match Pattern::read(map) {
        Err(errors) => format!("invalid: {}", errors[0]),
        Ok(pattern) => {
            let mut wanted = Wanted::default();
            pattern.want(&mut wanted);
            let event = event.to_string();
            let mut fields = Fields::new(&wanted, NOW);
            assert!(fields.read_json(Wanted::TOP, event.as_bytes()));
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
fn a_choice_below_a_name_that_ends_with_a_dot_stays_below_it() {
    let pattern = json!({"a.": {"$or": [{"b": [1]}, {"b": [2]}]}});
    assert_eq!(verdict(&pattern, &json!({"a.": {"b": 1}})), "match");
    assert_eq!(verdict(&pattern, &json!({"a": {"b": 1}})), "no_match");
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

#[test]
fn everything_wrong_with_a_time_is_said() {
    let pattern = json!({"time": [
        {"newer_than": "soon"},
        {"older_than": 5},
        {"daily": {"from": "8:00", "zone": "Europe/Berln", "days": ["mon", "tuesday"], "too": "9"}},
        {"daily": {"from": "08:00", "to": "08:00", "zone": "berlin", "days": []}},
        {"daily": "08:00"},
    ]});
    let Value::Object(pattern) = pattern else { unreachable!() };
    let errors = Pattern::read(&pattern).unwrap_err();
    let said: Vec<_> = errors.iter().map(|error| format!("{}: {error}", error.path)).collect();
    let expected = [
        "time[0].newer_than: `soon` is no duration; write one like `250ms`, `30s` or `12h`",
        "time[1].older_than: must be text",
        "time[2].daily.too: is no setting of `daily`; did you mean `to`?",
        "time[2].daily.from: must be a time of day in quotes, as in \"08:00\"",
        "time[2].daily.to: is missing; write a time of day, as in \"08:00\"",
        "time[2].daily.zone: `Europe/Berln` is no time zone; did you mean `Europe/Berlin`?",
        "time[2].daily.days[1]: `tuesday` is no day; \
         there is `mon`, `tue`, `wed`, `thu`, `fri`, `sat` and `sun`",
        "time[3].daily.to: is the same as `from`; a whole day is from \"00:00\" to \"24:00\"",
        "time[3].daily.zone: `berlin` is no time zone; did you mean `Europe/Berlin`?",
        "time[3].daily.days: is an empty list, on which it would never begin; \
         list a day or leave it out",
        "time[4].daily: must be like `{ from: \"08:00\", to: \"18:00\" }`",
    ];
    assert_eq!(said, expected);
}

#[test]
fn an_event_is_read_as_a_parser_reads_it() {
    let mut wanted = Wanted::default();
    let slots = ["a", "b.c"].map(|path| wanted.insert(path));
    let read = |text: &'static str| {
        let mut fields = Fields::new(&wanted, NOW);
        let earlier = wanted.at("a").unwrap();
        fields.add(earlier, Scalar::Bool(true));
        let is_json = fields.read_json(Wanted::TOP, text.as_bytes());
        let at = |slot| fields.at(slot).map(|leaf| leaf.value.clone()).collect::<Vec<_>>();
        (is_json, slots.map(at))
    };
    let text = |text: &'static str| Scalar::Text(text.into());
    let (_, [a, b]) =
        read(r#" { "\u0061" : "x\n\u00e4\ud83d\udea2" , "z": [{}], "b": {"c": -1.5e2} } "#);
    assert_eq!((a, b), (vec![text("x\nä🚢"), Scalar::Bool(true)], vec![Scalar::Number(-150.0)]));
    for wrong in [
        r#"{"a": "x", "z": [}"#,
        r#"{"a": "x"} 1"#,
        r#"{"a": "x", "b": {"c": 1e999}}"#,
        r#"{"a": "x", "b": {"c": "\ud83d"}}"#,
        r#"{"a": ["x", 1}"#,
        "",
        "{",
    ] {
        assert_eq!(read(wrong), (false, [vec![Scalar::Bool(true)], vec![]]), "{wrong}");
    }
}

#[test]
fn an_event_of_many_arrays_is_judged_soon() {
    let started = tokio::time::Instant::now();
    let fields = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let pattern: Map<_, _> = fields.iter().map(|f| ((*f).to_owned(), json!([1]))).collect();
    let pattern = json!({ "list": pattern });
    // Each element has all fields but one, so that no element has them all.
    let element = |n: usize| -> Value {
        let others = fields.iter().enumerate().filter(|(at, _)| *at != n % fields.len());
        others.map(|(_, f)| ((*f).to_owned(), json!(1))).collect()
    };
    let mut list: Vec<_> = (0..10_000).map(element).collect();
    assert_eq!(verdict(&pattern, &json!({ "list": list })), "no_match");
    list.push(fields.iter().map(|f| ((*f).to_owned(), json!([0, 1]))).collect());
    assert_eq!(verdict(&pattern, &json!({ "list": list })), "match");
    // Arrays of different fields do not multiply.
    let apart = |field: &str, n: usize| json!({ field: (0..n).map(|_| 1).collect::<Vec<_>>() });
    let lists: Map<_, _> = fields
        .iter()
        .flat_map(|f| match apart(f, 1_000) {
            Value::Object(map) => map,
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(verdict(&pattern, &json!({ "list": lists })), "match");
    // Names with dots lead into many arrays at once.
    let many = |n: usize| {
        let dotted = |at: usize| (0..n).map(|_| json!({ fields[at]: 1 })).collect::<Vec<_>>();
        json!({ "list": dotted(0), "list.a": dotted(1), "list.b": [0, 1, 1], "list.c": dotted(3) })
    };
    assert_eq!(verdict(&pattern, &many(1_000)), "no_match");
    // A second where nothing else runs; every element with every other would take days.
    assert!(started.elapsed() < std::time::Duration::from_secs(120), "{:?}", started.elapsed());
}
