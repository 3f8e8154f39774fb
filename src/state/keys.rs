//! The index in memory over the keys that a process keeps for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;

use super::Found;
use crate::dedup::Key;

/// Keys that one process keeps at most, about 1 GiB. Beyond, those that would be forgotten next
/// are forgotten early: then a very late repeat is delivered again.
pub const KEYS_MAX: usize = 20_000_000;

/// How many keys may be forgotten while `added` are added: more than come, so that they get fewer,
/// but never so many that a lane would feel it.
#[must_use]
pub fn sweep(added: usize) -> usize {
    2 * added + 64
}

/// Seconds since 1970. Keys outlive the process, so this is the clock on the wall: set forward, it
/// forgets early; set back, it forgets late.
#[must_use]
pub fn now() -> u32 {
    u32::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}

/// The second that lies this far after `now`.
#[must_use]
pub fn after(now: u32, ttl: Duration) -> u32 {
    now.saturating_add(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX))
}

/// Parts of the index, so that lanes rarely wait for one another.
const SHARDS: usize = 64;

/// Delivered keys and the second, since 1970, at which each is forgotten. About 50 bytes a key.
#[derive(Debug)]
pub struct Keys([Mutex<HashMap<Key, u32>>; SHARDS]);

impl Default for Keys {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Keys {
    /// What is known of each key at `now`. Claims themselves are kept by the ledger of the process.
    pub fn claim(&self, wanted: &[Key], now: u32) -> Vec<Found> {
        let found = |key: &Key| match self.shard(key).get(key) {
            Some(expiry) if *expiry > now => Found::Done,
            _ => Found::Ours,
        };
        wanted.iter().map(found).collect()
    }

    /// Knows a key until `expiry`, or for longer if it did.
    pub fn insert(&self, key: Key, expiry: u32) {
        let mut shard = self.shard(&key);
        let known = shard.entry(key).or_insert(expiry);
        *known = expiry.max(*known);
    }

    /// Forgets a key, unless it is known for longer than `expiry` says.
    pub fn forget(&self, key: &Key, expiry: u32) {
        let mut shard = self.shard(key);
        if shard.get(key).is_some_and(|known| *known <= expiry) {
            shard.remove(key);
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, u32>> {
        // A key is a digest: any of its bytes is as good as random.
        let shard = &self.0[usize::from(key.0[1]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
