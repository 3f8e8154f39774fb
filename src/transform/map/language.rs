//! The one place that knows the compiler and the runtime of the language.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vrl::{
    compiler::{
        self, CompileConfig, ExpressionError, Function, TimeZone,
        runtime::{Runtime, Terminate},
        state::ExternalEnv,
    },
    diagnostic::{Diagnostic, DiagnosticMessage, Label, Note},
    value::{
        Kind, Value,
        kind::{Collection, Field},
    },
};

use super::{
    Draft, Failure, Finding, Flow, review,
    scope::{Scope, Wanted},
};
use crate::transform::path::{ATTRIBUTES, DATA, OWN, Own};

/// Steps that a program may take with one event, of one expression each.
const STEPS_MAX: u32 = 100_000;

/// Functions of the language that programs do not get, and why.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    (
        "a replayed event must come out the same, whenever and wherever that is",
        &[
            "now",
            "random_bool",
            "random_bytes",
            "random_float",
            "random_int",
            "uuid_v4",
            "uuid_v7",
            "parse_klog",
            "parse_linux_authorization",
            "parse_syslog",
            "get_env_var",
            "get_hostname",
            "get_timezone_name",
        ],
    ),
    (
        "programs touch nothing outside of the event",
        &[
            "log",
            "dns_lookup",
            "reverse_dns",
            "http_request",
            "parse_etld",
            "parse_proto",
            "encode_proto",
            "validate_json_schema",
        ],
    ),
    (
        "the size of what it makes has no bound",
        &["range", "decode_gzip", "decode_zlib", "decode_zstd", "decode_snappy", "decode_lz4"],
    ),
    (
        "what it takes of time or stack has no bound",
        &["parse_grok", "parse_groks", "parse_ruby_hash", "parse_xml", "unflatten"],
    ),
];

/// A program that has been checked.
#[derive(Debug)]
pub(super) struct Compiled {
    program: compiler::Program,
    text: Box<str>,
    /// What it looks at.
    wanted: Wanted,
    /// Where a time has no zone, whatever the zone of this machine.
    timezone: TimeZone,
}

impl Compiled {
    /// A program that changes the event.
    pub(super) fn program(text: &str) -> Result<Self, Vec<Finding>> {
        let compiled = Self::compile(text, CompileConfig::default())?;
        let left = compiled.program.final_type_info().state.external;
        let findings = review::review(text, left.target_kind());
        if findings.is_empty() { Ok(compiled) } else { Err(findings) }
    }

    /// A program that changes nothing and ends in a boolean.
    pub(super) fn condition(text: &str) -> Result<Self, Vec<Finding>> {
        let mut config = CompileConfig::default();
        config.set_read_only();
        let compiled = Self::compile(text, config)?;
        let mut findings = review::review(text, &event_kind());
        let result = compiled.program.final_type_info().result;
        if compiled.program.info().abortable {
            findings.push(Finding::new("a condition cannot `abort`; let it end in `false`"));
        }
        let kind = result.kind().union(result.returns().clone());
        if !kind.is_boolean() {
            findings.push(Finding::new(format!(
                "a condition must end in true or false, but this may be {}; compare it with \
                 something, as in `.data.urgent == true`",
                shown(&kind),
            )));
        }
        if findings.is_empty() { Ok(compiled) } else { Err(findings) }
    }

    /// A program that changes nothing and ends in what can be a name.
    pub(super) fn naming(text: &str) -> Result<Self, Vec<Finding>> {
        let mut config = CompileConfig::default();
        config.set_read_only();
        let compiled = Self::compile(text, config)?;
        let mut findings = review::review(text, &event_kind());
        let result = compiled.program.final_type_info().result;
        if compiled.program.info().abortable {
            findings.push(Finding::new("an expression cannot `abort`"));
        }
        let kind = result.kind().union(result.returns().clone());
        let can_name = kind.contains_bytes() || kind.contains_integer();
        if !can_name {
            findings.push(Finding::new(format!(
                "this must end in a text or a whole number, but it is {}",
                shown(&kind),
            )));
        }
        if findings.is_empty() { Ok(compiled) } else { Err(findings) }
    }

