//! The steps `encode` and `decode`: a body as JSON text, base64, gzip or zstd, and back.
//!
//! What compresses is named in the attribute `content-encoding`, so that a consumer who is not us
//! knows how to read the body.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IntoDeserializer, SeqAccess, Visitor, value::StrDeserializer},
};

use super::{Draft, Failure};
use crate::{
    config::problem::Finding,
    event::{Event, Value},
};

mod codec;
pub use codec::{OUTPUT_BYTES_MAX, compress, decompress};

/// The attribute that names what a body is compressed with, the last one last, as in HTTP.
pub const CONTENT_ENCODING: &str = "content-encoding";

/// A way to write bytes as other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Text as one JSON string.
    Json,
    /// Base64 with the standard alphabet, padded (RFC 4648, section 4).
    Base64,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Its name in the file and, where it compresses, in `content-encoding`.
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Base64 => "base64",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn compresses(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstd)
    }
}

/// Codings in the order in which they are applied; a single one may stand without a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config(pub Vec<Coding>);

/// The step `encode`.
#[derive(Debug, Clone)]
pub struct Encode(Vec<Coding>);

/// The step `decode`.
#[derive(Debug, Clone)]
pub struct Decode(Vec<Coding>);

impl Config {
    /// The step that applies the codings.
    ///
    /// # Errors
    /// There are none, or one can never take what the one before it gives.
    pub fn compile_encode(&self) -> Result<Encode, Vec<Finding>> {
        self.check(|first, second| (first, second))?;
        Ok(Encode(self.0.clone()))
    }

    /// The step that takes the codings off, the outermost first.
    ///
    /// # Errors
    /// There are none, or one can never take what the one before it gives.
    pub fn compile_decode(&self) -> Result<Decode, Vec<Finding>> {
        self.check(|first, second| (second, first))?;
        Ok(Decode(self.0.clone()))
    }

    /// `inside_out` says which of two neighbours is the inner one.
    fn check(
        &self,
        inside_out: fn(Coding, Coding) -> (Coding, Coding),
    ) -> Result<(), Vec<Finding>> {
        if self.0.is_empty() {
            let text = "name at least one of `json`, `base64`, `gzip` and `zstd`";
            return Err(vec![Finding::new(text)]);
        }
        let pairs = self.0.iter().zip(self.0.iter().skip(1)).enumerate();
        let findings: Vec<_> = pairs
            .filter_map(|(index, (&first, &second))| {
                let (inner, outer) = inside_out(first, second);
                let fits = !(inner.compresses() && outer == Coding::Json);
                (!fits).then(|| {
                    Finding::new(format!(
                        "a JSON string holds text, and `{}` makes bytes; put `base64` between them",
                        inner.name()
                    ))
                    .below_item(index + 1)
                })
            })
            .collect();
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }
}

impl Encode {
    /// Encodes the body, and names in `content-encoding` what compresses it.
    ///
    /// # Errors
    /// `json` was given bytes that are no text. The draft is then as it was.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let mut body = draft.bytes().clone();
        for coding in &self.0 {
            body = codec::encode(*coding, &body)?;
        }
        draft.set_bytes(body);
        change_encodings(draft.event_mut(), |encodings| {
            for coding in self.0.iter().filter(|coding| coding.compresses()) {
                encodings.push(coding.name());
            }
        });
        Ok(())
    }
}

impl Decode {
    /// Decodes the body, and takes what is off it out of `content-encoding`.
    ///
    /// # Errors
    /// The body is not encoded so, or is larger than [`OUTPUT_BYTES_MAX`] without it. The draft is
    /// then as it was.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let mut body = draft.bytes().clone();
        for coding in &self.0 {
            body = codec::decode(*coding, &body, OUTPUT_BYTES_MAX)?;
        }
        draft.set_bytes(body);
        change_encodings(draft.event_mut(), |encodings| {
            for coding in self.0.iter().filter(|coding| coding.compresses()) {
                // Whoever did not name it on the way there needs no change on the way back.
                encodings.pop_if(|last| last.eq_ignore_ascii_case(coding.name()));
            }
        });
        Ok(())
    }
}

/// Edits the list in [`CONTENT_ENCODING`], which is not there where it would be empty. Leaves an
/// attribute alone that is not changed.
fn change_encodings(event: &mut Event, change: impl FnOnce(&mut Vec<&str>)) {
    let before = event.attributes.text(CONTENT_ENCODING).unwrap_or_default().to_owned();
    let mut encodings: Vec<_> =
        before.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let count = encodings.len();
    change(&mut encodings);
    match encodings.len() {
        same if same == count => {}
        0 => drop(event.attributes.remove(CONTENT_ENCODING)),
        _ => event.attributes.set(CONTENT_ENCODING, Value::string(encodings.join(", "))),
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Codings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let coding = generator.subschema_for::<Coding>();
        json_schema!({
            "description": "One coding, or several in the order in which they are applied.",
            "oneOf": [coding, { "type": "array", "items": coding, "minItems": 1 }]
        })
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConfigVisitor;

        impl<'de> Visitor<'de> for ConfigVisitor {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a coding or a list of codings")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Config, E> {
                let name: StrDeserializer<'_, E> = name.into_deserializer();
                Ok(Config(vec![Coding::deserialize(name)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Config, A::Error> {
                let mut codings = Vec::new();
                while let Some(coding) = list.next_element()? {
                    codings.push(coding);
                }
                Ok(Config(codings))
            }
        }

        deserializer.deserialize_any(ConfigVisitor)
    }
}

#[cfg(test)]
mod tests;
