//! Where a namespace is, and connection strings that say so.

use std::{fmt, str::FromStr};

use super::{
    auth::{Auth, SharedAccessKey},
    error::{Error, ErrorKind},
};

/// Port of AMQP inside TLS.
const PORT_AMQPS: u16 = 5671;
/// Port of plain AMQP, which only emulators offer.
const PORT_AMQP: u16 = 5672;

/// The address of a namespace.
///
/// ```
/// use eventhubs::client::Endpoint;
///
/// let cloud = Endpoint::namespace("demo.servicebus.windows.net");
/// let local: Endpoint = "amqp://127.0.0.1:5672".parse()?;
/// assert!(cloud.is_tls() && !local.is_tls());
/// # Ok::<(), eventhubs::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    tls: bool,
}

impl Endpoint {
    /// A namespace by its fully qualified name, such as `demo.servicebus.windows.net`: TLS, port
    /// 5671.
    pub fn namespace(fully_qualified_name: impl Into<String>) -> Self {
        Self { host: fully_qualified_name.into(), port: PORT_AMQPS, tls: true }
    }

    /// Whether the connection is inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "amqps" } else { "amqp" }
    }

    /// The audience of a token for `hub`, which covers all of the hub's nodes. The scheme is
    /// `amqps` whatever the connection is: the service compares host and path.
    pub(crate) fn audience(&self, hub: &str) -> String {
        format!("amqps://{}/{hub}", self.host)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads `amqps://HOST[:PORT]` or `amqp://HOST[:PORT]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why: &'static str| Error::new("parse endpoint", ErrorKind::Invalid, why);
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("expected amqp://HOST:PORT or amqps://HOST:PORT"))?;
        let (tls, default_port) = match scheme {
            "amqps" => (true, PORT_AMQPS),
            "amqp" => (false, PORT_AMQP),
            _ => return Err(invalid("the scheme must be amqp or amqps")),
        };
        let (host, port) = host_and_port(rest, default_port).ok_or_else(|| invalid("no host"))?;
        Ok(Self { host, port, tls })
    }
}

fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let authority = text.trim_end_matches('/');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default_port),
    };
    let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
    plain.then(|| (host.to_owned(), port))
}

/// A connection string, as the portal and the emulators give it out.
///
/// ```text
/// Endpoint=sb://NAMESPACE/;SharedAccessKeyName=NAME;SharedAccessKey=KEY[;EntityPath=HUB]
/// Endpoint=sb://NAMESPACE/;SharedAccessSignature=SharedAccessSignature sr=…[;EntityPath=HUB]
/// Endpoint=sb://HOST[:PORT];…;UseDevelopmentEmulator=true
/// ```
///
/// With `UseDevelopmentEmulator=true` the connection is plain AMQP (port 5672 unless given).
/// `Debug` shows neither key nor signature.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// Where the namespace is.
    pub endpoint: Endpoint,
    /// The shared access key or signature.
    pub auth: Auth,
    /// `EntityPath`, when the string is of one hub.
    pub hub: Option<String>,
}

impl FromStr for ConnectionString {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::Invalid`]; the message names the part, never its value.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            |why: &'static str| Error::new("parse connection string", ErrorKind::Invalid, why);
        let (mut address, mut key_name, mut key) = (None, None, None);
        let (mut signature, mut hub, mut emulator) = (None, None, false);
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            // Only the first `=`: keys are base64 and end in some.
            let (name, value) =
                part.split_once('=').ok_or_else(|| invalid("a part is not NAME=VALUE"))?;
            match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => address = Some(value),
                "sharedaccesskeyname" => key_name = Some(value),
                "sharedaccesskey" => key = Some(value),
                "sharedaccesssignature" => signature = Some(value),
                "entitypath" => hub = Some(value.to_owned()),
                "usedevelopmentemulator" => emulator = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        let address = address.ok_or_else(|| invalid("no Endpoint"))?;
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        let default_port = if emulator { PORT_AMQP } else { PORT_AMQPS };
        let (host, port) = host_and_port(address, default_port)
            .ok_or_else(|| invalid("Endpoint is not sb://HOST/"))?;
        let auth = match (key_name, key, signature) {
            (Some(name), Some(key), None) => {
                Auth::SharedAccessKey(SharedAccessKey::new(name, key.to_owned()))
            }
            (None, None, Some(signature)) => {
                Auth::SharedAccessSignature(signature.to_owned().into())
            }
            _ => {
                return Err(invalid(
                    "expected SharedAccessKeyName and SharedAccessKey, or SharedAccessSignature",
                ));
            }
        };
        Ok(Self { endpoint: Endpoint { host, port, tls: !emulator }, auth, hub })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_of_the_portal_is_read() {
        let string: ConnectionString = "Endpoint=sb://demo.servicebus.windows.net/;\
             SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=c2VjcmV0==;\
             EntityPath=orders"
            .parse()
            .unwrap();
        assert_eq!(string.endpoint.to_string(), "amqps://demo.servicebus.windows.net:5671");
        assert_eq!(string.hub.as_deref(), Some("orders"));
        let Auth::SharedAccessKey(key) = &string.auth else { panic!("a key") };
        assert_eq!(key.name(), "RootManageSharedAccessKey");
        assert_eq!(key.secret(), "c2VjcmV0==");
    }

    #[test]
    fn the_development_emulator_means_plain_amqp_on_the_given_port() {
        let string: ConnectionString = "Endpoint=sb://127.0.0.1:61000;SharedAccessKeyName=x;\
             SharedAccessKey=y;UseDevelopmentEmulator=true;"
            .parse()
            .unwrap();
        assert_eq!(string.endpoint.to_string(), "amqp://127.0.0.1:61000");
        assert_eq!(string.hub, None);
    }

    #[test]
    fn no_secret_is_shown_when_printed() {
        for text in [
            "Endpoint=sb://h/;SharedAccessKeyName=n;SharedAccessKey=TOPSECRET",
            "Endpoint=sb://h/;SharedAccessSignature=SharedAccessSignature sr=x&sig=TOPSECRET",
        ] {
            let string: ConnectionString = text.parse().unwrap();
            assert!(!format!("{string:?}").contains("TOPSECRET"));
        }
        let error = "Endpoint=sb://h/;SharedAccessKey=TOPSECRET".parse::<ConnectionString>();
        assert!(!error.unwrap_err().to_string().contains("TOPSECRET"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for text in [
            "",
            "nonsense",
            "Endpoint=sb://h/",
            "SharedAccessKeyName=n;SharedAccessKey=k",
            "Endpoint=sb:///;SharedAccessKeyName=n;SharedAccessKey=k",
            "Endpoint=sb://h:port/;SharedAccessKeyName=n;SharedAccessKey=k",
        ] {
            assert!(text.parse::<ConnectionString>().is_err(), "{text}");
        }
        for text in ["h", "http://h", "amqp://", "amqp://h:70000", "amqp://u@h"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
