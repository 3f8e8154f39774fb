//! Parts of an event, as the steps of a route make them: what tells one from the others.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::event::Event;

/// Which part of an event something is. Never its id: steps may give all parts the same.
#[derive(Debug, Clone)]
pub enum Part {
    /// One of those that steps have just made.
    Made {
        /// The event that came.
        whole: Arc<Event>,
        /// What its route's expression tells it by, if not by its source and id.
        name: Option<Arc<str>>,
        /// Which item it is of each list that was split, the outermost first.
        at: Vec<usize>,
    },
    /// One that was parked, by its [`digest`](Self::digest).
    Parked(Arc<str>),
}

impl Part {
    /// What tells it from all others of its route, whenever they are made: a dead letter has it, so
    /// that the part can be told when it comes back. A digest, but of a name that may be guessed: it
    /// is for those who may see the event.
    #[must_use]
    pub fn digest(&self) -> Arc<str> {
        let (whole, name, at) = match self {
            Self::Parked(digest) => return digest.clone(),
            Self::Made { whole, name, at } => (whole, name, at),
        };
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        match name {
            Some(name) => add(name),
            None => [&whole.source, &whole.id].into_iter().for_each(|text| add(text)),
        }
        at.iter().for_each(|item| add(&item.to_string()));
        let digest = digest.finalize();
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }
}
