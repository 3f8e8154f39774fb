//! What outlives the process, as the file says where it is kept.

use std::sync::Arc;

use crate::{
    config::plan::{Plan, State},
    fault::Fault,
    state::{
        DedupStore, StateStore,
        embedded::EmbeddedStore,
        memory::{MemoryKeys, MemoryStore},
    },
};

/// What outlives the process.
pub(crate) struct Stores {
    pub(crate) checkpoints: Arc<dyn StateStore>,
    /// Delivered keys, where they can be kept there.
    pub(crate) keys: Option<Arc<dyn DedupStore>>,
}

impl Stores {
    /// Opens them.
    ///
    /// # Errors
    /// The store cannot be reached, or used by this process.
    pub(crate) async fn open(plan: &Plan) -> Result<Self, Fault> {
        Ok(match &plan.state {
            State::Memory => Self {
                checkpoints: Arc::new(MemoryStore::default()),
                keys: Some(Arc::new(MemoryKeys::default())),
            },
            State::Embedded { path } => {
                let path = path.clone();
                let open = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await;
                let open = open.map_err(|error| Fault::stop("open state store", "state", error))?;
                Self::both(open?)
            }
            #[cfg(feature = "redis")]
            State::Redis(config) => Self::both(config.open().await?),
            #[cfg(feature = "azure")]
            State::Blob(config) => {
                Self { checkpoints: Arc::new(config.open(&plan.clouds).await?), keys: None }
            }
        })
    }

    fn both(store: impl StateStore + DedupStore + 'static) -> Self {
        let store = Arc::new(store);
        Self { checkpoints: store.clone(), keys: Some(store) }
    }
}
