//! What a route makes of an event before it is sent: steps, one after the other. Pure.
//!
//! A step is handed a [`Draft`] and answers with what became of it. The body of a draft is bytes or
//! the JSON that they hold, whichever the last step needed: it is parsed once at most, and written
//! once at most.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path as FilePath,
    sync::Arc,
};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    config::{problem::Finding, secret::Secret},
    event::Event,
};

pub mod crypt;
pub mod encode;
pub mod fields;
pub mod map;
pub mod parse;
pub mod path;
pub mod redact;
pub mod split;
pub mod validate;
pub mod wrap;

use path::FieldPath;

/// A step in the configuration: exactly one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "Step")]
pub enum StepConfig {
    /// Makes JSON of the text in these places: `data` for a body that has to be JSON, or places in
    /// it whose text is JSON once more.
    Parse(parse::Config),
    /// Fails what is not valid by the JSON Schema of its type and version, and brings old versions
    /// up to date.
    Validate(validate::Config),
    /// Runs a program in VRL on the event. `abort` drops the event.
    Map(String),
    /// Puts values into places: `{ type: order.placed, attributes.tenant: "{{ data.tenant }}" }`.
    Set(fields::SetConfig),
    /// Takes places out.
    Remove(Vec<FieldPath>),
    /// Moves what is in a place to another: `{ data.old: data.new }`.
    Rename(BTreeMap<String, FieldPath>),
    /// Puts an envelope around the body.
    Wrap(wrap::Envelope),
    /// Takes an envelope off the body, and what it says about the event over.
    Unwrap(wrap::Envelope),
    /// Takes sensitive values out, by path and by what they look like.
    Redact(redact::Config),
    /// Encodes the body: one coding, or a list that is applied in order.
    Encode(encode::Config),
    /// Decodes the body: one coding, or a list in the order in which they are taken off.
    Decode(encode::Config),
    /// Seals the body with a key.
    Encrypt(crypt::encrypt::Config),
    /// Opens a sealed body.
    Decrypt(crypt::decrypt::Config),
    /// Makes one event of each item of a list.
    Split(split::Config),
}

/// A step that is ready to be applied.
#[derive(Debug, Clone)]
enum Step {
    Parse(parse::Parse),
    Validate(Arc<validate::Validate>),
    Map(map::Program),
    Set(fields::Set),
    Remove(fields::Remove),
    Rename(fields::Rename),
    Wrap(wrap::Envelope),
    Unwrap(wrap::Envelope),
    Redact(redact::Redact),
    Encode(encode::Encode),
    Decode(encode::Decode),
    Encrypt(crypt::encrypt::Encrypt),
    Decrypt(crypt::decrypt::Decrypt),
    Split(split::Split),
}

/// The steps of a route.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    config: Vec<StepConfig>,
    steps: Arc<Vec<Step>>,
    /// A digest of the secrets that the steps were unlocked with.
    secrets: Option<[u8; 32]>,
}

/// What a step made of an event. The steps that come after it see the same.
#[derive(Debug, Clone)]
pub struct Traced {
    /// Name of the step.
    pub step: &'static str,
    /// The events after it; none where it dropped the event.
    pub events: Vec<Event>,
}

/// By their settings, and by what else was read for them.
impl PartialEq for Transform {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
            && self.secrets == other.secrets
            && self.files() == other.files()
    }
}

impl StepConfig {
    /// The name of its kind in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parse(_) => "parse",
            Self::Validate(_) => "validate",
            Self::Map(_) => "map",
            Self::Set(_) => "set",
            Self::Remove(_) => "remove",
            Self::Rename(_) => "rename",
            Self::Wrap(_) => "wrap",
            Self::Unwrap(_) => "unwrap",
            Self::Redact(_) => "redact",
            Self::Encode(_) => "encode",
            Self::Decode(_) => "decode",
            Self::Encrypt(_) => "encrypt",
            Self::Decrypt(_) => "decrypt",
            Self::Split(_) => "split",
        }
    }

    /// The secrets that it names.
    fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Encrypt(config) => config.keys.values().collect(),
            Self::Decrypt(config) => config.keys.values().collect(),
            Self::Redact(redact::Config { with: redact::With::Hash(hash), .. }) => vec![&hash.salt],
            _ => Vec::new(),
        }
    }

    fn compile(&self, folder: &FilePath) -> Result<Step, Vec<Finding>> {
        Ok(match self {
            Self::Parse(config) => Step::Parse(config.compile()?),
            Self::Validate(config) => Step::Validate(Arc::new(config.compile(folder)?)),
            Self::Map(program) => Step::Map(map::Program::compile(program)?),
            Self::Set(config) => Step::Set(config.compile()?),
            Self::Remove(places) => Step::Remove(fields::Remove(places.clone())),
            Self::Rename(pairs) => Step::Rename(fields::compile_rename(pairs)?),
            Self::Wrap(envelope) => Step::Wrap(*envelope),
            Self::Unwrap(envelope) => Step::Unwrap(*envelope),
            Self::Redact(config) => Step::Redact(config.compile()?),
            Self::Encode(config) => Step::Encode(config.compile_encode()?),
            Self::Decode(config) => Step::Decode(config.compile_decode()?),
            Self::Encrypt(config) => Step::Encrypt(config.compile()?),
            Self::Decrypt(config) => Step::Decrypt(config.compile()?),
            Self::Split(config) => Step::Split(config.compile()?),
        })
    }
}

