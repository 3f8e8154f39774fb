//! Secrets stand in the file by reference only.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A reference to a secret: `${NAME}` for an environment variable, `file:PATH` for a file.
///
/// A secret written out is refused when the file is read, so that none ever stands in a
/// repository or a ConfigMap. Debug and Display show the reference, never the secret.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("pattern" = r"^(\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:.+)$"))]
pub enum Secret {
    /// `${NAME}`.
    Env(String),
    /// `file:PATH`; trailing line ends are cut off.
    File(String),
}

/// A secret that could not be read. Names the reference.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or not text.
    #[error("environment variable {0} is not set")]
    Env(String),
    /// The file cannot be read.
    #[error("cannot read {0}")]
    File(String, #[source] std::io::Error),
}

impl Secret {
    /// Reads the secret now, so that a rotated one is seen at the next connect.
    ///
    /// # Errors
    /// The variable is not set or the file cannot be read.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone())),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err(SecretError::File(path.clone(), error)),
            },
        }
    }
}

/// Tells the file's reader by its name that `${NAME}` is to be kept in it, not resolved.
#[derive(Deserialize)]
struct Reference(String);

/// The name of [`Reference`], as serde hands it to the reader.
pub(super) const REFERENCE: &str = "Reference";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Reference(text) = Reference::deserialize(deserializer)?;
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            return Ok(Self::Env(name.to_owned()));
        }
        match text.strip_prefix("file:") {
            Some(path) => Ok(Self::File(path.to_owned())),
            None => Err(D::Error::custom(
                "a secret may not be written out here; refer to it as `${NAME}` or `file:PATH`",
            )),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "${{{name}}}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
