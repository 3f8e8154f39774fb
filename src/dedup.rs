//! Effectively once: an event that a route has delivered is not delivered again.
//!
//! A lane claims an event's key before it sends it, and commits the claim when the sink has
//! confirmed; only then is the source settled. A claim that ends in any other way is released. A
//! key already done is settled as a duplicate; a twin of a claim in flight waits, and goes back to
//! its source if it waits too long: it is never taken for done, because its twin may still fail.
//!
//! `model/` has these steps for a model checker: what changes here changes there.

use std::{fmt, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{config::units::Span, event::Event, route::part::Part};

pub mod keeper;
pub mod ledger;

use ledger::Ledger;

/// How a route knows events that it has delivered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupConfig {
    /// How long it knows them, from their delivery on: from a minute to 30 days.
    pub ttl: Span,
    /// What tells one event from another: an expression in the transform language that ends in a
    /// text or a number, such as `.data.order_id`. Asked of the event as it came. Without it: the
    /// event's source and id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What becomes of its events while the store of keys does not answer.
    #[serde(default)]
    pub on_store_failure: OnStoreFailure,
}

/// What becomes of events while the store of keys does not answer. They are never dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// They wait until it answers again.
    #[default]
    Hold,
    /// They are delivered, perhaps for the second time.
    Deliver,
}

/// What tells an event from all others of a route: a digest, so that it has one size, and so that
/// nobody can make two events that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; KEY_BYTES]);

/// In hexadecimal.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes of a key: 160 bits of SHA-256.
pub const KEY_BYTES: usize = 20;

/// Deduplication as one route, or one sink of its fan-out, does it.
#[derive(Debug, Clone)]
pub struct Dedup {
    /// Where claims are kept.
    pub ledger: Arc<Ledger>,
    /// How long a delivered event is known.
    pub ttl: Duration,
    /// What becomes of events while the store does not answer.
    pub on_store_failure: OnStoreFailure,
    /// The route.
    pub route: Arc<str>,
    /// The sink, where every sink of the route gets each event: what one of them has must still
    /// go to the others. None where each event goes to one of several.
    pub sink: Option<Arc<str>>,
}

impl Dedup {
    /// The key of an event: see [`Key::of`].
    #[must_use]
    pub fn key(&self, event: &Event, identity: Option<&str>, part: Option<&Part>) -> Key {
        Key::of(&self.route, self.sink.as_deref(), event, identity, part)
    }
}

impl Key {
    /// The key of an event on a route, or at one sink of its fan-out: of its source and id, or of
    /// what the route's expression made of it. Of a part of one, its place counts as well: by the
    /// same key the first part would be taken for all of them, and the others be lost.
    #[must_use]
    pub fn of(
        route: &str,
        sink: Option<&str>,
        event: &Event,
        identity: Option<&str>,
        part: Option<&Part>,
    ) -> Self {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            // With their lengths, so that no two lists of parts look alike.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(route);
        add(sink.unwrap_or_default());
        match (part, identity) {
            (Some(part), _) => add(&part.digest()),
            (None, Some(identity)) => add(identity),
            (None, None) => {
                add(&event.source);
                add(&event.id);
            }
        }
        let mut key = Self([0; KEY_BYTES]);
        key.0.copy_from_slice(&digest.finalize()[..KEY_BYTES]);
        key
    }
}

#[cfg(test)]
mod tests;
