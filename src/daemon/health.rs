//! Whether the daemon is ready: every source and sink has connected, none needs a hand, and it is
//! not draining.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The state of every connector, read by the admin API.
#[derive(Debug)]
pub struct Health {
    parts: Vec<(String, watch::Receiver<Option<String>>)>,
    draining: AtomicBool,
}

impl Health {
    /// Watches the named connectors. `None` in a watch means well.
    pub fn new(
        sources: impl Iterator<Item = (String, watch::Receiver<Option<String>>)>,
        sinks: impl Iterator<Item = (String, watch::Receiver<Option<String>>)>,
    ) -> Self {
        Self { parts: sources.chain(sinks).collect(), draining: AtomicBool::new(false) }
    }

    /// From now on it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// What keeps it from being ready, a line each; empty when it is ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let draining = self.draining.load(Ordering::Acquire).then(|| "draining".to_owned());
        let unwell = self.parts.iter().filter_map(|(name, state)| {
            state.borrow().as_ref().map(|problem| format!("{name}: {problem}"))
        });
        draining.into_iter().chain(unwell).collect()
    }
}