impl Step {
    /// Reads the secrets that it needs.
    fn unlock(&mut self) -> Result<(), Finding> {
        match self {
            Self::Redact(step) => step.unlock(),
            Self::Encrypt(step) => step.unlock(),
            Self::Decrypt(step) => step.unlock(),
            _ => Ok(()),
        }
    }

    /// `room` is how many bytes it may still copy.
    fn apply(&self, mut draft: Draft, room: &mut usize) -> Result<Vec<Draft>, Failure> {
        match self {
            Self::Parse(step) => step.apply(&mut draft)?,
            Self::Validate(step) => step.apply(&mut draft)?,
            Self::Map(program) => match program.run(&mut draft)? {
                map::Flow::Keep => {}
                map::Flow::Drop => return Ok(Vec::new()),
            },
            Self::Set(step) => step.apply(&mut draft)?,
            Self::Remove(step) => step.apply(&mut draft)?,
            Self::Rename(step) => step.apply(&mut draft)?,
            Self::Wrap(envelope) => envelope.wrap(&mut draft)?,
            Self::Unwrap(envelope) => envelope.unwrap(&mut draft)?,
            Self::Redact(step) => step.apply(&mut draft)?,
            Self::Encode(step) => step.apply(&mut draft)?,
            Self::Decode(step) => step.apply(&mut draft)?,
            Self::Encrypt(step) => step.apply(&mut draft)?,
            Self::Decrypt(step) => step.apply(&mut draft)?,
            Self::Split(step) => return step.apply(draft, room),
        }
        Ok(vec![draft])
    }
}

impl Transform {
    /// Makes the steps ready. Files that they name are looked for in `folder`, and read.
    ///
    /// # Errors
    /// What is wrong with them: paths begin with the number of the step and its name.
    pub fn compile(config: &[StepConfig], folder: &FilePath) -> Result<Self, Vec<Finding>> {
        let (mut steps, mut findings) = (Vec::new(), Vec::new());
        for (index, step) in config.iter().enumerate() {
            match step.compile(folder) {
                Ok(step) => steps.push(step),
                Err(wrong) => {
                    let below = |finding: Finding| finding.below(step.name()).below_item(index);
                    findings.extend(wrong.into_iter().map(below));
                }
            }
        }
        match findings.is_empty() {
            true => Ok(Self { config: config.to_vec(), steps: Arc::new(steps), secrets: None }),
            false => Err(findings),
        }
    }

    /// Reads the secrets that the steps need: keys and salts. To be called before the first event;
    /// a step that lacks its secret fails every event. Answers those that cannot be read, or are
    /// not what they have to be.
    pub fn unlock(&mut self) -> Vec<Finding> {
        let steps = Arc::make_mut(&mut self.steps).iter_mut().zip(&self.config).enumerate();
        let missing = steps.filter_map(|(index, (step, config))| {
            Some(step.unlock().err()?.below(config.name()).below_item(index))
        });
        let missing: Vec<_> = missing.collect();
        let mut digest = Sha256::new();
        for secret in self.config.iter().flat_map(StepConfig::secrets) {
            let text = secret.read().map(Zeroizing::new).unwrap_or_default();
            digest.update(Sha256::digest(text.as_bytes()));
        }
        self.secrets = Some(digest.finalize().into());
        missing
    }

    /// The files that were read for the steps, and digests of what they held.
    #[must_use]
    pub fn files(&self) -> validate::Files {
        let validates = self.steps.iter().filter_map(|step| match step {
            Step::Validate(step) => Some(step),
            _ => None,
        });
        validates.flat_map(|it| it.files()).map(|(file, digest)| (file.clone(), *digest)).collect()
    }

    /// Whether a step may give events a key.
    #[must_use]
    pub fn may_set_key(&self) -> bool {
        let may = |step: &StepConfig| match step {
            StepConfig::Map(program) => program.contains(".key"),
            StepConfig::Unwrap(_) => true,
            _ => false,
        };
        self.set_paths().any(|set| set == FieldPath::Own(path::Own::Key))
            || self.config.iter().any(may)
    }