    fn compile(text: &str, config: CompileConfig) -> Result<Self, Vec<Finding>> {
        let event = ExternalEnv::new_with_kind(event_kind(), Kind::object(Collection::empty()));
        let compiled = compiler::compile_with_external(text, &functions(), &event, config);
        // What the compiler only warns of is an unused result.
        let program = match compiled {
            Ok(result) => result.program,
            Err(problems) => {
                return Err(problems.iter().map(|problem| finding(text, problem)).collect());
            }
        };
        let info = program.info();
        // What is replaced as a whole need not be looked at.
        let assigned = info.target_assignments.iter().filter(|path| path.path.segments.len() != 1);
        let wanted = Wanted::of(info.target_queries.iter().chain(assigned));
        let timezone = TimeZone::parse("UTC").unwrap_or_default();
        Ok(Self { program, text: text.into(), wanted, timezone })
    }

    pub(super) fn change(&self, draft: &mut Draft) -> Result<Flow, Failure> {
        let body = self.wanted.body(draft);
        let mut scope = Scope::of(draft.event(), &body, &self.wanted)?;
        match self.resolve(&mut scope)? {
            Some(_) => scope.write_back(draft).map(|()| Flow::Keep),
            None => Ok(Flow::Drop),
        }
    }

    pub(super) fn judge(&self, draft: &mut Draft) -> Result<bool, Failure> {
        let body = self.wanted.body(draft);
        let mut scope = Scope::of(draft.event(), &body, &self.wanted)?;
        // It was checked that it is a boolean.
        self.resolve(&mut scope).map(|value| value == Some(Value::Boolean(true)))
    }

    pub(super) fn name(&self, draft: &mut Draft) -> Result<String, Failure> {
        let body = self.wanted.body(draft);
        let mut scope = Scope::of(draft.event(), &body, &self.wanted)?;
        match self.resolve(&mut scope)? {
            Some(Value::Bytes(text)) if !text.is_empty() => {
                // What is no UTF-8 may look like something else when it is shown, but not here.
                Ok(std::str::from_utf8(&text).map_or_else(|_| hex(&text), str::to_owned))
            }
            Some(Value::Integer(number)) => Ok(number.to_string()),
            _ => {
                Err(Failure::new("map", "the expression ends in neither a text nor a whole number"))
            }
        }
    }

    /// What the program ends in; nothing if it aborts.
    fn resolve(&self, scope: &mut Scope<'_>) -> Result<Option<Value>, Failure> {
        let mut left = STEPS_MAX;
        let mut control = || match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        };
        let mut runtime = Runtime::default();
        // Some functions of the language panic at values that they do not expect. The scope is
        // thrown away then, so that nothing half done is seen.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            runtime.resolve_with_control(scope, &self.program, &self.timezone, &mut control)
        }));
        let Ok(ended) = ended else {
            let text = "the program failed: a function of it cannot take a value of this event";
            return Err(Failure::new("map", text));
        };
        match ended {
            Ok(value) => Ok(Some(value)),
            Err(Terminate::Abort(ExpressionError::Abort { .. })) => Ok(None),
            Err(Terminate::Interrupted) => Err(Failure::new(
                "fuel",
                format!("the program takes more than {STEPS_MAX} steps with this event"),
            )),
            Err(Terminate::Abort(error) | Terminate::Error(error)) => Err(self.failure(&error)),
        }
    }

    /// What failed and where, without what the event holds.
    fn failure(&self, error: &ExpressionError) -> Failure {
        // The innermost of the calls that failed with it is labelled first.
        let labels = error.labels();
        let call = labels.first().map(|Label { message, span, .. }| {
            let (line, _) = line_and_column(&self.text, span.start());
            let call = self.text.get(span.start()..).unwrap_or_default();
            let name = call.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            (format!(", line {line}: `{}` failed", name.unwrap_or_default()), message.clone())
        });
        let (place, message) = call.unwrap_or_else(|| (String::new(), error.message()));
        let why =
            if speaks_of_types_only(&message) { format!(": {message}") } else { String::new() };
        let place = if place.is_empty() { " failed" } else { &place };
        Failure::new("map", format!("the program{place}{why}"))
    }
}

