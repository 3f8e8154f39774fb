//! What went wrong at a service, classified once by the connector that saw it.

use std::time::Duration;

#[cfg(feature = "failpoints")]
pub mod point;

/// Any error that a connector wraps.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the rest of the daemon may do about a [`Fault`]. Nobody reads error text to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This event or call failed in a way that may pass; it counts as one of its attempts.
    Retry {
        /// The server's own hint.
        after: Option<Duration>,
    },
    /// The service as a whole is throttled, unreachable or slow; that says nothing against the
    /// event. Retried for as long as its lease can be held, and never counted as an attempt.
    Busy {
        /// The server's own hint.
        after: Option<Duration>,
    },
    /// The service will never take this event: dead letter at once.
    Reject,
    /// The connector cannot work until somebody mends it (credentials, a missing queue): not
    /// ready, retried slowly, and never held against an event.
    Stop,
    /// An event before it in its key was refused in the same request, so that this one was not sent.
    /// It goes after that one; nothing is said against it, or of the service.
    Behind,
}

/// A failed operation of a connector.
///
/// The text names the operation and its cause; never a payload, a secret or a connection string.
#[derive(Debug, thiserror::Error)]
#[error("{op} failed: {}", chain(.cause.as_ref()))]
pub struct Fault {
    /// What may be done about it.
    pub verdict: Verdict,
    /// The operation in the service's own words, such as `SendMessageBatch`.
    pub op: &'static str,
    /// A short stable name for metrics and dead letters, such as `throttled` or `too_large`.
    pub class: &'static str,
    /// Why.
    #[source]
    pub cause: BoxError,
}

impl Fault {
    /// A fault from its parts.
    pub fn new(
        verdict: Verdict,
        op: &'static str,
        class: &'static str,
        cause: impl Into<BoxError>,
    ) -> Self {
        Self { verdict, op, class, cause: cause.into() }
    }

    /// This event will never be taken.
    pub fn reject(op: &'static str, class: &'static str, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Reject, op, class, cause)
    }

    /// The service is unwell; no event is to blame.
    pub fn busy(op: &'static str, class: &'static str, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Busy { after: None }, op, class, cause)
    }

    /// This event failed and may pass next time.
    pub fn retry(op: &'static str, class: &'static str, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Retry { after: None }, op, class, cause)
    }

    /// It waits for one before it in its key.
    #[must_use]
    pub fn behind(op: &'static str) -> Self {
        Self::new(Verdict::Behind, op, "behind_refused", "one before it in its key was refused")
    }

    /// The connector needs somebody's hand.
    pub fn stop(op: &'static str, class: &'static str, cause: impl Into<BoxError>) -> Self {
        Self::new(Verdict::Stop, op, class, cause)
    }

    /// The same fault once more: a request that fails as a whole fails for each of its events.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.verdict, self.op, self.class, chain(self.cause.as_ref()))
    }
}

/// The cause and its causes in one line; SDKs hide the telling part at the end of the chain.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
