//! The step `encrypt`.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    envelope::{Draw, Head, seal},
    key::{self, Key},
};
use crate::{
    config::{
        problem::{Finding, suggestion},
        secret::Secret,
    },
    event::{Event, Value},
    transform::{Draft, Failure, encode::CONTENT_ENCODING},
};

/// Seals the body with AES-256-GCM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Encrypt")]
pub struct Config {
    /// Name of the key to seal with: one of `keys`.
    pub key: String,
    /// Keys by name: 32 bytes in base64 or as 64 hexadecimal digits, as references to secrets. Only
    /// the one that `key` names is read.
    pub keys: BTreeMap<String, Secret>,
}

/// The step, which has its key once it is unlocked.
#[derive(Debug, Clone)]
pub struct Encrypt {
    kid: String,
    secret: Secret,
    key: Option<Key>,
}

impl Config {
    /// The step. Reads no secret.
    ///
    /// # Errors
    /// The key is not among the keys, or a key has no name.
    pub fn compile(&self) -> Result<Encrypt, Vec<Finding>> {
        let mut findings = key::check(&self.keys);
        let secret = self.keys.get(&self.key);
        if secret.is_none() && !self.keys.is_empty() {
            let hint = suggestion(&self.key, self.keys.keys().map(String::as_str));
            let text = format!("there is no key `{}` in `keys`; {hint}", self.key);
            findings.push(Finding::new(text).below("key"));
        }
        match secret {
            Some(secret) if findings.is_empty() => {
                Ok(Encrypt { kid: self.key.clone(), secret: secret.clone(), key: None })
            }
            _ => Err(findings),
        }
    }
}

impl Encrypt {
    /// Reads the key, once, before the first event.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn unlock(&mut self) -> Result<(), Finding> {
        let key = Key::read(&self.secret);
        self.key = Some(key.map_err(|finding| finding.below(&self.kid).below("keys"))?);
        Ok(())
    }

    /// Seals the body. Its media type and `content-encoding` go with it into the envelope.
    ///
    /// # Errors
    /// The step is not unlocked, or there are no random numbers. The draft is then as it was.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let Some(key) = &self.key else {
            let text = format!("the key `{}` has not been read", self.kid);
            return Err(Failure::new("locked", text));
        };
        let body = draft.bytes().clone();
        let head = Head::new(&self.kid, draft.event(), content_encoding(draft.event()));
        draft.set_bytes(seal(key, &head, &body, &Draw::new()?)?);
        let event = draft.event_mut();
        event.content_type = Some(Arc::from("application/json"));
        if head.content_encoding.is_some() {
            event.attributes.remove(CONTENT_ENCODING);
        }
        Ok(())
    }
}

/// How the body is compressed, which is not true of the envelope.
fn content_encoding(event: &Event) -> Option<String> {
    match event.attributes.get(CONTENT_ENCODING) {
        Some(Value::String(text)) => Some(text.to_string()),
        _ => None,
    }
}