/// Apart from every text, by its first character.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("\u{0}".to_owned()).chain(digits).collect()
}

/// What an event is to a program: the names at its top are all there are.
fn event_kind() -> Kind {
    let own = OWN.iter().map(|(name, own)| {
        let kind = match own {
            Own::Id | Own::Source => Kind::bytes(),
            Own::Time => Kind::timestamp().or_undefined(),
            _ => Kind::bytes().or_undefined(),
        };
        (Field::from(*name), kind)
    });
    let rest = [(ATTRIBUTES, Kind::object(Collection::any())), (DATA, Kind::any())];
    let rest = rest.into_iter().map(|(name, kind)| (Field::from(name), kind));
    Kind::object(Collection::from_parts(own.chain(rest).collect(), Kind::undefined()))
}

fn functions() -> Vec<Box<dyn Function>> {
    let mut all = vrl::stdlib::all();
    all.retain(|function| why_left_out(function.identifier()).is_none());
    all
}

fn why_left_out(name: &str) -> Option<&'static str> {
    LEFT_OUT.iter().find(|(_, names)| names.contains(&name)).map(|(why, _)| *why)
}

/// What the compiler says, in a line.
fn finding(text: &str, problem: &Diagnostic) -> Finding {
    let primary = problem.labels.iter().find(|label| label.primary).or(problem.labels.first());
    let at = primary.map(|label| line_and_column(text, label.span.start()));
    let called = primary.and_then(|label| text.get(label.span.start()..label.span.end()));
    if let Some((name, why)) = called.and_then(|name| Some((name, why_left_out(name)?))) {
        return Finding { at, ..Finding::new(format!("`{name}` is left out here: {why}")) };
    }
    let mut said = problem.message.trim().to_owned();
    let labels = problem.labels.iter().map(|label| label.message.trim().to_owned());
    let hints = problem.notes.iter().filter_map(|note| match note {
        Note::Hint(hint) => Some(hint.clone()),
        Note::CoerceValue => Some(note.to_string()),
        _ => None,
    });
    for more in labels.chain(hints) {
        // A list of everything that the grammar allows helps nobody, nor does a long word for
        // what the message has said.
        let is_long = more.starts_with("this expression is fallible because")
            || more.starts_with("expected one of") && more.matches(',').count() > 3;
        let more = more.trim_start_matches("or ");
        if !is_long && !said.contains(more) {
            said.push_str(if said.ends_with(':') { " " } else { "; " });
            said.push_str(more);
        }
    }
    Finding { at, ..Finding::new(said.replace('\n', " ")) }
}

/// A kind in words.
pub(super) fn shown(kind: &Kind) -> String {
    kind.to_string().replace("undefined", "nothing")
}

/// Line and column, from 1, of a byte.
pub(super) fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let mut end = byte.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Whether a message of the runtime holds no word but these, so that no payload can be in it.
fn speaks_of_types_only(message: &str) -> bool {
    const WORDS: [&str; 38] = [
        "a",
        "add",
        "an",
        "and",
        "any",
        "array",
        "boolean",
        "by",
        "calculate",
        "can't",
        "coerce",
        "compare",
        "divide",
        "exact",
        "expected",
        "float",
        "from",
        "got",
        "integer",
        "into",
        "map",
        "merge",
        "multiply",
        "null",
        "object",
        "of",
        "one",
        "or",
        "regex",
        "remainder",
        "string",
        "subtract",
        "timestamp",
        "to",
        "type",
        "types",
        "unable",
        "zero",
    ];
    !message.is_empty()
        && message
            .split_whitespace()
            .all(|word| WORDS.contains(&word.trim_matches([',', ':', '"', '\''])))
}
