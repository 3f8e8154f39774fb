//! What a schema says against data, in words without a value from the data.

use std::fmt::Display;

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
    paths::{Location, LocationSegment},
};
use serde_json::Value as Json;

use crate::transform::path::{Part, Place};

/// Violations that are spelled out.
const LISTED_MAX: usize = 20;
/// Characters of one value of the schema that are shown.
const SHOWN_MAX: usize = 80;
/// Characters of a path that are shown.
const PATH_MAX: usize = 200;
/// Names or values that are shown of a list.
const ITEMS_MAX: usize = 8;
/// Characters of a field's name: what is longer is none.
const NAME_MAX: usize = 64;
/// Items of an array: a greater number in a path is the name of a field.
const INDEX_MAX: usize = 1_000_000;
/// What is not shown.
const HIDDEN: &str = "…";

/// All of them, as one line; beyond the twentieth only their number.
pub(super) fn listed<'a>(errors: impl Iterator<Item = ValidationError<'a>>) -> String {
    let mut more = 0usize;
    let mut texts = Vec::new();
    for error in errors {
        if texts.len() < LISTED_MAX {
            texts.push(text("data", &error));
        } else {
            more += 1;
        }
    }
    let mut list = texts.join("; ");
    if more > 0 {
        list.push_str(&format!("; and {more} more"));
    }
    list
}

/// One of them: where, what is expected there, and the keyword that expects it. `top` is what the
/// whole is called.
pub(super) fn text(top: &str, error: &ValidationError<'_>) -> String {
    let kind = error.kind();
    let path = format!("{top}{}", place(error.instance_path()));
    let path = cut(path.trim_start_matches('.'), PATH_MAX);
    format!("`{path}` {} ({})", expectation(kind), kind.keyword())
}

fn place(path: &Location) -> Place {
    let part = |segment: LocationSegment<'_>| match segment {
        LocationSegment::Index(index) if index < INDEX_MAX => Part::Item(index),
        LocationSegment::Index(_) => Part::Name(HIDDEN.to_owned()),
        LocationSegment::Property(name) => Part::Name(shown_name(&name).to_owned()),
    };
    Place(path.segments().map(part).collect())
}

/// The name of a field. In a map keyed by addresses or numbers, names are payload.
fn shown_name(name: &str) -> &str {
    let is_name = name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || "_$@".contains(c))
        && name.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || "_-$".contains(c));
    if is_name { name } else { HIDDEN }
}

fn expectation(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind: TypeKind::Single(one) } => format!("must be {}", article(*one)),
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<_> = several.iter().map(article).collect();
            format!("must be {}", names.join(" or "))
        }
        Kind::Required { property } => format!("must have {}", value(property)),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let names: Vec<_> =
                unexpected.iter().map(|name| format!("`{}`", shown_name(name))).collect();
            format!("must not have {}", first(&names))
        }
        Kind::AdditionalItems { limit } => format!("must have at most {}", many(*limit, "item")),
        Kind::UnevaluatedItems { unexpected } => {
            format!("must not have its last {}", many(unexpected.len(), "item"))
        }
        Kind::Constant { expected_value } => format!("must be {}", value(expected_value)),
        Kind::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().map(value).collect();
            format!("must be one of {}", first(&options))
        }
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MaxLength { limit } => format!("must have at most {}", many(*limit, "character")),
        Kind::MinLength { limit } => format!("must have at least {}", many(*limit, "character")),
        Kind::MaxItems { limit } => format!("must have at most {}", many(*limit, "item")),
        Kind::MinItems { limit } => format!("must have at least {}", many(*limit, "item")),
        Kind::MaxProperties { limit } => format!("must have at most {}", many(*limit, "field")),
        Kind::MinProperties { limit } => format!("must have at least {}", many(*limit, "field")),
        Kind::UniqueItems => "must have no item twice".to_owned(),
        Kind::Contains => "lacks an item that it must contain, or has too many".to_owned(),
        Kind::Pattern { pattern } => format!("must match `{}`", short(pattern)),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "is too hard to match with its pattern".to_owned()
        }
        Kind::Format { format } => format!("must be a valid `{}`", short(format)),
        Kind::ContentEncoding { content_encoding } => {
            format!("must be encoded as `{}`", short(content_encoding))
        }
        Kind::FromUtf8 { .. } => "must hold text".to_owned(),
        Kind::ContentMediaType { content_media_type } => {
            format!("must hold `{}`", short(content_media_type))
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            format!("must match one of {} schemas", context.len())
        }
        Kind::OneOfMultipleValid { .. } => "must match only one of the schemas".to_owned(),
        Kind::Not { .. } => "must not match the schema".to_owned(),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::PropertyNames { error } => {
            format!("has a field whose name {}", expectation(error.kind()))
        }
        // These two are about the schema: their messages may hold anything.
        Kind::Custom { .. } | Kind::Referencing(_) => "cannot be judged".to_owned(),
    }
}

fn many<N: Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn article(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "an array",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    }
}

/// A value of the schema.
fn value(value: &Json) -> String {
    match value {
        Json::String(text) => format!("`{}`", short(text)),
        other => short(&other.to_string()),
    }
}

fn first(items: &[String]) -> String {
    let shown = items.iter().take(ITEMS_MAX).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(ITEMS_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The beginning of a text.
pub(super) fn short(text: &str) -> String {
    cut(text, SHOWN_MAX)
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}{HIDDEN}", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
