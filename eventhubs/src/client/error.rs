//! What can go wrong, as kinds to branch on; the words are for people.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use fe2o3_amqp::{
    connection::{ConnectionStopReason, OpenError},
    link::{
        DetachError, LinkStateError, ReceiverAttachError, RecvError, SendError, SenderAttachError,
        SessionStopReason,
    },
    session::BeginError,
};
use fe2o3_amqp_management::error::{AttachError as NodeAttachError, Error as NodeError};
use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition},
    primitives::Symbol,
};

use crate::condition;

/// How long to leave a throttling namespace alone before the next try. The service says to wait
/// "a few seconds"; quotas are counted per second.
/// <https://learn.microsoft.com/azure/event-hubs/event-hubs-messaging-exceptions>
const SERVER_BUSY_WAIT: Duration = Duration::from_secs(4);

/// What went wrong, in the terms that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection could not be made, or ended.
    ConnectionLost,
    /// The link ended: idle, moved to another node, or for no given reason.
    Detached,
    /// No answer in time, and nothing was done: safe to try again.
    Timeout,
    /// The events had gone out when the deadline passed or the link ended: they may or may not be
    /// stored. Sending them again may duplicate, not sending them may lose.
    Ambiguous,
    /// The namespace is throttling.
    ServerBusy,
    /// No token could be had from the credential.
    Credential,
    /// The service refuses the token, or the token does not allow this.
    Unauthorized,
    /// No such namespace entity, consumer group or partition.
    NotFound,
    /// The hub is switched off.
    Disabled,
    /// Another receiver with an equal or higher epoch has taken the partition over.
    Stolen,
    /// The position is not in this hub: most likely the hub was deleted and made again.
    PositionInvalid,
    /// A quota is used up, such as five receivers per partition and consumer group.
    QuotaExceeded,
    /// An event, or a batch, is larger than the link allows.
    TooLarge,
    /// The service refused the events for a reason of its own, given in the text.
    Rejected,
    /// The service gave the events back unprocessed: they are not stored.
    Released,
    /// The service gave the events back: they are not stored.
    Modified,
    /// A setting or an argument cannot work.
    Invalid,
    /// The peer does not speak the protocol as it should.
    Protocol,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionLost => "connection lost",
            Self::Detached => "link detached",
            Self::Timeout => "no answer in time",
            Self::Ambiguous => "outcome unknown, the events may or may not be stored",
            Self::ServerBusy => "the namespace is throttling",
            Self::Credential => "no token from the credential",
            Self::Unauthorized => "not authorized",
            Self::NotFound => "not found",
            Self::Disabled => "the hub is disabled",
            Self::Stolen => "the partition was taken over by another receiver",
            Self::PositionInvalid => "the position is not in this hub",
            Self::QuotaExceeded => "quota exceeded",
            Self::TooLarge => "too large",
            Self::Rejected => "rejected",
            Self::Released => "released",
            Self::Modified => "modified",
            Self::Invalid => "invalid",
            Self::Protocol => "protocol error",
        })
    }
}

/// An error of the client. Cheap to clone; never holds a payload or a secret.
#[derive(Debug, Clone)]
pub struct Error {
    operation: &'static str,
    kind: ErrorKind,
    detail: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.operation, self.kind)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl ErrorKind {
    /// What the service means by a condition and its text; none where they do not say.
    pub fn of_condition(condition: &str, text: &str) -> Option<Self> {
        Some(match condition {
            condition::SERVER_BUSY => Self::ServerBusy,
            condition::TIMEOUT | condition::INTERNAL_ERROR => Self::Detached,
            condition::ENTITY_DISABLED => Self::Disabled,
            condition::LINK_STOLEN => Self::Stolen,
            condition::LINK_MESSAGE_SIZE_EXCEEDED => Self::TooLarge,
            condition::NOT_FOUND | condition::ARGUMENT_OUT_OF_RANGE => Self::NotFound,
            condition::UNAUTHORIZED_ACCESS | condition::NOT_ALLOWED => Self::Unauthorized,
            condition::RESOURCE_LIMIT_EXCEEDED => Self::QuotaExceeded,
            // The words of `condition::unknown_offset`; the service has no symbol of its own for it.
            condition::ARGUMENT_ERROR if text.contains("is invalid. The last ") => {
                Self::PositionInvalid
            }
            condition::ARGUMENT_ERROR => Self::Invalid,
            _ => return None,
        })
    }

    /// What the status of an answer means that is not a success.
    pub fn of_status(code: u16) -> Self {
        match code {
            401 | 403 => Self::Unauthorized,
            404 => Self::NotFound,
            408 => Self::Timeout,
            410 => Self::Disabled,
            429 | 503 => Self::ServerBusy,
            500..=599 => Self::Detached,
            _ => Self::Invalid,
        }
    }
}

