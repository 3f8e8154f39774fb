//! What an error of the SDK means, in the terms of our client.

use std::error::Error as StdError;

use azure_core::error::ErrorKind as CoreKind;
use azure_core_amqp::{AmqpDescribedError, AmqpError, error::AmqpErrorKind};
use eventhubs::client::{Error, ErrorKind};
use sdk_amqp::link::{LinkStateError, RecvError};

/// The error as one of our client's. The SDK wraps errors in errors: the innermost that says
/// something decides.
pub(super) fn meaning(op: &'static str, error: &(dyn StdError + 'static)) -> Error {
    let (mut kind, mut text) = (None, error.to_string());
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error
            .downcast_ref::<AmqpError>()
            .and_then(of_amqp)
            .or_else(|| error.downcast_ref::<azure_core::Error>().and_then(of_core))
            .or_else(|| error.downcast_ref::<RecvError>().and_then(of_engine));
        kind = said.or(kind);
        next = error.source();
        if let Some(cause) = next.map(ToString::to_string)
            && !text.contains(&cause)
        {
            text = format!("{text}: {cause}");
        }
    }
    // Whatever else it is, a new connection is the one remedy that we have.
    Error::new(op, kind.unwrap_or(ErrorKind::Detached), text)
}

fn of_amqp(error: &AmqpError) -> Option<ErrorKind> {
    Some(match error.kind() {
        AmqpErrorKind::AmqpDescribedError(said) => of_service(said),
        AmqpErrorKind::ManagementStatusCode(code, _) => ErrorKind::of_status(u16::from(*code)),
        AmqpErrorKind::SendRejected => ErrorKind::Rejected,
        AmqpErrorKind::ConnectionClosedByRemote(_)
        | AmqpErrorKind::ConnectionDetachedByRemote(_)
        | AmqpErrorKind::ConnectionDropped(_)
        | AmqpErrorKind::FramingError(_)
        | AmqpErrorKind::IdleTimeoutElapsed(_) => ErrorKind::ConnectionLost,
        _ => return None,
    })
}

/// What the service said in the protocol.
fn of_service(said: &AmqpDescribedError) -> ErrorKind {
    let condition: &str = said.condition.as_ref();
    let text = said.description.as_deref().unwrap_or_default();
    let transport = ["amqp:connection:", "amqp:session:", "amqp:link:"];
    let is_of_transport = transport.iter().any(|prefix| condition.starts_with(prefix));
    let unknown = if is_of_transport { ErrorKind::Detached } else { ErrorKind::Rejected };
    ErrorKind::of_condition(condition, text).unwrap_or(unknown)
}

/// Why a receiver was detached, such as for a thief: released versions of the SDK leave that inside
/// an error of their engine (<https://github.com/Azure/azure-sdk-for-rust/pull/4815>).
fn of_engine(error: &RecvError) -> Option<ErrorKind> {
    match error {
        RecvError::LinkStateError(
            LinkStateError::RemoteDetachedWithError(said)
            | LinkStateError::RemoteClosedWithError(said),
        ) => Some(of_service(&said.clone().into())),
        _ => None,
    }
}

fn of_core(error: &azure_core::Error) -> Option<ErrorKind> {
    match error.kind() {
        CoreKind::Credential => Some(ErrorKind::Credential),
        CoreKind::Io => Some(ErrorKind::ConnectionLost),
        _ => None,
    }
}
