//! Whether a source may be asked for more.

use tokio::sync::watch;

/// What a receiving task looks at before it asks for more. Open, unless whoever holds the other
/// end says otherwise.
#[derive(Debug, Clone)]
pub struct Gate(watch::Receiver<bool>);

impl Default for Gate {
    /// One that nobody can shut.
    fn default() -> Self {
        Self(watch::channel(false).1)
    }
}

impl Gate {
    /// One that is shut while this says so.
    #[must_use]
    pub fn shut_by(paused: &watch::Sender<bool>) -> Self {
        Self(paused.subscribe())
    }

    /// Whether nothing may be asked for.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open. Cancel-safe.
    pub async fn opened(&self) {
        // One that nobody can open any more is that of a source that ends.
        let _ = self.0.clone().wait_for(|is_shut| !is_shut).await;
    }

    /// Waits until it is shut. Cancel-safe.
    pub async fn shut(&self) {
        if self.0.clone().wait_for(|is_shut| *is_shut).await.is_err() {
            std::future::pending().await
        }
    }
}