impl Error {
    /// An error of this kind. For who speaks to the service by other means, and wants it judged
    /// alike: `detail` may hold neither a payload nor a secret.
    pub fn new(
        operation: &'static str,
        kind: ErrorKind,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { operation, kind, detail: detail.into(), source: None }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same refusal, of a transfer: a wrong argument of it is what was sent.
    #[must_use]
    pub fn of_transfer(mut self) -> Self {
        if self.kind == ErrorKind::Invalid {
            self.kind = ErrorKind::Rejected;
        }
        self
    }

    /// The same failure, of events that had gone out already.
    #[must_use]
    pub fn after_transfer(mut self) -> Self {
        self.detail = format!("{}: {}", self.kind, self.detail).into();
        self.kind = ErrorKind::Ambiguous;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may well succeed later without anybody doing anything. An
    /// [`Ambiguous`](ErrorKind::Ambiguous) send is transient too, at the price of a duplicate.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::ConnectionLost
                | ErrorKind::Detached
                | ErrorKind::Timeout
                | ErrorKind::Ambiguous
                | ErrorKind::ServerBusy
                | ErrorKind::Credential
                | ErrorKind::Released
                | ErrorKind::Modified
        )
    }

    /// How long the service wants to be left alone, where it does.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.kind == ErrorKind::ServerBusy).then_some(SERVER_BUSY_WAIT)
    }

    /// What the service said, as far as it decides the kind.
    pub(crate) fn from_service(
        operation: &'static str,
        fallback: ErrorKind,
        error: &definitions::Error,
    ) -> Self {
        let condition = symbol(&error.condition);
        let text = error.description.as_deref().unwrap_or_default();
        let kind = ErrorKind::of_condition(condition.as_str(), text).unwrap_or(fallback);
        Self::new(operation, kind, format!("{} {text}", condition.as_str()))
    }

    /// What the service said of a transfer that it has not accepted.
    pub(crate) fn from_rejection(error: &definitions::Error) -> Self {
        Self::from_service("send", ErrorKind::Rejected, error).of_transfer()
    }

    pub(crate) fn from_open(error: OpenError) -> Self {
        const OPERATION: &str = "connect";
        match error {
            OpenError::RemoteClosedWithError(error) => {
                Self::from_service(OPERATION, ErrorKind::ConnectionLost, &error)
            }
            OpenError::InvalidDomain => {
                Self::new(OPERATION, ErrorKind::Invalid, "no host name that TLS could verify")
            }
            other => Self::new(OPERATION, ErrorKind::ConnectionLost, "").with_source(other),
        }
    }

    pub(crate) fn from_begin(error: BeginError) -> Self {
        match error {
            BeginError::RemoteEndedWithError(error) => {
                Self::from_service("begin session", ErrorKind::ConnectionLost, &error)
            }
            BeginError::ConnectionStopped(reason) => {
                Self::from_connection_stop("begin session", &reason)
            }
            other => Self::new("begin session", ErrorKind::ConnectionLost, "").with_source(other),
        }
    }

    fn from_connection_stop(operation: &'static str, reason: &ConnectionStopReason) -> Self {
        match reason {
            ConnectionStopReason::ClosedWithError(error)
            | ConnectionStopReason::RemoteClosedWithError(error) => {
                let mut lost = Self::from_service(operation, ErrorKind::ConnectionLost, error);
                lost.kind = ErrorKind::ConnectionLost;
                lost
            }
            ConnectionStopReason::Closed | ConnectionStopReason::RemoteClosed => {
                Self::new(operation, ErrorKind::ConnectionLost, "")
            }
        }
    }

    fn from_session_stop(operation: &'static str, reason: &SessionStopReason) -> Self {
        match reason {
            SessionStopReason::ConnectionStopped(reason) => {
                Self::from_connection_stop(operation, reason)
            }
            SessionStopReason::EndedWithError(error)
            | SessionStopReason::RemoteEndedWithError(error) => {
                Self::from_service(operation, ErrorKind::Detached, error)
            }
            SessionStopReason::Ended | SessionStopReason::RemoteEnded => {
                Self::new(operation, ErrorKind::Detached, "session ended")
            }
        }
    }

    pub(crate) fn from_link_state(operation: &'static str, error: &LinkStateError) -> Self {
        match error {
            LinkStateError::SessionStopped(reason) => Self::from_session_stop(operation, reason),
            LinkStateError::RemoteDetachedWithError(error)
            | LinkStateError::RemoteClosedWithError(error) => {
                Self::from_service(operation, ErrorKind::Detached, error)
            }
            other => Self::new(operation, ErrorKind::Detached, other.to_string()),
        }
    }

    pub(crate) fn from_detach(operation: &'static str, error: DetachError) -> Self {
        Self::from_link_state(operation, &LinkStateError::from(error))
    }

    pub(crate) fn from_recv(error: RecvError) -> Self {
        const OPERATION: &str = "receive";
        match error {
            RecvError::LinkStateError(error) => Self::from_link_state(OPERATION, &error),
            other => Self::new(OPERATION, ErrorKind::Protocol, "").with_source(other),
        }
    }

    pub(crate) fn from_send(operation: &'static str, error: SendError) -> Self {
        match error {
            SendError::LinkStateError(error) => Self::from_link_state(operation, &error),
            SendError::Detached(error) => Self::from_detach(operation, error),
            SendError::MessageSizeExceeded(exceeded) => {
                Self::new(operation, ErrorKind::TooLarge, exceeded.to_string())
            }
            other => Self::new(operation, ErrorKind::Protocol, "").with_source(other),
        }
    }

    pub(crate) fn from_receiver_attach(error: ReceiverAttachError) -> Self {
        const OPERATION: &str = "attach receiver";
        match error {
            ReceiverAttachError::RemoteClosedWithError(error) => {
                Self::from_service(OPERATION, ErrorKind::Detached, &error)
            }
            ReceiverAttachError::SessionStopped(reason) => {
                Self::from_session_stop(OPERATION, &reason)
            }
            other => Self::new(OPERATION, ErrorKind::Detached, "").with_source(other),
        }
    }

    pub(crate) fn from_sender_attach(error: SenderAttachError) -> Self {
        const OPERATION: &str = "attach sender";
        match error {
            SenderAttachError::RemoteClosedWithError(error) => {
                Self::from_service(OPERATION, ErrorKind::Detached, &error)
            }
            SenderAttachError::SessionStopped(reason) => {
                Self::from_session_stop(OPERATION, &reason)
            }
            other => Self::new(OPERATION, ErrorKind::Detached, "").with_source(other),
        }
    }

    pub(crate) fn from_node_attach(error: NodeAttachError) -> Self {
        match error {
            NodeAttachError::Sender(error) => Self::from_sender_attach(error),
            NodeAttachError::Receiver(error) => Self::from_receiver_attach(error),
        }
    }

    /// An error of a request to `$cbs` or `$management`.
    pub(crate) fn from_node(operation: &'static str, error: NodeError) -> Self {
        match error {
            NodeError::Status(status) => {
                let code = status.code.0.get();
                let text = status.description.unwrap_or_default();
                Self::new(operation, ErrorKind::of_status(code), format!("status {code} {text}"))
            }
            NodeError::Send(error) => Self::from_send(operation, error),
            NodeError::Recv(error) => Self { operation, ..Self::from_recv(error) },
            other => Self::new(operation, ErrorKind::Protocol, "").with_source(other),
        }
    }
}