    /// Whether a step takes the key of events away; one behind it may give them another.
    #[must_use]
    pub fn takes_key(&self) -> bool {
        let is_key = |path: &FieldPath| *path == FieldPath::Own(path::Own::Key);
        let takes = |step: &StepConfig| match step {
            StepConfig::Remove(places) => places.iter().any(is_key),
            StepConfig::Rename(pairs) => pairs.keys().any(|from| from == "key"),
            _ => false,
        };
        self.config.iter().any(takes)
    }

    /// The attributes that steps set, as far as can be told beforehand.
    #[must_use]
    pub fn attributes(&self) -> BTreeSet<String> {
        let name = |path| match path {
            FieldPath::Attribute(name) => Some(name),
            _ => None,
        };
        self.set_paths().filter_map(name).collect()
    }

    fn set_paths(&self) -> impl Iterator<Item = FieldPath> {
        self.config.iter().flat_map(|step| -> Vec<FieldPath> {
            match step {
                StepConfig::Set(set) => set.0.keys().filter_map(|path| path.parse().ok()).collect(),
                StepConfig::Rename(pairs) => pairs.values().cloned().collect(),
                _ => Vec::new(),
            }
        })
    }

    /// Whether it leaves every event as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether what it makes are parts of the event, each delivered by itself.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.config.iter().any(|step| matches!(step, StepConfig::Split(_)))
    }

    /// What becomes of an event: usually one, none where a step drops it, several where one splits
    /// it.
    ///
    /// # Errors
    /// A step cannot take it. The text names the step.
    pub fn apply(&self, event: Event) -> Result<Vec<Event>, Failure> {
        Ok(self.parts(event)?.into_iter().map(|(event, _)| event).collect())
    }

    /// The same, each with which item it is of each list that was split: whatever other steps leave
    /// out or change, a part keeps its place.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn parts(&self, event: Event) -> Result<Vec<(Event, Vec<usize>)>, Failure> {
        let drafts = self.run(event, &mut |_, _| {})?;
        let part = |mut draft: Draft| {
            let place = std::mem::take(&mut draft.place);
            (draft.finish(), place)
        };
        Ok(drafts.into_iter().map(part).collect())
    }

    /// The same, with what each step made of it on the way. After a failure: the steps before.
    pub fn trace(&self, event: Event) -> (Vec<Traced>, Result<Vec<Event>, Failure>) {
        let mut traced = Vec::new();
        let drafts = self.run(event, &mut |step, drafts| {
            let events = drafts.iter().cloned().map(Draft::finish).collect();
            traced.push(Traced { step, events });
        });
        (traced, drafts.map(|drafts| drafts.into_iter().map(Draft::finish).collect()))
    }

    fn run(
        &self,
        event: Event,
        see: &mut dyn FnMut(&'static str, &[Draft]),
    ) -> Result<Vec<Draft>, Failure> {
        let mut drafts = vec![Draft::new(event)];
        for (index, (step, config)) in self.steps.iter().zip(&self.config).enumerate() {
            let place = |failure: Failure| Failure {
                text: format!("step {} ({}): {}", index + 1, config.name(), failure.text),
                ..failure
            };
            let mut after = Vec::with_capacity(drafts.len());
            let mut room = split::COPIED_BYTES_MAX;
            for draft in drafts {
                after.append(&mut step.apply(draft, &mut room).map_err(place)?);
                if after.len() > split::EVENTS_MAX {
                    let text = format!("more than {} events of one", split::EVENTS_MAX);
                    return Err(place(Failure::new("split", text)));
                }
            }
            drafts = after;
            see(config.name(), &drafts);
        }
        Ok(drafts)
    }
}

/// An event on its way through the steps of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    event: Event,
    /// The body as JSON, once a step has asked for it.
    tree: Option<Json>,
    /// Whether the tree is newer than the bytes of the body.
    changed: bool,
    /// Which item of each list it is that was split, the outermost first.
    place: Vec<usize>,
}

/// The class of what looks into a body that is no JSON.
pub(crate) const NOT_JSON: &str = "not_json";

/// Why an event cannot pass a step. It is dead-lettered with this as its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// A short stable name, for metrics and dead letters.
    pub class: &'static str,
    /// What is wrong, without a word of the payload.
    pub text: String,
}

impl Failure {
    /// One of this class.
    pub fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }
}

