//! The step `decrypt`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    envelope::{Sealed, shown},
    key::{self, Key},
};
use crate::{
    config::{problem::Finding, secret::Secret},
    event::Value,
    transform::{Draft, Failure, encode::CONTENT_ENCODING},
};

/// Opens a body that `encrypt` sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Decrypt")]
pub struct Config {
    /// Keys by name: 32 bytes in base64 or as 64 hexadecimal digits, as references to secrets. An
    /// envelope says which of them opens it.
    pub keys: BTreeMap<String, Secret>,
}

/// The step, which has its keys once it is unlocked.
#[derive(Debug, Clone)]
pub struct Decrypt {
    keys: BTreeMap<String, (Secret, Option<Key>)>,
}

impl Config {
    /// The step. Reads no secret.
    ///
    /// # Errors
    /// There is no key, or a key has no name.
    pub fn compile(&self) -> Result<Decrypt, Vec<Finding>> {
        let findings = key::check(&self.keys);
        if !findings.is_empty() {
            return Err(findings);
        }
        let locked = |(kid, secret): (&String, &Secret)| (kid.clone(), (secret.clone(), None));
        Ok(Decrypt { keys: self.keys.iter().map(locked).collect() })
    }
}

impl Decrypt {
    /// Reads the keys, once, before the first event; what can be read is, whatever cannot.
    ///
    /// # Errors
    /// One of them cannot be read, or is none.
    pub fn unlock(&mut self) -> Result<(), Finding> {
        let mut result = Ok(());
        for (kid, (secret, key)) in &mut self.keys {
            match Key::read(secret) {
                Ok(read) => *key = Some(read),
                Err(finding) => result = result.and(Err(finding.below(kid).below("keys"))),
            }
        }
        result
    }

    /// Opens the body, and puts its media type and `content-encoding` back.
    ///
    /// # Errors
    /// It is not sealed, sealed with a key that is not here, changed since, or sealed for another
    /// event; or the step is not unlocked. The draft is then as it was.
    pub fn apply(&self, draft: &mut Draft) -> Result<(), Failure> {
        let sealed = Sealed::read(draft.bytes())?;
        let kid = shown(&sealed.head.kid);
        let Some((_, key)) = self.keys.get(&sealed.head.kid) else {
            let text = format!("the body is sealed with key `{kid}`, which is not in `keys`");
            return Err(Failure::new("unknown_key", text));
        };
        let Some(key) = key else {
            return Err(Failure::new("locked", format!("the key `{kid}` has not been read")));
        };
        let head = sealed.head.clone();
        let body = sealed.open(key)?;
        head.belongs_to(draft.event())?;
        draft.set_bytes(body);
        let event = draft.event_mut();
        event.content_type = head.datacontenttype.map(Into::into);
        if let Some(encodings) = head.content_encoding {
            event.attributes.set(CONTENT_ENCODING, Value::string(encodings));
        }
        Ok(())
    }
}
