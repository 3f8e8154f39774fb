//! What happened, for tests and people to read.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use super::fault::Place;

/// Entries kept; older ones are forgotten.
const CAPACITY: usize = 100_000;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// Milliseconds since 1970, by the service's clock.
    pub(crate) t: i64,
    #[serde(flatten)]
    pub(crate) place: Place,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What can happen. A payload is never written down.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum What {
    Open,
    Closed,
    Attach {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
        properties: String,
    },
    Detach {
        condition: String,
        description: String,
    },
    Detached,
    PutToken {
        audience: String,
        code: i32,
    },
    Read {
        code: i32,
    },
    Append {
        to: u32,
        seq: i64,
        off: String,
        count: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    Deliver {
        seq: i64,
        count: u64,
    },
    Disposition {
        outcome: String,
    },
    Fault {
        fault: super::fault::Kind,
    },
}

/// The entries, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<VecDeque<Entry>>,
}

impl Journal {
    pub(crate) fn write(&self, entry: Entry) {
        tracing::debug!(?entry, "emulator");
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    pub(crate) fn read(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
