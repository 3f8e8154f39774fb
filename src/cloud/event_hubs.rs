//! What the Event Hubs source and sink share: how to reach a hub, what its errors mean, and how
//! attributes are written in AMQP.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "eventhubs-sdk")]
use azure_core::credentials::TokenCredential;
use bytes::Bytes;
use eventhubs::client::{
    Auth, Client, ConnectionString, Endpoint, Error, ErrorKind, MessageId, Options,
    SharedAccessKey, SimpleValue, Symbol, Timestamp, Uuid,
};

#[cfg(feature = "eventhubs-sdk")]
mod sdk;
pub mod transport;

use transport::{Hub, Transport};

use super::{Context, azure};
use crate::{
    config::secret::Secret,
    event::Value,
    fault::{Fault, Verdict},
};

/// What namespaces of the public cloud are called in full.
const PUBLIC_DOMAIN: &str = "servicebus.windows.net";

/// The attribute in which an AMQP `correlation-id` travels: events have no field for it.
pub const CORRELATION_ID: &str = "amqp.correlation-id";

/// How a connector's configuration says where its hub is.
pub struct Access<'a> {
    /// Name of the namespace, short or full.
    pub namespace: Option<&'a str>,
    /// Connection string of the namespace or the hub.
    pub connection_string: Option<&'a Secret>,
    /// `amqp://HOST:PORT` of an emulator, or `amqps://HOST:PORT` of a private end point.
    pub endpoint: Option<&'a str>,
    /// The hub.
    pub hub: &'a str,
    /// The connector's own settings for Azure.
    pub azure: &'a azure::Config,
    /// Which client speaks to it.
    pub client: Transport,
}

