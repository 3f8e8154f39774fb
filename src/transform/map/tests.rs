use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use time::macros::datetime;

use super::*;
use crate::event::{Attributes, Event, Trace, Value};

fn event(body: impl Into<Bytes>) -> Event {
    Event {
        id: "1".into(),
        source: "/shop".into(),
        kind: Some("order.placed".into()),
        subject: None,
        time: Some(datetime!(2026-11-21 10:00:00 +01:00)),
        content_type: None,
        key: Some("k".into()),
        trace: Trace::default(),
        hops: 0,
        attributes: [("tenant", Value::string("acme")), ("size", Value::Int(7))]
            .into_iter()
            .collect(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

fn run_on(event: Event, program: &str) -> Result<(Flow, Event), Failure> {
    let program = Program::compile(program).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let mut draft = Draft::new(event.clone());
    let flow = program.run(&mut draft);
    let after = draft.finish();
    if flow.as_ref().map_or(true, |flow| *flow == Flow::Drop) {
        assert_eq!(after, event, "a program that does not pass changes nothing");
    }
    flow.map(|flow| (flow, after))
}

fn run(body: impl Into<Bytes>, program: &str) -> Event {
    let (flow, event) = run_on(event(body), program).unwrap();
    assert_eq!(flow, Flow::Keep);
    event
}

fn fails(body: impl Into<Bytes>, program: &str) -> (&'static str, String) {
    let failure = run_on(event(body), program).unwrap_err();
    (failure.class, failure.text)
}

fn findings<T: std::fmt::Debug>(result: Result<T, Vec<Finding>>) -> Vec<String> {
    let findings = result.unwrap_err().into_iter();
    findings
        .map(|finding| match finding.at {
            Some((line, column)) => format!("{line}:{column} {}", finding.text),
            None => finding.text,
        })
        .collect()
}

fn text(event: &Event) -> &str {
    std::str::from_utf8(&event.body).unwrap()
}

#[test]
fn three_fields_of_the_body_and_what_lies_around_it() {
    let body =
        r#"{"total": "12.5", "customer": {"id": 7}, "internal": true, "rest": [1, {"a": null}]}"#;
    let changed = run(
        body,
        r#"
        .data.amount = to_float!(del(.data.total))
        .data.customer_id = .data.customer.id
        del(.data.internal)
        .type = "order.v2"
        .subject = "orders/" + to_string!(.data.customer_id)
        .key = null
        "#,
    );
    assert_eq!(
        text(&changed),
        r#"{"amount":12.5,"customer":{"id":7},"customer_id":7,"rest":[1, {"a": null}]}"#
    );
    let expected = Event {
        kind: Some("order.v2".into()),
        subject: Some("orders/7".into()),
        key: None,
        body: changed.body.clone(),
        ..event("")
    };
    assert_eq!(changed, expected);
}

#[test]
fn a_body_that_the_program_does_not_change_keeps_its_bytes() {
    let body = r#"{ "b": 1.0e0, "a": "\u00fc" }"#;
    assert_eq!(text(&run(body, ".subject = string!(.data.a)")), body);
    assert_eq!(text(&run(body, "if .data.b == 2 { .data.b = 3 }\ndel(.data.no)")), body);
    assert_eq!(run(body, "x = 1\nx").body, body);
}

#[test]
fn members_that_the_program_does_not_name_are_as_they_were() {
    let body = r#"{"n": 1, "big": 18446744073709551616, "a": {"b": 1}, "m": "x"}"#;
    for (program, expected) in [
        (".data.n = 2", r#"{"a":{"b": 1},"big":18446744073709551616,"m":"x","n":2}"#),
        ("del(.data.n)", r#"{"a":{"b": 1},"big":18446744073709551616,"m":"x"}"#),
        ("del(.data.n, compact: true)", r#"{"a":{"b": 1},"big":18446744073709551616,"m":"x"}"#),
        (".data = {\"n\": .data.n}", r#"{"n":1}"#),
        (".data.n = 3\n.data = {}\n.data.x = 1", r#"{"x":1}"#),
        ("del(.data)\n.data.x = 1", r#"{"x":1}"#),
    ] {
        assert_eq!(text(&run(body, program)), expected, "{program}");
    }
    // One that looks at all of it sees all of it.
    let body = r#"{"n": 1, "m": {"x": 2}}"#;
    for (program, expected) in [
        (".data = merge(object!(.data), {\"n\": 2})", r#"{"m":{"x":2},"n":2}"#),
        (".data.n = length(object!(.data))", r#"{"m":{"x":2},"n":2}"#),
        (".data.n = get!(.data, [\"m\", \"x\"])", r#"{"m":{"x":2},"n":2}"#),
        (".data = map_values(object!(.data)) -> |v| { is_object(v) }", r#"{"m":true,"n":false}"#),
        (". |= {\"data\": 5}", "5"),
        ("x = .\n.data.n = x.data.m.x", r#"{"m":{"x":2},"n":2}"#),
    ] {
        assert_eq!(text(&run(body, program)), expected, "{program}");
    }
    let deep = format!(r#"{{"n": 1, "d": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(run(deep.clone(), ".data.n = 2").body.len(), deep.len() - 3);
}

#[test]
fn abort_drops_the_event() {
    let program = "if .type == \"order.placed\" { .type = \"x\"\nabort }";
    assert_eq!(run_on(event("{}"), program).unwrap().0, Flow::Drop);
    let other = Event { kind: None, ..event("{}") };
    assert_eq!(run_on(other.clone(), program), Ok((Flow::Keep, other)));
}

#[test]
fn an_error_names_line_and_function_and_nothing_of_the_event() {
    let body = r#"{"secret": "hunter2", "n": "x", "list": []}"#;
    for (program, expected) in [
        (
            "x = 1\n.data.n = int!(.data.secret)",
            "the program, line 2: `int` failed: expected integer, got string",
        ),
        (".data.n = to_int!(.data.secret)", "the program, line 1: `to_int` failed"),
        (".data.n = parse_json!(.data.secret)", "the program, line 1: `parse_json` failed"),
        (
            ".data.n = upcase(to_string(int!(.data.secret)))",
            "the program, line 1: `int` failed: expected integer, got string",
        ),
        ("assert!(false, string!(.data.secret))", "the program, line 1: `assert` failed"),
        ("assert_eq!(.data.secret, 1)", "the program, line 1: `assert_eq` failed"),
        (
            ".time = .data.secret",
            "after the program: `.time` must be a timestamp up to the year 9999, or null",
        ),
        (
            ".time = from_unix_timestamp!(1000000000000)",
            "after the program: `.time` must be a timestamp up to the year 9999, or null",
        ),
        (
            ".subject = .data.list",
            "after the program: `.subject` must be a string, but is of type array",
        ),
        (".id = .data.absent", "after the program: `.id` must be a string: every event has one"),
        (".source = \"\"", "after the program: `.source` must not be empty"),
        (
            ". = .data",
            "after the program: it leaves at the top what no event has; put it below `.data` or `.attributes`",
        ),
        (". = .data.list", "after the program: `.` must stay an object"),
    ] {
        let (class, text) = fails(body, program);
        assert_eq!((class, text.as_str()), ("map", expected), "{program}");
    }
}

#[test]
fn a_function_that_panics_fails_the_event_alone() {
    let programs = [
        (r#"{"n": 1e40}"#, ".data.n = format_number!(.data.n)"),
        (r#"{"n": 9}"#, ".data.n = find(\"abc\", r'x', from: int!(.data.n))"),
    ];
    for (body, program) in programs {
        let (class, text) = fails(body, program);
        assert_eq!(class, "map");
        assert_eq!(text, "the program failed: a function of it cannot take a value of this event");
    }
}

#[test]
fn fuel_ends_a_program_that_takes_too_long() {
    let items = vec![1; 1000];
    let body = json!({ "items": items }).to_string();
    let nested = "n = 0
        for_each(array!(.data.items)) -> |_, _| {
            for_each(array!(.data.items)) -> |_, _| { n = n + 1 }
        }
        .data = n";
    assert_eq!(
        fails(body.clone(), nested),
        ("fuel", "the program takes more than 100000 steps with this event".to_owned())
    );
    let once = "n = 0\nfor_each(array!(.data.items)) -> |_, _| { n = n + 1 }\n.data = n";
    assert_eq!(run(body, once).body, "1000");
}

#[test]
fn attributes_have_the_types_of_their_values() {
    let changed = run(
        "{}",
        r#"
        .attributes.text = "a"
        .attributes.whole = 1
        .attributes.half = 0.5
        .attributes.yes = true
        .attributes.at = .time
        .attributes.list = [1, {"a": "b"}]
        .attributes.tenant = null
        "#,
    );
    let expected: Attributes = [
        ("size", Value::Int(7)),
        ("at", Value::Timestamp(1_795_251_600_000)),
        ("half", Value::Double(0.5)),
        ("list", Value::string(r#"[1,{"a":"b"}]"#)),
        ("text", Value::string("a")),
        ("whole", Value::Long(1)),
        ("yes", Value::Bool(true)),
    ]
    .into_iter()
    .collect();
    assert_eq!(changed.attributes, expected);
    assert_eq!(run("{}", "del(.attributes.size)").attributes.len(), 1);
    assert!(run("{}", ".attributes = {}").attributes.is_empty());
    assert_eq!(run("{}", ".subject = string!(.attributes.tenant)").attributes.len(), 2);
}

#[test]
fn a_body_that_is_no_json_is_a_string() {
    assert_eq!(run("hello", ".data = upcase(string!(.data))").body, "HELLO");
    assert_eq!(run("hello", ".data = {\"text\": .data}").body, r#"{"text":"hello"}"#);
    assert_eq!(run(&b"\xff\0"[..], ".type = \"x\"").body, &b"\xff\0"[..]);
    assert_eq!(run(&b"\xff"[..], ".data = encode_base64(string!(.data))").body, "/w==");
    let lost = "the program sets something inside of `.data`, but the body is no JSON object or \
                list that could have it; say `.data = {}` first to replace the body";
    assert_eq!(fails("hello", ".data.a = 1"), ("map", lost.to_owned()));
    assert_eq!(fails("[1]", ".data.a = 1"), ("map", lost.to_owned()));
    assert_eq!(run("hello", ".data = {}\n.data.a = 1").body, r#"{"a":1}"#);
}

#[test]
fn an_empty_body_and_no_body() {
    assert_eq!(run("", ".data.a = 1").body, r#"{"a":1}"#);
    assert_eq!(run("", "if .data == null { .type = \"empty\" }").kind.as_deref(), Some("empty"));
    assert_eq!(run("{}", "del(.data)").body, "");
    assert_eq!(run("{}", ".data = null").body, "null");
    let both = run("{}", ".data = string!(.attributes.tenant)\n.datacontenttype = \"text/plain\"");
    assert_eq!((text(&both), both.content_type.as_deref()), ("acme", Some("text/plain")));
    assert_eq!(run("{}", ".data = .attributes.tenant").body, "\"acme\"");
}

#[test]
fn a_large_body_and_a_deep_one() {
    let body = json!({ "padding": "x".repeat(1 << 20), "n": 1 }).to_string();
    let changed = run(body.clone(), ".data.n = 2");
    assert_eq!(changed.body.len(), body.len());
    let deep = "[".repeat(100_000);
    assert_eq!(run(deep.clone(), ".data = strlen(string!(.data))").body, "100000");
}

#[test]
fn the_same_event_gives_the_same_event() {
    let named: BTreeSet<_> =
        vrl::stdlib::all().iter().map(|function| function.identifier()).collect();
    let impure = [
        "now",
        "random_int",
        "random_bytes",
        "uuid_v4",
        "uuid_v7",
        "get_env_var",
        "get_hostname",
        "log",
        "dns_lookup",
    ];
    for name in impure {
        let wrong = findings(Program::compile(&format!(".data.x = {name}()")));
        assert_eq!(wrong.len(), 1);
        let known = format!("1:11 `{name}` is left out here: ");
        assert!(wrong[0].starts_with(&known), "{wrong:?}");
    }
    // Whoever raises the version of the language has to look at what is new in it.
    assert_eq!(named.len(), 182, "functions of the language");
    // A time without a zone does not depend on where this runs.
    let program = ".time = parse_timestamp!(\"2026-01-02 03:04\", format: \"%F %R\")";
    assert_eq!(run("", program).time, Some(datetime!(2026-01-02 03:04 UTC)));
}

#[test]
fn what_is_wrong_is_found_before_anything_runs() {
    for (program, expected) in [
        (".type = 5", "1:1 `.type` must be a string or null, but may be left as integer"),
        (
            "if .key == \"a\" {\n  .type = 5\n}",
            "2:3 `.type` must be a string or null, but may be left as string, integer or nothing",
        ),
        (
            "x = .data.a\ndel(.id)",
            "2:5 `.id` must be a string: every event has one, but may be left as nothing",
        ),
        (
            ".time = \"2020\"",
            "1:1 `.time` must be a timestamp or null (see `parse_timestamp`), but may be left as string",
        ),
        (".attributes = 5", "1:1 `.attributes` must be an object, but may be left as integer"),
        (". = 5", "1:1 `.` must stay an object"),
        (
            ".data.a = 1\n  .foo = 1",
            "2:3 `.foo` is nothing that an event has; put it below `.data` or `.attributes`, as in `.data.foo`",
        ),
        (".data.a = .tpye", "1:11 `.tpye` is nothing that an event has; did you mean `.type`?"),
        (
            ". |= {\"kind\": 1}",
            "1:1 `.kind` is nothing that an event has; put it below `.data` or `.attributes`",
        ),
        ("%a = 1", "1:1 there is nothing under `%` here; the event is `.`"),
        (
            "x = \"é\"; .data.a = upcas(x)",
            "1:20 call to undefined function; did you mean \"upcase\"?",
        ),
        (".data.a = (1", "1:13 syntax error; unexpected end of program; expected one of: \")\""),
        (".data.a = ", "1:10 syntax error; unexpected end of program"),
        (
            "\n.data.a = to_float(.data.b)",
            "2:11 unhandled fallible assignment; change this to an infallible assignment: .data.a, err = to_float(.data.b)",
        ),
        (
            ".data.a = upcase(.type)",
            "1:11 unhandled fallible assignment; `.type` argument type is `string or undefined` and this function expected a parameter `value` of type `string`; update the expression to be infallible by adding a `!`: `upcase!(.type)`; change this to an infallible assignment: .data.a, err = upcase(.type)",
        ),
    ] {
        assert_eq!(findings(Program::compile(program)), [expected], "{program}");
    }
    let both = findings(Program::compile(".a = 1\n.b = 2\n"));
    assert_eq!(both.len(), 2);
    assert!(both[1].starts_with("2:1 `.b`"));
}

#[test]
fn a_stranger_cannot_make_a_product_without_end() {
    let wrong = "`*` repeats text as often as the other side says; say what is a number, as in \
                 `to_float!(.data.price) * to_float!(.data.count)`";
    for program in [
        ".data.x = .data.a * .data.b ?? 0",
        "a = int!(.data.a)\n.data.x = a * .data.b ?? 0",
        "a = 1.5\nfor_each(array!(.data.items)) -> |i, a| { .data.x = a * i ?? 0 }",
        ".data.x = (.data.a * 2 ?? 0) * int!(.data.b) ?? 0",
    ] {
        let found = findings(Program::compile(program));
        assert!(found.len() == 1 && found[0].ends_with(wrong), "{program}: {found:?}");
    }
    for program in [
        ".data.x = to_float!(.data.a) * .data.b ?? 0",
        "a = to_int!(.data.a)\nb = length(array!(.data.b))\n.data.x = a * b",
        ".data.x = \"-\" * 20",
        ".data.x = .data.a * 3 ?? 0",
        "a, err = to_float(.data.a)\n.data.x = a * (round(float!(.data.b)) + 1)",
    ] {
        Program::compile(program).unwrap_or_else(|wrong| panic!("{program}: {wrong:?}"));
    }
}

#[test]
fn conditions() {
    let holds = |text: &str| {
        let condition = Condition::compile(text).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        condition.holds(&mut Draft::new(event(r#"{"n": 5, "s": "ab"}"#)))
    };
    assert_eq!(holds(".type == \"order.placed\" && int!(.data.n) > 4"), Ok(true));
    assert_eq!(holds("(.data.n > 5) ?? false"), Ok(false));
    assert_eq!(holds("contains(string!(.data.s), \"b\") && .attributes.size == 7"), Ok(true));
    assert_eq!(holds("exists(.subject)"), Ok(false));
    let failure = holds("int!(.data.s) > 1").unwrap_err();
    assert_eq!(failure.class, "map");
    assert_eq!(failure.text, "the program, line 1: `int` failed: expected integer, got string");
    assert_eq!(Condition::compile("true"), Condition::compile("true"));
    assert_ne!(Condition::compile("true").unwrap(), Condition::compile("!false").unwrap());

    let no_boolean = |kind: &str| {
        format!(
            "a condition must end in true or false, but this may be {kind}; compare it with something, as in `.data.urgent == true`"
        )
    };
    for (text, expected) in [
        ("5", no_boolean("integer")),
        (".data.n", no_boolean("any")),
        ("", no_boolean("null")),
        ("if .data.n == 1 { return .data.s }\ntrue", no_boolean("any")),
        (".foo == 1", "1:1 `.foo` is nothing that an event has; put it below `.data` or `.attributes`, as in `.data.foo`".to_owned()),
        (".data.n = 1; true", "1:1 mutation of read-only value".to_owned()),
        ("if .data.n == 1 { abort }\ntrue", "a condition cannot `abort`; let it end in `false`".to_owned()),
    ] {
        assert_eq!(findings(Condition::compile(text)), [expected], "{text}");
    }
}

#[test]
fn a_tree_of_an_earlier_step_is_seen() {
    let mut draft = Draft::new(event("{}"));
    draft.json().unwrap()["a"] = json!(1);
    let program = Program::compile(".data.b = .data.a").unwrap();
    assert_eq!(program.run(&mut draft), Ok(Flow::Keep));
    assert_eq!(draft.json(), Ok(&mut json!({"a": 1, "b": 1})));
    // One that does not look at the body leaves the tree alone.
    *draft.json().unwrap() = Json::Null;
    assert_eq!(Program::compile(".type = \"x\"").unwrap().run(&mut draft), Ok(Flow::Keep));
    assert_eq!(draft.finish().body, "null");
}

#[test]
fn a_program_is_shared_by_threads() {
    fn is_shared<T: Clone + Send + Sync + std::fmt::Debug>() {}
    is_shared::<Program>();
    is_shared::<Condition>();
}

#[test]
#[ignore = "a measurement; run with --release"]
fn speed() {
    let body = json!({
        "orderId": "o-123456", "total": "129.90", "internalNote": "call back",
        "customer": {"id": "c-1", "name": "Jane Roe", "email": "jane@example.com"},
        "items": (0..6).map(|n| json!({"sku": format!("sku-{n}"), "quantity": n, "price": 9.99,
            "name": "A thing of some length that people buy", "tags": ["a", "b"]})).collect::<Vec<_>>(),
        "placed": "2026-11-21T10:00:00Z", "channel": "web", "currency": "EUR", "gift": false,
    })
    .to_string();
    let fields = ".data.amount = to_float!(del(.data.total))
        .data.customer_id = del(.data.customer.id)
        del(.data.internalNote)";
    // The best of many short runs: what else the machine does only takes away.
    let rate = |name: &str, event: &Event, pass: &dyn Fn(Event)| {
        let runs = (0..500).map(|_| {
            let start = tokio::time::Instant::now();
            (0..100).for_each(|_| pass(event.clone()));
            start.elapsed()
        });
        println!("{name}: {:.0} events/s", 100.0 / runs.min().unwrap().as_secs_f64());
    };
    println!("{} bytes", body.len());
    let event = event(body);
    for (name, text) in [
        ("three fields", fields),
        ("three fields of a tree", &format!("{fields}\nx = .data\nx")),
        ("type only", ".type = \"x\""),
        ("read one, set subject", ".subject = string!(.data.orderId)"),
    ] {
        let program = Program::compile(text).unwrap();
        rate(name, &event, &|event| {
            let mut draft = Draft::new(event);
            program.run(&mut draft).unwrap();
            std::hint::black_box(draft.finish());
        });
    }
    rate("serde_json by hand", &event, &|event| {
        let mut draft = Draft::new(event);
        let tree = draft.json().unwrap().as_object_mut().unwrap();
        let total: f64 = tree.remove("total").unwrap().as_str().unwrap().parse().unwrap();
        tree.insert("amount".to_owned(), total.into());
        let id = tree["customer"].as_object_mut().unwrap().remove("id").unwrap();
        tree.insert("customer_id".to_owned(), id);
        tree.remove("internalNote");
        std::hint::black_box(draft.finish());
    });
    let condition =
        Condition::compile(".data.channel == \"web\" && .type == \"order.placed\"").unwrap();
    rate("condition", &event, &|event| {
        assert!(condition.holds(&mut Draft::new(event)).unwrap());
    });
}
