//! The sealed body, version 1: JSON, so that it passes every service.
//!
//! ```json
//! {"eventferry_sealed":1,"head":"{\"alg\":\"A256GCM\",\"kid\":\"…\",…}","key":"…","data":"…"}
//! ```
//!
//! `head` is JSON as text: its very bytes are bound into both of the others, so that it can be read
//! by everyone and changed by nobody. `key` and `data` are base64 of nonce (12 bytes), ciphertext
//! and tag (16 bytes): the data key under the key that `head` names, the body under the data key.

use std::borrow::Cow;

use aes_gcm::aead::Generate;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::key::{KEY_BYTES, Key, NONCE_BYTES};
use crate::{
    decode::{Word, may_be_object_with},
    event::Event,
    transform::Failure,
};

const VERSION: u64 = 1;
const ALGORITHM: &str = "A256GCM";
/// How much of a foreign key id is shown, in characters.
const SHOWN_CHARS_MAX: usize = 100;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    eventferry_sealed: Option<u64>,
    #[serde(borrow)]
    head: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

/// What everyone may read: the key's id, which event this is the body of, and how to read it once
/// it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    alg: String,
    pub(super) kid: String,
    id: String,
    source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) datacontenttype: Option<String>,
    #[serde(default, rename = "content-encoding", skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
}

impl Head {
    pub(super) fn new(kid: &str, event: &Event, content_encoding: Option<String>) -> Self {
        Self {
            alg: ALGORITHM.to_owned(),
            kid: kid.to_owned(),
            id: event.id.to_string(),
            source: event.source.to_string(),
            r#type: event.kind.as_deref().map(str::to_owned),
            datacontenttype: event.content_type.as_deref().map(str::to_owned),
            content_encoding,
        }
    }

    /// Whether this is the head of `event`.
    ///
    /// # Errors
    /// It is that of another, whose sealed body was put here.
    pub(super) fn belongs_to(&self, event: &Event) -> Result<(), Failure> {
        let differs = [
            ("id", self.id != *event.id),
            ("source", self.source != *event.source),
            ("type", self.r#type.as_deref() != event.kind.as_deref()),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            None => Ok(()),
            Some((name, _)) => Err(tampered(&format!(
                "the body was sealed for another event: its `{name}` is not this event's"
            ))),
        }
    }
}

/// What is drawn anew for each body.
pub(super) struct Draw {
    pub(super) data_key: Zeroizing<[u8; KEY_BYTES]>,
    pub(super) key_nonce: [u8; NONCE_BYTES],
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl Draw {
    /// From the random numbers of the operating system.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn new() -> Result<Self, Failure> {
        let none = |_| Failure::new("encrypt", "the operating system has no random numbers");
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        *data_key = Generate::try_generate().map_err(none)?;
        let key_nonce = Generate::try_generate().map_err(none)?;
        let nonce = Generate::try_generate().map_err(none)?;
        Ok(Self { data_key, key_nonce, nonce })
    }
}

/// `body`, sealed with `key`.
///
/// # Errors
/// It is beyond what AES-GCM can seal.
pub(super) fn seal(key: &Key, head: &Head, body: &[u8], draw: &Draw) -> Result<Bytes, Failure> {
    let failed = || Failure::new("encrypt", "the body is too large to be sealed");
    let head = serde_json::to_string(head).map_err(|_| failed())?;
    let bound = head.as_bytes();
    let wrapped = key.seal(&draw.key_nonce, bound, &*draw.data_key).ok_or_else(failed)?;
    let data = Key::new(&draw.data_key).seal(&draw.nonce, bound, body).ok_or_else(failed)?;
    let envelope = Envelope {
        eventferry_sealed: Some(VERSION),
        key: Some(BASE64.encode(wrapped).into()),
        data: Some(BASE64.encode(data).into()),
        head: Some(head.into()),
    };
    serde_json::to_vec(&envelope).map(Bytes::from).map_err(|_| failed())
}

/// A sealed body that can be opened, given the key.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) head: Head,
    bound: Vec<u8>,
    key: Vec<u8>,
    data: Vec<u8>,
}

impl Sealed {
    /// Reads it; believes nothing of it yet.
    ///
    /// # Errors
    /// It is not sealed, not in a way that we know, or it is damaged.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let not_sealed = || Failure::new("not_sealed", "the body is not sealed by `encrypt`");
        static MARK: Word = Word::new(|| Finder::new("\"eventferry_sealed\""));
        if !may_be_object_with(body, &MARK) {
            return Err(not_sealed());
        }
        let damaged = |_| tampered("the sealed body is damaged");
        let envelope: Envelope<'_> = match serde_json::from_slice(body) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => return Err(damaged(())),
            Err(_) => return Err(not_sealed()),
        };
        match envelope.eventferry_sealed {
            None => return Err(not_sealed()),
            Some(VERSION) => {}
            Some(version) => {
                return Err(Failure::new(
                    "not_sealed",
                    format!(
                        "the body is sealed in version {version}, and this eventferry opens {VERSION}; update it"
                    ),
                ));
            }
        }
        let (Some(head), Some(key), Some(data)) = (envelope.head, envelope.key, envelope.data)
        else {
            return Err(damaged(()));
        };
        let bytes = |base64: &str| BASE64.decode(base64).map_err(|_| damaged(()));
        let sealed = Self {
            head: serde_json::from_str(&head).map_err(|_| damaged(()))?,
            bound: head.into_owned().into_bytes(),
            key: bytes(&key)?,
            data: bytes(&data)?,
        };
        if sealed.head.alg == ALGORITHM { Ok(sealed) } else { Err(damaged(())) }
    }

    /// The body.
    ///
    /// # Errors
    /// It was not sealed with this key, or something in it was changed since.
    pub(super) fn open(self, key: &Key) -> Result<Bytes, Failure> {
        let data_key = key.open_key(&self.bound, self.key);
        data_key.and_then(|data_key| data_key.open(&self.bound, self.data)).ok_or_else(|| {
            tampered(&format!(
                "the sealed body was changed, or was not sealed with this key `{}`",
                shown(&self.head.kid)
            ))
        })
    }
}

/// A foreign key id, fit for a log.
pub(super) fn shown(kid: &str) -> String {
    kid.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn tampered(text: &str) -> Failure {
    Failure::new("tampered", text)
}
