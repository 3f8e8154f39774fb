//! Which connectors work, as it is when somebody asks.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
};

use prometheus::IntGaugeVec;

/// Answers each connector, as in `source orders`, and whether it works.
type Read = Box<dyn Fn() -> Vec<(String, bool)> + Send + Sync>;

/// The gauge of it.
pub(super) struct Standing {
    up: IntGaugeVec,
    read: OnceLock<Read>,
    /// Those that were told last: what a configuration no longer has is not told of.
    known: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

impl Standing {
    pub(super) fn new(up: IntGaugeVec) -> Self {
        Self { up, read: OnceLock::new(), known: Mutex::default() }
    }

    pub(super) fn watch(&self, read: Read) {
        let _ = self.read.set(read);
    }

    pub(super) fn refresh(&self) {
        let Some(read) = self.read.get() else { return };
        let now = read();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in std::mem::take(&mut *known) {
            if !now.iter().any(|(name, _)| *name == gone) {
                let _ = self.up.remove_label_values(&labels(&gone));
            }
        }
        for (name, works) in now {
            self.up.with_label_values(&labels(&name)).set(i64::from(works));
            known.insert(name);
        }
    }
}

fn labels(name: &str) -> [&str; 2] {
    name.split_once(' ').unwrap_or(("", name)).into()
}