impl Draft {
    /// An event as it came.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self { event, tree: None, changed: false, place: Vec::new() }
    }

    /// The event, whose body may be out of date: see [`Draft::bytes`] and [`Draft::json`].
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event, to change anything but its body.
    pub fn event_mut(&mut self) -> &mut Event {
        &mut self.event
    }

    /// The body as bytes.
    pub fn bytes(&mut self) -> &Bytes {
        if let Some(tree) = self.tree.as_ref().filter(|_| self.changed) {
            self.event.body = write(tree);
            self.changed = false;
        }
        &self.event.body
    }

    /// The body as JSON, to change it: its bytes are written anew.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&mut self) -> Result<&mut Json, Failure> {
        self.look()?;
        self.changed = true;
        Ok(self.tree.get_or_insert(Json::Null))
    }

    /// The body as JSON, to look at it: its bytes stay what they are.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn look(&mut self) -> Result<&Json, Failure> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => serde_json::from_slice(&self.event.body)
                .map_err(|error| Failure::new(NOT_JSON, not_json(&error)))?,
        };
        Ok(self.tree.insert(tree))
    }

    /// Gives it another body.
    pub fn set_bytes(&mut self, body: Bytes) {
        (self.tree, self.changed) = (None, false);
        self.event.body = body;
    }

    /// Gives it another body.
    pub fn set_json(&mut self, body: Json) {
        (self.tree, self.changed) = (Some(body), true);
    }

    /// The event with its body.
    #[must_use]
    pub fn finish(mut self) -> Event {
        self.bytes();
        self.event
    }
}

/// JSON as text, without white space.
fn write(tree: &Json) -> Bytes {
    // A tree of JSON always serializes.
    serde_json::to_vec(tree).unwrap_or_default().into()
}

/// What the parser found, without the text that it found.
fn not_json(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => format!("the body is no JSON: it ends at {place}"),
        _ => format!("the body is no JSON: wrong at {place}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Attributes, Trace};

    /// An event with nothing in it.
    pub(crate) fn event() -> Event {
        Event {
            id: "1".into(),
            source: "/test".into(),
            kind: None,
            subject: None,
            time: None,
            content_type: None,
            key: None,
            trace: Trace::default(),
            hops: 0,
            attributes: Attributes::default(),
            body: Bytes::new(),
            dead_letter: None,
            fitted: None,
        }
    }

    fn transform(steps: Json) -> Result<Transform, Vec<Finding>> {
        let config: Vec<StepConfig> = serde_json::from_value(steps).unwrap();
        Transform::compile(&config, FilePath::new("."))
    }

    #[test]
    fn steps_follow_one_another() {
        let steps = transform(json!([
            {"split": {"list": "data.items"}},
            {"set": {"type": "item", "data.seen": true}},
            {"remove": ["data.secret"]},
        ]));
        let body = r#"{"items": [{"sku": "a", "secret": 1}, {"sku": "b"}]}"#;
        let events = steps.unwrap().apply(Event { body: body.into(), ..event() }).unwrap();
        let seen: Vec<_> = events.iter().map(|event| (&*event.id, &event.body[..])).collect();
        assert_eq!(
            seen,
            [("1/0", &br#"{"seen":true,"sku":"a"}"#[..]), ("1/1", br#"{"seen":true,"sku":"b"}"#)]
        );
    }

    #[test]
    fn a_failure_names_the_step() {
        let steps = transform(json!([{"set": {"type": "x"}}, {"split": {"list": "data.items"}}]));
        let failure = steps.unwrap().apply(Event { body: "x".into(), ..event() }).unwrap_err();
        let text = "step 2 (split): the body is no JSON: wrong at line 1, column 1";
        assert_eq!((failure.class, failure.to_string().as_str()), ("not_json", text));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let wrong = transform(json!([{"remove": ["data"]}, {"set": {"typ": 1}}])).unwrap_err();
        assert_eq!(wrong[0].path.to_string(), "[1].set.typ");
    }

    #[test]
    fn looking_changes_no_byte_and_setting_does() {
        let body: Bytes = "{ \"a\" :1.00}  ".into();
        let mut draft = Draft::new(Event { body: body.clone(), ..event() });
        assert_eq!(draft.look().unwrap()["a"], json!(1.0));
        assert_eq!(draft.bytes(), &body);
        draft.json().unwrap()["a"] = json!(2);
        assert_eq!(draft.bytes(), r#"{"a":2}"#);
        draft.json().unwrap()["b"] = json!(3);
        assert_eq!(draft.finish().body, r#"{"a":2,"b":3}"#);
    }

    #[test]
    fn bytes_that_no_step_looks_into_stay_as_they_are() {
        let body: Bytes = "{ \"a\" :1}  ".into();
        let steps = transform(json!([{"set": {"type": "x"}}])).unwrap();
        let after = steps.apply(Event { body: body.clone(), ..event() }).unwrap();
        assert_eq!(after[0].body.as_ptr(), body.as_ptr());
    }
}