fn symbol(condition: &ErrorCondition) -> Symbol {
    match condition {
        ErrorCondition::AmqpError(error) => error.into(),
        ErrorCondition::ConnectionError(error) => error.into(),
        ErrorCondition::SessionError(error) => error.into(),
        ErrorCondition::LinkError(error) => error.into(),
        ErrorCondition::Custom(symbol) => symbol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_says_decides_the_kind() {
        for (symbol, text, kind) in [
            ("amqp:link:stolen", "", ErrorKind::Stolen),
            ("com.microsoft:server-busy", "50002", ErrorKind::ServerBusy),
            ("amqp:not-found", "", ErrorKind::NotFound),
        ] {
            assert_eq!(ErrorKind::of_condition(symbol, text), Some(kind));
        }
        let unknown = condition::unknown_offset("42", "7");
        assert_eq!(
            ErrorKind::of_condition(condition::ARGUMENT_ERROR, &unknown),
            Some(ErrorKind::PositionInvalid)
        );
        assert_eq!(
            ErrorKind::of_condition(condition::ARGUMENT_ERROR, "epoch"),
            Some(ErrorKind::Invalid)
        );
    }

    #[test]
    fn a_failure_after_the_transfer_is_ambiguous_and_keeps_its_reason() {
        let error = Error::new("send", ErrorKind::ConnectionLost, "reset").after_transfer();
        assert_eq!(error.kind(), ErrorKind::Ambiguous);
        assert!(error.is_transient());
        assert!(error.to_string().ends_with("connection lost: reset"));
    }
}
