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
    /// Delivered keys; none if no route asks for them.
    pub(crate) keys: Option<Arc<dyn DedupStore>>,
}

impl Stores {
    /// Opens them.
    ///
    /// # Errors
    /// The store cannot be reached, or used by this process.
    pub(crate) async fn open(plan: &Plan) -> Result<Self, Fault> {
        let checkpoints: Arc<dyn StateStore>;
        let keys: Option<Arc<dyn DedupStore>>;
        match &plan.state {
            State::Memory => {
                checkpoints = Arc::new(MemoryStore::default());
                keys = Some(Arc::new(MemoryKeys::default()));
            }
            State::Embedded { path } => {
                let path = path.clone();
                let open = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await;
                let open = open.map_err(|error| Fault::stop("open state store", "state", error))?;
                let store = Arc::new(open?);
                (checkpoints, keys) = (store.clone(), Some(store));
            }
            #[cfg(feature = "azure")]
            State::Blob(config) => {
                (checkpoints, keys) = (Arc::new(config.open(&plan.clouds).await?), None);
            }
        }
        let wanted = plan.routes.iter().any(|route| route.dedup.is_some());
        Ok(Self { checkpoints, keys: keys.filter(|_| wanted) })
    }
}