impl Access<'_> {
    /// What is wrong with it, field by field.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (self.namespace, self.connection_string) {
            (None, None) => problems.push((
                "namespace",
                "say where the hub is: `namespace: NAME` or `connection_string: ${NAME}`".into(),
            )),
            (Some(_), Some(_)) => problems.push((
                "connection_string",
                "give either `namespace` or `connection_string`, not both".into(),
            )),
            _ => {}
        }
        if self.endpoint.is_some_and(|endpoint| endpoint.parse::<Endpoint>().is_err()) {
            let text = "is no endpoint of Event Hubs; write `amqps://HOST:PORT`, or \
                        `amqp://HOST:PORT` for an emulator";
            problems.push(("endpoint", text.to_owned()));
        }
        if let Some(text) = self.client.problem(cfg!(feature = "eventhubs-sdk")) {
            problems.push(("client", text));
        } else if self.client == Transport::Sdk && self.connection_string.is_some() {
            let text = "the official SDK signs in to Microsoft Entra only: give `namespace` \
                        instead, or take `client: sdk` out";
            problems.push(("connection_string", text.to_owned()));
        }
        if self.hub.is_empty() {
            problems.push(("hub", "name the hub".into()));
        }
        problems
    }

    /// The namespace's full name, which does not change with the end point.
    #[must_use]
    pub fn namespace(&self, hub: &dyn Hub) -> String {
        self.namespace.map_or_else(|| hub.host().to_owned(), fully_qualified)
    }

    /// The hub, not yet connected. The AMQP container is named after the connector.
    ///
    /// # Errors
    /// A secret that cannot be read, or settings that cannot work.
    pub fn hub(&self, context: &Context) -> Result<Arc<dyn Hub>, Fault> {
        let id = format!("eventferry-{}-{}", context.name, uuid::Uuid::new_v4().simple());
        match self.client {
            Transport::Own => Ok(Arc::new(self.own(context, id)?)),
            #[cfg(feature = "eventhubs-sdk")]
            Transport::Sdk => Ok(Arc::new(self.sdk(context, id)?)),
            #[cfg(not(feature = "eventhubs-sdk"))]
            Transport::Sdk => {
                let cause = self.client.problem(false).unwrap_or_default();
                Err(Fault::stop("connect", "config", cause))
            }
        }
    }

    fn own(&self, context: &Context, id: String) -> Result<eventhubs::client::Hub, Fault> {
        let stop = |cause: String| Fault::stop("connect", "config", cause);
        let (endpoint, auth) = match (self.namespace, self.connection_string) {
            (Some(name), _) => {
                let endpoint = Endpoint::namespace(fully_qualified(name));
                (endpoint, None)
            }
            (None, Some(secret)) => {
                let text = secret.read().map_err(|e| Fault::stop("connect", "config", e))?;
                let parsed: ConnectionString = text.parse().map_err(|e| fault("connect", e))?;
                (parsed.endpoint, Some(parsed.auth))
            }
            (None, None) => return Err(stop("neither namespace nor connection string".into())),
        };
        let endpoint = match self.endpoint {
            Some(text) => text.parse().map_err(|error| fault("connect", error))?,
            None => endpoint,
        };
        let auth = match auth {
            Some(auth) => auth,
            // Plain AMQP is spoken by emulators only, and a real token must not go out in clear.
            None if !endpoint.is_tls() => {
                Auth::SharedAccessKey(SharedAccessKey::new("emulator", "emulator"))
            }
            None => Auth::Credential(self.azure.or(&context.clouds.azure).token_credential()?),
        };
        Ok(Client::new(endpoint, auth, Options { id, ..Options::default() }).hub(self.hub))
    }

    #[cfg(feature = "eventhubs-sdk")]
    fn sdk(&self, context: &Context, id: String) -> Result<sdk::SdkHub, Fault> {
        let Some(namespace) = self.namespace.map(fully_qualified) else {
            return Err(Fault::stop("connect", "config", "the SDK needs a namespace"));
        };
        // Plain AMQP is spoken by emulators only, and a real token must not go out in clear.
        let is_plain = self.endpoint.is_some_and(|endpoint| endpoint.starts_with("amqp:"));
        let credential: Arc<dyn TokenCredential> = match is_plain {
            true => Arc::new(sdk::NoToken),
            false => self.azure.or(&context.clouds.azure).token_credential()?,
        };
        let endpoint = self.endpoint.map(str::to_owned);
        Ok(sdk::SdkHub::new(sdk::Place {
            namespace,
            endpoint,
            hub: self.hub.to_owned(),
            id,
            credential,
        }))
    }
}

/// The full name of a namespace that may be given short.
fn fully_qualified(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.{PUBLIC_DOMAIN}") }
}

/// What an error of the client means to the daemon.
#[must_use]
pub fn fault(op: &'static str, error: Error) -> Fault {
    let busy = |after: Option<Duration>| Verdict::Busy { after };
    let (verdict, class) = match error.kind() {
        ErrorKind::ServerBusy => (busy(error.retry_after()), "throttled"),
        ErrorKind::ConnectionLost => (busy(None), "connection_lost"),
        ErrorKind::Detached => (busy(None), "link_detached"),
        ErrorKind::Timeout => (busy(None), "timeout"),
        ErrorKind::Ambiguous => (busy(None), "ambiguous"),
        ErrorKind::Credential => (busy(None), "credential"),
        ErrorKind::QuotaExceeded => (busy(None), "quota_exceeded"),
        // Given back unprocessed: nobody has looked at them.
        ErrorKind::Released => (busy(None), "released"),
        ErrorKind::Modified => (Verdict::Retry { after: None }, "modified"),
        // May be a passing whim of the service; the culprit runs out of its attempts.
        ErrorKind::Rejected => (Verdict::Retry { after: None }, "rejected"),
        ErrorKind::TooLarge => (Verdict::Reject, "too_large"),
        ErrorKind::Unauthorized => (Verdict::Stop, "unauthorized"),
        ErrorKind::NotFound => (Verdict::Stop, "not_found"),
        ErrorKind::Disabled => (Verdict::Stop, "disabled"),
        ErrorKind::Stolen => (Verdict::Stop, "partition_stolen"),
        ErrorKind::PositionInvalid => (Verdict::Stop, "hub_recreated"),
        ErrorKind::Invalid => (Verdict::Stop, "invalid"),
        _ => (Verdict::Stop, "protocol"),
    };
    Fault::new(verdict, op, class, error)
}

