//! Tokens: made at random, kept as hashes, compared in a time that tells nothing.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The SHA-256 of a token. Tokens are random, so that a plain hash hides them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^[0-9A-Fa-f]{64}$"), rename = "TokenHash")]
pub struct Hash([u8; 32]);

/// What tokens of ours begin with, so that scanners for leaked secrets can be told of them.
const PREFIX: &str = "eventferry_";
/// Twice as many bits as nobody can guess.
const RANDOM_BYTES: usize = 32;

impl Hash {
    /// The hash of this token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// A new token.
#[must_use]
pub fn generate() -> String {
    let bytes: [u8; RANDOM_BYTES] = rand::random();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The place of a token among the hashes of all. Each of them is compared, and each to its end,
/// whichever is right: the time tells nothing.
#[must_use]
pub fn find<'a>(token: &str, known: impl IntoIterator<Item = &'a Hash>) -> Option<usize> {
    find_by(&Hash::of(token), known, |one, other| one.0.ct_eq(&other.0))
}

fn find_by<'a>(
    wanted: &Hash,
    known: impl IntoIterator<Item = &'a Hash>,
    mut same: impl FnMut(&Hash, &Hash) -> Choice,
) -> Option<usize> {
    let none = u64::MAX;
    let mut found = none;
    for (place, hash) in (0..).zip(known) {
        found = u64::conditional_select(&found, &place, same(wanted, hash));
    }
    (found != none).then(|| usize::try_from(found).ok()).flatten()
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "this is no SHA-256 of a token, which has 64 hexadecimal digits; `eventferry token` \
             makes a token and its hash"
                .to_owned()
        };
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_token_is_found_and_a_wrong_one_has_none() {
        let tokens = [generate(), generate(), generate()];
        let hashes = tokens.each_ref().map(|token| Hash::of(token));
        for (place, token) in tokens.iter().enumerate() {
            assert_eq!(find(token, &hashes), Some(place));
        }
        assert_eq!(find(&generate(), &hashes), None);
        assert_eq!(find("", &hashes), None);
        assert_eq!(find(&tokens[0], []), None);
    }

    #[test]
    fn a_wrong_token_takes_the_same_way_as_a_right_one() {
        let tokens = ["first", "second", "third"];
        let hashes = tokens.map(Hash::of);
        for token in ["first", "second", "third", "wrong", "", "eventferry_"] {
            let mut compared = Vec::new();
            let _ = find_by(&Hash::of(token), &hashes, |one, other| {
                compared.push((one.clone(), other.clone()));
                one.0.ct_eq(&other.0)
            });
            let all: Vec<_> = hashes.iter().map(|it| (Hash::of(token), it.clone())).collect();
            assert_eq!(compared, all, "every hash is compared, after {token}");
        }
    }

    #[test]
    fn a_hash_reads_as_it_is_written_and_nothing_else_does() {
        let hash = Hash::of("token");
        assert_eq!(hash.to_string().parse(), Ok(hash.clone()));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        for wrong in
            ["", "token", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)]
        {
            assert!(wrong.parse::<Hash>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_new_token_holds_256_random_bits() {
        let token = generate();
        let random = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(random.len(), 32);
        assert_ne!(token, generate());
    }
}
