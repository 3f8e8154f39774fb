//! Whether an event may have been delivered before.

use crate::dedup::{Key, ledger::Claim};

/// Where an event stands with the deduplication of its route.
pub(super) enum Once {
    /// Nobody looks whether it has been delivered before.
    Unasked,
    /// It may have been.
    Wanted {
        key: Key,
        /// How often it has waited for a twin.
        twin_waits: u32,
        /// How often in a row it has waited for the store.
        store_waits: u32,
    },
    /// It is ours to deliver.
    Claimed(Claim),
}

impl Once {
    pub(super) fn wanted(key: Key) -> Self {
        Self::Wanted { key, twin_waits: 0, store_waits: 0 }
    }
}
