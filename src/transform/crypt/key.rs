//! Keys of AES-256-GCM, and what is sealed with one: nonce, ciphertext and tag in a row.

use std::{collections::BTreeMap, fmt};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::config::{problem::Finding, secret::Secret};

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A key, ready for use. Zeroed when it is dropped, and boxed so that a move leaves no copy; Debug
/// does not show it.
#[derive(Clone)]
pub(super) struct Key(Box<Aes256Gcm>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Box::new(Aes256Gcm::new(bytes.into())))
    }

    /// Reads what `secret` refers to: 64 hexadecimal digits, or 32 bytes in base64.
    pub(super) fn read(secret: &Secret) -> Result<Self, Finding> {
        let text = secret.read().map_err(|error| Finding::new(error.to_string()))?;
        let text = Zeroizing::new(text);
        let bytes = bytes(text.trim()).ok_or_else(|| {
            Finding::new(format!(
                "{secret} holds no key: write 32 bytes in base64 or as 64 hexadecimal digits; make one with `openssl rand -base64 32`"
            ))
        })?;
        Ok(Self::new(&bytes))
    }

    /// `plain`, sealed. `bound` is not in it, and has to be the same when it is opened. Nothing
    /// where `plain` is larger than 64 GiB.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        bound: &[u8],
        plain: &[u8],
    ) -> Option<Vec<u8>> {
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(nonce);
        sealed.extend_from_slice(plain);
        let (_, text) = sealed.split_at_mut(NONCE_BYTES);
        let tag = self.0.encrypt_inout_detached(nonce.into(), bound, text.into()).ok()?;
        sealed.extend_from_slice(&tag);
        Some(sealed)
    }

    /// What [`Key::seal`] sealed, or nothing where a bit of it or of `bound` is another.
    pub(super) fn open(&self, bound: &[u8], mut sealed: Vec<u8>) -> Option<Bytes> {
        let length = self.open_in_place(bound, &mut sealed)?.len();
        Some(Bytes::from(sealed).slice(NONCE_BYTES..NONCE_BYTES + length))
    }

    /// The key that is sealed in `sealed`. Its bytes stay nowhere else.
    pub(super) fn open_key(&self, bound: &[u8], sealed: Vec<u8>) -> Option<Self> {
        let mut sealed = Zeroizing::new(sealed);
        let opened: &[u8] = self.open_in_place(bound, &mut sealed)?;
        Some(Self::new(opened.try_into().ok()?))
    }

    fn open_in_place<'s>(&self, bound: &[u8], sealed: &'s mut [u8]) -> Option<&'s mut [u8]> {
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_BYTES>()?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
        let (nonce, tag): (&[u8; NONCE_BYTES], &[u8; TAG_BYTES]) = (nonce, tag);
        self.0.decrypt_inout_detached(nonce.into(), bound, (&mut *text).into(), tag.into()).ok()?;
        Some(text)
    }
}

fn bytes(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES {
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        return Some(bytes);
    }
    let decoded = Zeroizing::new(BASE64.decode(text).ok()?);
    (decoded.len() == KEY_BYTES).then(|| bytes.copy_from_slice(&decoded))?;
    Some(bytes)
}

/// What is wrong with a table of keys, whatever it is for.
pub(super) fn check(keys: &BTreeMap<String, Secret>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if keys.is_empty() {
        let text = "name at least one key: `{ orders-2026-11: \"${ORDERS_KEY}\" }`";
        findings.push(Finding::new(text).below("keys"));
    }
    if keys.contains_key("") {
        let text = "a key needs a name, by which an envelope refers to it";
        findings.push(Finding::new(text).below("keys"));
    }
    findings
}
