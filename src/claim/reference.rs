//! What goes through a sink in place of a body: where the body is, and how to know it again.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::BODY_MAX;
use crate::event::Event;

/// A body in an object store. Written as `{"claim_check": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// `s3://BUCKET/NAME`, the `https` URL of a blob, or `file:///PATH`.
    pub url: String,
    /// Its length.
    pub bytes: usize,
    /// Its SHA-256, in small hexadecimal digits.
    pub sha256: String,
    /// Its media type, where the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Written<R> {
    claim_check: R,
}

/// What a reference in JSON is.
const MEDIA_TYPE: &str = "application/json";

impl Reference {
    /// A reference to the body of `event`, under `root`. The name of the object is its content, so
    /// that storing it again changes nothing.
    #[must_use]
    pub(crate) fn to_body_of(event: &Event, root: &str) -> Self {
        let sha256 = sha256(&event.body);
        Self {
            url: format!("{root}/{}", name(&sha256)),
            bytes: event.body.len(),
            sha256,
            datacontenttype: event.content_type.as_deref().map(str::to_owned),
        }
    }

    /// The reference in a body that is marked as one.
    ///
    /// # Errors
    /// It is none that eventferry writes.
    pub(crate) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let wrong = "body is not the reference to an object that it claims";
        let Written { claim_check } =
            serde_json::from_slice::<Written<Self>>(body).map_err(|_| wrong)?;
        let is_hash = claim_check.sha256.len() == 64
            && claim_check.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hash { Ok(claim_check) } else { Err(wrong) }
    }

    /// As the body of an event.
    #[must_use]
    pub(crate) fn write(&self) -> (Bytes, Arc<str>) {
        // A struct of strings and a number always serializes.
        let json = serde_json::to_vec(&Written { claim_check: self }).unwrap_or_default();
        (json.into(), MEDIA_TYPE.into())
    }

    /// Puts the body back that `event` holds this reference to.
    pub(crate) fn redeem(self, event: &mut Event, body: Bytes) {
        event.body = body;
        event.content_type = self.datacontenttype.map(Into::into);
    }

    /// The name of the object, below the store's prefix.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        name(&self.sha256)
    }

    /// Why it is not to be followed, if it is not: only what the store at `root` holds is.
    pub(crate) fn refused_by(&self, root: &str) -> Option<&'static str> {
        if self.url != format!("{root}/{}", self.name()) {
            return Some("its reference leads out of the store of `claim_check`");
        }
        (self.bytes > BODY_MAX).then_some("the body that it refers to has more than 64 MiB")
    }

    /// Whether `body` is the one that was stored.
    #[must_use]
    pub(crate) fn is_to(&self, body: &[u8]) -> bool {
        body.len() == self.bytes && sha256(body) == self.sha256
    }
}

/// The first two digits spread the objects over folders.
fn name(sha256: &str) -> String {
    format!("{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
