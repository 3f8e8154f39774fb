//! Whether the daemon is ready: every source and sink has connected, none needs a hand, and it is
//! not draining. And what it runs.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use super::operation::Overrides;
use crate::config::plan::Plan;

/// The state of every connector, read by the admin API.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<Vec<Part>>,
    plan: Mutex<Option<Arc<Plan>>>,
    overrides: Mutex<Overrides>,
    draining: AtomicBool,
}

/// A connector's name and its state. `None` means well.
type Part = (String, watch::Receiver<Option<String>>);

impl Health {
    /// Watches these connectors from now on, and no others; they are those of `plan`.
    pub fn watch(&self, plan: Arc<Plan>, parts: Vec<Part>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts;
    }

    /// What runs; none before anything does.
    #[must_use]
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on, this differs from the file.
    pub fn overrule(&self, overrides: Overrides) {
        *self.overrides.lock().unwrap_or_else(PoisonError::into_inner) = overrides;
    }

    /// What differs from the file because somebody has asked for it.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Each connector, and whether it works.
    #[must_use]
    pub fn standing(&self) -> Vec<(String, bool)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(name, state)| (name.clone(), state.borrow().is_none())).collect()
    }

    /// What keeps it from being ready, a line each; empty when it is ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let draining = self.draining.load(Ordering::Acquire).then(|| "draining".to_owned());
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let unwell = parts.iter().filter_map(|(name, state)| {
            state.borrow().as_ref().map(|problem| format!("{name}: {problem}"))
        });
        draining.into_iter().chain(unwell).collect()
    }
}
