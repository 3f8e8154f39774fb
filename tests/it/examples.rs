//! The worked examples of docs/transforms.md: each does what the page says.

use std::path::Path;

use eventferry::{
    cli::event_file::{read_event, show_event},
    config::{self, environment::Environment},
    transform::Transform,
};
use serde_json::Value as Json;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/transforms.md");

/// An example of the page: the steps, an event, and what becomes of it.
struct Example {
    title: String,
    steps: String,
    event: Json,
    end: End,
}

enum End {
    Becomes(Vec<Json>),
    Fails(String),
}

/// The blocks of code below a heading, each with the line above it.
fn blocks(section: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let (mut above, mut lines) = ("", section.lines());
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((above, code.join("\n")));
        } else if !line.trim().is_empty() {
            above = line.trim();
        }
    }
    blocks
}

fn examples() -> Vec<Example> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let sections = page.split("\n### ").skip(1).map(|section| {
        // What follows under the next heading of a step is no part of the example.
        section.split("\n## ").next().unwrap_or_default()
    });
    let example = |section: &str| {
        let title = section.lines().next().unwrap().to_owned();
        let json = |text: &str| -> Json {
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{title}: {error}\n{text}"))
        };
        let blocks = blocks(section);
        let [(_, steps), (_, event), (how, end), ..] = blocks.as_slice() else {
            panic!("{title}: steps, an event and what becomes of it are wanted")
        };
        let end = match *how {
            "becomes" => End::Becomes(match json(end) {
                Json::Array(events) => events,
                event => vec![event],
            }),
            "fails with" => End::Fails(end.clone()),
            how => panic!("{title}: `{how}` is neither `becomes` nor `fails with`"),
        };
        Example { steps: steps.clone(), event: json(event), end, title }
    };
    sections.map(example).collect()
}

/// The steps, read as a file would have them, from the folder of the examples.
fn transform(Example { title, steps, .. }: &Example) -> Transform {
    let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    let file = format!(
        "sources: {{ a: {{ memory: {{ queue: examples }} }} }}
sinks: {{ b: {{ memory: {{ queue: examples-out }} }} }}
routes:
  - name: r
    from: a
    to: {{ all: [b] }}
    transform:
{steps}"
    );
    let name = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.yaml");
    let checked = config::read(name.to_str().unwrap(), &file, &Environment::default());
    let mut plan = checked.unwrap_or_else(|problems| panic!("{title}: {problems}\n{file}")).plan;
    plan.unlock().unwrap_or_else(|missing| panic!("{title}: {missing:?}"));
    plan.routes[0].rule.transform.clone()
}

#[test]
fn every_worked_example_does_what_the_page_says() {
    let examples = examples();
    assert!(examples.len() >= 20, "{} examples", examples.len());
    let mut wrong = String::new();
    for example in &examples {
        let event = read_event(example.event.clone());
        let event = event.unwrap_or_else(|error| panic!("{}: {error}", example.title));
        let steps = transform(example);
        let ended = steps.apply(event);
        let as_said = match (&ended, &example.end) {
            (Ok(events), End::Becomes(wanted)) => {
                let seen: Vec<_> = events.iter().map(show_event).collect();
                // An event that names no id or source is shown with the plain ones.
                let whole = |json: &Json| show_event(&read_event(json.clone()).unwrap());
                seen == wanted.iter().map(whole).collect::<Vec<_>>()
            }
            (Err(failure), End::Fails(text)) => failure.text.ends_with(&format!("): {text}")),
            _ => false,
        };
        if !as_said {
            let seen = match ended {
                Ok(events) => Json::from_iter(events.iter().map(show_event)).to_string(),
                Err(failure) => failure.to_string(),
            };
            wrong += &format!("{}:\n  {seen}\n", example.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
