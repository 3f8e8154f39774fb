//! Who we are: Entra tokens, shared access keys and signatures.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use azure_core::credentials::{Secret, TokenCredential};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::error::{Error, ErrorKind};
use crate::cbs;

/// The scope of Entra tokens for Event Hubs.
/// <https://learn.microsoft.com/azure/event-hubs/authenticate-application>
const ENTRA_SCOPE: &str = "https://eventhubs.azure.net/.default";

/// How long a signature made from a key is valid. Refreshed in the background well before.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How the client proves who it is. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Microsoft Entra ID, through any credential of `azure_identity` or one of your own.
    Credential(Arc<dyn TokenCredential>),
    /// A shared access key: signatures are made from it as needed.
    SharedAccessKey(SharedAccessKey),
    /// A ready-made signature, starting with `SharedAccessSignature`. Nothing can renew it: when
    /// it ends, so does the access.
    SharedAccessSignature(Secret),
}

/// A named shared access key.
#[derive(Clone)]
pub struct SharedAccessKey {
    name: String,
    key: Secret,
}

impl fmt::Debug for SharedAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAccessKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SharedAccessKey {
    /// The key of the policy `name`, as the portal shows it (base64, used as text).
    pub fn new(name: impl Into<String>, key: impl Into<Secret>) -> Self {
        Self { name: name.into(), key: key.into() }
    }

    /// The name of the policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[cfg(test)]
    pub(crate) fn secret(&self) -> &str {
        self.key.secret()
    }

    /// A signature for `audience` that ends at `expiry`, in seconds since 1970.
    /// <https://learn.microsoft.com/rest/api/eventhub/generate-sas-token>
    fn sign(&self, audience: &str, expiry: u64) -> String {
        let resource = percent_encode(audience);
        // HMAC takes keys of any length.
        #[expect(clippy::expect_used, reason = "HMAC accepts a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.secret().as_bytes())
            .expect("a key of any length");
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = percent_encode(&BASE64.encode(mac.finalize().into_bytes()));
        let name = percent_encode(&self.name);
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}")
    }
}

/// A token to put to `$cbs`.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    pub(crate) kind: &'static str,
    /// `None` where we cannot tell.
    pub(crate) expires: Option<SystemTime>,
}

impl Auth {
    /// A token for `audience`. Does I/O where the credential does; the caller sets the deadline.
    pub(crate) async fn token(&self, audience: &str) -> Result<Token, Error> {
        match self {
            Self::Credential(credential) => {
                let token = credential.get_token(&[ENTRA_SCOPE], None).await.map_err(|e| {
                    Error::new("get token", ErrorKind::Credential, "").with_source(e)
                })?;
                let expires = SystemTime::from(token.expires_on);
                if expires <= SystemTime::now() {
                    let why = "the credential gave a token that has ended";
                    return Err(Error::new("get token", ErrorKind::Credential, why));
                }
                Ok(Token { value: token.token, kind: cbs::TYPE_JWT, expires: Some(expires) })
            }
            Self::SharedAccessKey(key) => {
                let expires = SystemTime::now() + SIGNATURE_LIFETIME;
                let value = key.sign(audience, unix_seconds(expires)).into();
                Ok(Token { value, kind: cbs::TYPE_SAS, expires: Some(expires) })
            }
            Self::SharedAccessSignature(signature) => {
                Ok(Token { value: signature.clone(), kind: cbs::TYPE_SAS, expires: None })
            }
        }
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3 / 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_other_implementations_make() {
        // Computed with Python's hmac, base64 and urllib.parse.quote_plus.
        let key = SharedAccessKey::new("RootManageSharedAccessKey", "c2VjcmV0".to_owned());
        assert_eq!(key.sign("amqps://demo.servicebus.windows.net/orders", 1_700_000_000), EXPECTED);
    }

    const EXPECTED: &str = "SharedAccessSignature sr=amqps%3A%2F%2Fdemo.servicebus.windows.net%2Forders\
         &sig=SOqk6PpV2%2FbYx2pZcWXBxRsyELEuqQ4lIyOx5e7QZf8%3D\
         &se=1700000000&skn=RootManageSharedAccessKey";

    #[tokio::test]
    async fn a_key_makes_tokens_that_say_when_they_end() {
        let auth = Auth::SharedAccessKey(SharedAccessKey::new("n", "k".to_owned()));
        let token = auth.token("amqps://h/hub").await.unwrap();
        assert_eq!(token.kind, cbs::TYPE_SAS);
        assert!(token.expires.unwrap() > SystemTime::now());
        assert!(!format!("{auth:?} {token:?}").contains("sig="));
    }
}