/// An application property as an attribute. AMQP knows more integer types than we tell apart:
/// they widen, and keep their value.
#[must_use]
pub fn attribute(value: SimpleValue) -> Value {
    match value {
        SimpleValue::Null => Value::Null,
        SimpleValue::Bool(value) => Value::Bool(value),
        SimpleValue::Ubyte(value) => Value::Int(value.into()),
        SimpleValue::Ushort(value) => Value::Int(value.into()),
        SimpleValue::Uint(value) => Value::Long(value.into()),
        SimpleValue::Ulong(value) => Value::ULong(value),
        SimpleValue::Byte(value) => Value::Int(value.into()),
        SimpleValue::Short(value) => Value::Int(value.into()),
        SimpleValue::Int(value) => Value::Int(value),
        SimpleValue::Long(value) => Value::Long(value),
        SimpleValue::Float(value) => Value::Double(f64::from(value.0)),
        SimpleValue::Double(value) => Value::Double(value.0),
        SimpleValue::Decimal32(value) => binary(value.into_inner().to_vec()),
        SimpleValue::Decimal64(value) => binary(value.into_inner().to_vec()),
        SimpleValue::Decimal128(value) => binary(value.into_inner().to_vec()),
        SimpleValue::Char(value) => Value::string(value.to_string()),
        SimpleValue::Timestamp(value) => Value::Timestamp(value.milliseconds()),
        SimpleValue::Uuid(value) => Value::Uuid(uuid::Uuid::from_bytes(value.into_inner())),
        SimpleValue::Binary(value) => binary(value.into_vec()),
        SimpleValue::String(value) => Value::string(value),
        SimpleValue::Symbol(Symbol(value)) => Value::string(value),
        // No client writes one; AMQP wants simple values here, and this is none of them.
        SimpleValue::Described(_) => Value::Null,
    }
}

fn binary(bytes: Vec<u8>) -> Value {
    Value::Binary(Bytes::from(bytes))
}

/// An attribute as an application property. [`amqp_properties`](crate::metadata::amqp_properties)
/// has seen to it that it is of an AMQP type.
#[must_use]
pub fn property(value: &Value) -> SimpleValue {
    match value {
        Value::Null => SimpleValue::Null,
        Value::String(text) | Value::Number(text) => SimpleValue::String(text.to_string()),
        Value::Binary(bytes) => SimpleValue::Binary(bytes.to_vec().into()),
        Value::Bool(value) => SimpleValue::Bool(*value),
        Value::Int(value) => SimpleValue::Int(*value),
        Value::Long(value) => SimpleValue::Long(*value),
        Value::ULong(value) => SimpleValue::Ulong(*value),
        Value::Double(value) => SimpleValue::Double((*value).into()),
        Value::Timestamp(millis) => SimpleValue::Timestamp(Timestamp::from_milliseconds(*millis)),
        Value::Uuid(value) => SimpleValue::Uuid(Uuid::from(*value.as_bytes())),
        Value::Labelled(_, inner) => property(inner),
    }
}

/// A message id as text: ids are opaque, and other services have only text for them.
#[must_use]
pub fn id_text(id: MessageId) -> Arc<str> {
    match id {
        MessageId::String(text) => text.into(),
        MessageId::Ulong(number) => number.to_string().into(),
        MessageId::Uuid(id) => uuid::Uuid::from_bytes(id.into_inner()).to_string().into(),
        MessageId::Binary(bytes) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes.as_slice()).into()
        }
    }
}
