//! What stands in the place of a sensitive value.

use std::fmt;

use hmac::{Hmac, Mac};
use serde_json::Value as Json;
use sha2::Sha256;

use super::{CLASS, Detector, With, card, email};
use crate::{
    config::{problem::Finding, secret::Secret},
    transform::Failure,
};

/// Below this a salt could be tried out.
const SALT_BYTES_MIN: usize = 16;
/// How much of a hash is written, in bytes.
const HASH_BYTES: usize = 16;
const STARS: &str = "***";

/// A setting whose salt may still be unread.
#[derive(Debug, Clone)]
pub(super) enum Conceal {
    Mask,
    Remove,
    Hash { salt: Secret, keyed: Option<Keyed> },
}

/// The hash function with its salt in it.
#[derive(Clone)]
pub(super) struct Keyed(Hmac<Sha256>);

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed")
    }
}

/// The same, ready for use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cover<'s> {
    Mask,
    Remove,
    Hash(&'s Keyed),
}

impl Conceal {
    pub(super) fn new(with: &With) -> Self {
        match with {
            With::Mask => Self::Mask,
            With::Remove => Self::Remove,
            With::Hash(hash) => Self::Hash { salt: hash.salt.clone(), keyed: None },
        }
    }

    /// Reads the salt.
    pub(super) fn unlock(&mut self) -> Result<(), Finding> {
        let Self::Hash { salt, keyed } = self else { return Ok(()) };
        let text = salt.read().map_err(|error| Finding::new(error.to_string()))?;
        if text.len() < SALT_BYTES_MIN {
            return Err(Finding::new(format!(
                "the salt in {salt} is shorter than {SALT_BYTES_MIN} bytes, and could be guessed; make one with `openssl rand -hex 32`"
            )));
        }
        let mac = Hmac::new_from_slice(text.as_bytes());
        *keyed = Some(Keyed(mac.map_err(|error| Finding::new(error.to_string()))?));
        Ok(())
    }

    /// With its salt.
    pub(super) fn open(&self) -> Result<Cover<'_>, Failure> {
        match self {
            Self::Mask => Ok(Cover::Mask),
            Self::Remove => Ok(Cover::Remove),
            Self::Hash { keyed: Some(keyed), .. } => Ok(Cover::Hash(keyed)),
            Self::Hash { salt, keyed: None } => {
                Err(Failure::new(CLASS, format!("the salt in {salt} has not been read")))
            }
        }
    }
}

impl Cover<'_> {
    /// In the place of what a detector found.
    pub(super) fn found(&self, what: Detector, text: &str) -> String {
        match self {
            Self::Mask => mask(what, text),
            Self::Remove => String::new(),
            Self::Hash(keyed) => keyed.hash(what.plain(text).as_bytes()),
        }
    }

    /// In the place of a whole value, whatever it is; nothing where it is to go.
    pub(super) fn whole(&self, value: &Json) -> Option<String> {
        match (self, value) {
            (Self::Remove, _) => None,
            (_, Json::String(text)) => Some(self.whole_text(text)),
            (_, Json::Number(number)) => {
                let digits = card::digits_of(number);
                Some(self.whole_text(&digits.unwrap_or_else(|| number.to_string())))
            }
            (Self::Mask, _) => Some(STARS.to_owned()),
            (Self::Hash(keyed), _) => {
                // Equal objects are to have equal hashes, in whatever order they were written.
                let mut value = value.clone();
                value.sort_all_objects();
                Some(keyed.hash(value.to_string().as_bytes()))
            }
        }
    }

    /// The same for bytes.
    pub(super) fn whole_bytes(&self, bytes: &[u8]) -> Option<String> {
        match (self, std::str::from_utf8(bytes)) {
            (Self::Remove, _) => None,
            (_, Ok(text)) => Some(self.whole_text(text)),
            (Self::Mask, Err(_)) => Some(STARS.to_owned()),
            (Self::Hash(keyed), Err(_)) => Some(keyed.hash(bytes)),
        }
    }

    /// A text that is a card number or an e-mail address from end to end is treated as one that
    /// was found.
    fn whole_text(&self, text: &str) -> String {
        let trimmed = text.trim();
        let all = |find: fn(&str, &mut Vec<std::ops::Range<usize>>)| {
            let mut found = Vec::new();
            find(trimmed, &mut found);
            found.len() == 1 && found.first() == Some(&(0..trimmed.len()))
        };
        if all(card::find) {
            return self.found(Detector::CardNumber, trimmed);
        }
        if all(email::find) {
            return self.found(Detector::Email, trimmed);
        }
        match self {
            Self::Mask => STARS.to_owned(),
            Self::Remove => String::new(),
            Self::Hash(keyed) => keyed.hash(text.as_bytes()),
        }
    }
}

impl Keyed {
    /// The first bytes of the HMAC in hex.
    fn hash(&self, value: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(value);
        let hash = mac.finalize().into_bytes();
        hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a reader may see.
fn mask(what: Detector, text: &str) -> String {
    match what {
        Detector::CardNumber => {
            let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
            let last = digits.iter().skip(digits.len().saturating_sub(4));
            "****".chars().chain(last.copied()).collect()
        }
        Detector::Email => email::mask(text),
        Detector::Phone | Detector::Iban | Detector::Ip | Detector::Key => STARS.to_owned(),
    }
}
