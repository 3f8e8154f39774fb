//! The configuration file: every example can be used, and everything wrong is said, exactly so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use eventferry::{
    config::{self, environment::Environment, guarantee},
    source::SourceConfig,
};
use regex::Regex;
use serde_json::Value;

mod against;
mod schema;

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

/// What [`config::read`] has to say about a file, under its bare name.
fn report(path: &Path, environment: &Environment) -> String {
    let name = format!("{}.yaml", stem(path));
    match config::read(&name, &fs::read_to_string(path).unwrap(), environment) {
        Err(problems) => problems.to_string(),
        Ok(checked) => {
            let guarantees = guarantee::guarantees(&checked.plan);
            let guarantees: Vec<_> = guarantees.iter().map(ToString::to_string).collect();
            let warnings = match checked.warnings.all.as_slice() {
                [] => String::new(),
                _ => format!("{}\n", checked.warnings),
            };
            warnings + &guarantees.join("\n")
        }
    }
}

/// Compares the report on every file of `directory` with the one beside it in `snapshots`.
fn compare_reports(directory: &str, environment: impl Fn(&str) -> Environment) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new("config").join(directory).join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files(&format!("tests/it/config/{directory}")) {
            let name = stem(&path);
            insta::assert_snapshot!(name, report(&path, &environment(name)));
        }
    });
}

fn environment_of_a_broken_file(name: &str) -> Environment {
    let overrides: &[_] = match name {
        "override_of_unknown_setting" => {
            &[("EVENTFERRY__ADMIN__LISEN", "127.0.0.1:1"), ("EVENTFERRY__ROUTES__7__NAME", "x")]
        }
        _ => &[],
    };
    overrides.iter().copied().chain([("WORD", "hunter2")]).collect()
}

#[test]
fn every_broken_file_gets_its_messages() {
    compare_reports("broken", environment_of_a_broken_file);
}

#[test]
fn every_broken_file_is_refused_and_tells_no_value_of_a_variable() {
    for path in files("tests/it/config/broken") {
        let environment = environment_of_a_broken_file(stem(&path));
        let text = fs::read_to_string(&path).unwrap();
        let problems = config::read("f", &text, &environment).expect_err(stem(&path));
        assert!(!problems.is_usable() && !problems.to_string().contains("hunter2"), "{path:?}");
    }
}

#[test]
fn every_doubtful_file_gets_its_warnings_and_its_promises() {
    compare_reports("doubtful", |_| Environment::default());
}

/// What a table in the docs says in code of its first column, each as a pattern for a whole line.
fn words_of_check() -> Vec<Regex> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantee.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## In the words of `check`\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let pattern = |words: &str| format!("^{}$", regex::escape(words).replace('…', ".+"));
    rows.map(|(words, _)| Regex::new(&pattern(words)).unwrap()).collect()
}

#[test]
fn every_promise_is_explained_in_the_docs() {
    let words = words_of_check();
    let mut used = vec![false; words.len()];
    for path in files("config").into_iter().chain(files("tests/it/config/doubtful")) {
        let read = config::read("f", &fs::read_to_string(&path).unwrap(), &Environment::default());
        let Ok(checked) = read else { continue };
        for promise in guarantee::guarantees(&checked.plan) {
            let delivery = promise.delivery.split("; ");
            let lines = promise.order.iter().chain(&promise.pace);
            let lines = delivery.chain(lines.map(String::as_str));
            for line in lines.chain([promise.dead_letters.as_str()]) {
                let found = words.iter().position(|words| words.is_match(line));
                used[found.unwrap_or_else(|| panic!("docs/guarantee.md lacks: {line}"))] = true;
            }
        }
    }
    let unused: Vec<_> = words.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "no example has: {unused:?}");
}

#[test]
fn every_example_can_be_used() {
    for path in files("config") {
        if let Err(problems) = config::load(&path, &Environment::default()) {
            panic!("{problems}");
        }
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let schema = serde_json::to_value(config::schema()).unwrap();
    for path in files("config") {
        let text = fs::read_to_string(&path).unwrap();
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(schema::violations(&schema, &value), Vec::<String>::new(), "{path:?}");
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = serde_json::to_value(config::schema()).unwrap();
    for name in ["top_unknown_setting", "route_without_name", "source_format_unknown"] {
        let path = format!("tests/it/config/broken/{name}.yaml");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        assert!(!schema::violations(&schema, &value).is_empty(), "{name}");
    }
}

#[test]
fn the_schema_names_each_thing_once() {
    let schema = serde_json::to_value(config::schema()).unwrap();
    let names: Vec<_> = schema["$defs"].as_object().unwrap().keys().collect();
    // A number at its end tells that two types share a name.
    let numbered = |name: &&&String| name.ends_with(|c: char| c.is_ascii_digit());
    assert_eq!(names.iter().filter(numbered).count(), 0, "{names:?}");
}

#[test]
fn the_full_example_shows_every_setting_and_every_kind() {
    let full = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.yaml"));
    let full = full.unwrap();
    let schema = serde_json::to_value(config::schema()).unwrap();
    let mut settings = schema::settings(&schema);
    settings.extend(SourceConfig::KINDS.iter().map(|kind| (*kind).to_owned()));
    let missing: Vec<_> =
        settings.iter().filter(|setting| !full.contains(&format!("{setting}:"))).collect();
    assert!(missing.is_empty(), "config/full.yaml does not show {missing:?}");
}

#[test]
fn a_variable_overrides_what_the_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/config/broken/drain_grace_without_unit.yaml");
    let environment: Environment = [
        ("EVENTFERRY__DRAIN__GRACE", "7s"),
        ("EVENTFERRY__ROUTES__0__NAME", "other"),
        ("EVENTFERRY__ADMIN", "off"),
    ]
    .into_iter()
    .collect();
    let plan = config::load(&path, &environment).unwrap().plan;
    assert_eq!(plan.grace.as_secs(), 7);
    assert_eq!(&*plan.routes[0].name, "other");
    assert_eq!(plan.admin, None);
}

#[test]
fn a_plan_refers_by_index_in_the_order_of_names() {
    let text = "
        sources: { b: { memory: { queue: b } }, a: { memory: { queue: a, kind: log } } }
        sinks: { z: { memory: { queue: z } }, y: { memory: { queue: y } } }
        routes:
          - { name: one, from: [b, a], to: { all: [z] } }
          - { name: two, from: b, to: { all: [z] }, dead_letter: y, retry: { attempts: 1 } }
        dead_letter: y
    ";
    let plan = config::read("f", text, &Environment::default()).unwrap().plan;
    assert_eq!(plan.sources.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["a", "b"]);
    let sinks: Vec<_> = plan.routes[0].sinks.iter().map(|(sink, _)| *sink).collect();
    assert_eq!((&plan.routes[0].from, sinks), (&vec![1, 0], vec![1]));
    assert_eq!((&plan.routes[0].dead_letters, &plan.routes[1].dead_letters), (&vec![0], &vec![0]));
    assert_eq!((plan.routes[0].retry.attempts, plan.routes[1].retry.attempts), (5, 1));
    assert_eq!(plan.state, config::plan::State::default());
}
