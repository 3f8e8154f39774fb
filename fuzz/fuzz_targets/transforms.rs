#![no_main]
//! Steps of every kind on an event: what cannot be loaded is said, what is loaded answers, and what
//! has an inverse is undone by it.
//!
//! Text that begins like a YAML list is the steps, and behind a zero byte the event, both as on the
//! pages. All other input describes steps and an event.

use std::{path::Path, sync::Arc};

use arbitrary::Unstructured;
use eventferry::{
    cli::event_file::read_event,
    decode::undecoded,
    event::{Event, Value},
    transform::{Failure, StepConfig, Transform, crypt::decrypt, encode, redact},
};
use eventferry_fuzz::{compare::sorted, make, steps};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value as Json, from_value};

/// Each can double the body, as JSON in JSON does; that is the doing of who writes the file.
const STEPS_MAX: usize = 6;
const CODINGS_MAX: usize = 4;

fuzz_target!(|data: &[u8]| {
    let input = match data.first() {
        Some(b'-') => written(data),
        _ => described(&mut Unstructured::new(data)).ok(),
    };
    let Some((steps, event)) = input else { return };
    let Ok(steps) = from_value::<Vec<StepConfig>>(steps) else { return };
    let too_long = |step: &StepConfig| match step {
        StepConfig::Encode(codings) => codings.0.len() > CODINGS_MAX,
        _ => false,
    };
    if steps.len() > STEPS_MAX || steps.iter().any(too_long) {
        return;
    }
    applied(&steps, &event);
    for step in &steps {
        match step {
            StepConfig::Encode(codings) => decoded(codings, &event),
            StepConfig::Encrypt(config) => {
                let opens = decrypt::Config { keys: config.keys.clone() };
                undone(step.clone(), StepConfig::Decrypt(opens), &event);
            }
            StepConfig::Redact(config) => redacted(config, &event),
            _ => {}
        }
    }
});

fn written(data: &[u8]) -> Option<(Json, Event)> {
    let text = std::str::from_utf8(data).ok()?;
    let (steps, event) = text.split_once('\0')?;
    let options = serde_saphyr::options! { strict_booleans: true };
    let steps = serde_saphyr::from_str_with_options(steps, options).ok()?;
    Some((steps, read_event(serde_json::from_str(event).ok()?).ok()?))
}

fn described(u: &mut Unstructured<'_>) -> arbitrary::Result<(Json, Event)> {
    let steps = steps::steps(u)?;
    let body = make::body(u)?;
    let mut event = undecoded(&make::message(u, body)?);
    event.kind = make::maybe(u)?;
    Ok((steps.into(), event))
}

/// Loads the steps; nothing where that fails.
fn load(steps: &[StepConfig]) -> Option<Transform> {
    let mut steps = Transform::compile(steps, Path::new(steps::FOLDER)).ok()?;
    steps.unlock();
    Some(steps)
}

/// The same whether one looks on or not, except for the random numbers of a seal.
fn applied(steps: &[StepConfig], event: &Event) {
    let Some(transform) = load(steps) else { return };
    let (traced, ended) = transform.trace(event.clone());
    if let Err(failure) = &ended {
        let place = format!("step {} ({}): ", traced.len() + 1, steps[traced.len()].name());
        assert!(failure.text.starts_with(&place), "{failure}");
    }
    if !steps.iter().any(|step| matches!(step, StepConfig::Encrypt(_))) {
        assert_eq!(comparable(transform.apply(event.clone())), comparable(ended));
    }
}

fn comparable(ended: Result<Vec<Event>, Failure>) -> String {
    // A value that is no number is itself in text alone.
    format!("{ended:?}")
}

fn decoded(codings: &encode::Config, event: &Event) {
    let decode = encode::Config(codings.0.iter().rev().copied().collect());
    undone(StepConfig::Encode(codings.clone()), StepConfig::Decode(decode), event);
}

/// What the one step did, the other takes back.
fn undone(step: StepConfig, inverse: StepConfig, event: &Event) {
    let (Some(step), Some(inverse)) = (load(&[step]), load(&[inverse])) else { return };
    let Ok(mut made) = step.apply(event.clone()) else { return };
    let made = made.pop().expect("neither step drops an event");
    let mut again = inverse.apply(made).expect("what was made can be taken back");
    let again = again.pop().expect("neither step drops an event");
    assert_eq!(again.body, event.body);
    if event.attributes.get(encode::CONTENT_ENCODING).is_none() {
        assert_eq!(sorted(again), sorted(event.clone()));
    }
}

/// Detectors find nothing more in what they have left, but for what they show of a card: its last
/// digits and what stands beside them can look like something else.
fn redacted(config: &redact::Config, event: &Event) {
    if config.with != redact::With::Mask {
        return;
    }
    let step = StepConfig::Redact(redact::Config { paths: Vec::new(), ..config.clone() });
    let Some(step) = load(&[step]) else { return };
    let Ok(mut once) = step.apply(event.clone()) else { return };
    let once = covered(once.pop().expect("the step drops no event"));
    let twice = step.apply(once.clone()).expect("what has been searched can be searched");
    assert_eq!(twice.into_iter().map(sorted).collect::<Vec<_>>(), [sorted(once)]);
}

/// The event without the last digits of cards.
fn covered(mut event: Event) -> Event {
    let body = bytes(&event.body);
    event.body = body.into();
    event.subject = event.subject.map(|subject| text(&subject));
    event.key = event.key.map(|key| text(&key));
    for (name, value) in event.attributes.clone().iter() {
        if let Value::String(value) = value {
            event.attributes.set(name.clone(), Value::String(text(value)));
        }
    }
    event
}

fn text(text: &str) -> Arc<str> {
    // Digits are taken for stars, one by one.
    String::from_utf8(bytes(text.as_bytes())).expect("text").into()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    let mut covered = bytes.to_vec();
    for at in 4..covered.len().saturating_sub(3) {
        let (before, digits) = covered[at - 4..at + 4].split_at_mut(4);
        if *before == *b"****" && digits.iter().all(u8::is_ascii_digit) {
            digits.fill(b'*');
        }
    }
    covered
}
