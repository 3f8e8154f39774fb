//! Storage accounts: where their services are, how requests are authorized, and what their errors
//! mean.

use std::{sync::Arc, time::Duration};

use azure_core::{
    credentials::TokenCredential,
    error::ErrorKind,
    http::{ClientOptions, RetryOptions, Transport, Url, headers::RETRY_AFTER},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub(crate) use super::connection_string::Service;
use super::{
    Config,
    connection_string::{Auth, ConnectionString},
    shared_key::SharedKey,
};
use crate::{
    cloud::IDLE_MAX,
    config::secret::Secret,
    fault::{Fault, Verdict},
};

/// A storage account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "StorageAccount")]
pub enum Account {
    /// Its name; the daemon signs in with the credential.
    Account(String),
    /// Reference to a connection string with an account key or a shared access signature;
    /// `UseDevelopmentStorage=true` is Azurite on its usual ports.
    ConnectionString(Secret),
}

const NO_ACCOUNT: &str = "no storage account is configured; set `azure: { storage: { account: \
                          NAME } }` or `{ storage: { connection_string: \"${VARIABLE}\" } }`, here \
                          or at the top of the file";
/// No request may take longer.
const CALL_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A service of a storage account, as the SDK's clients want it.
pub(crate) struct Endpoint {
    /// Root of the service; holds the shared access signature, if there is one.
    pub(crate) url: Url,
    /// Signs in with Entra, where requests are not authorized otherwise.
    pub(crate) credential: Option<Arc<dyn TokenCredential>>,
    /// No retries, because `deliver` retries and hidden ones would hide throttling from it.
    pub(crate) options: ClientOptions,
}

/// A service of a storage account, before any client's own shape.
pub(super) struct Access {
    /// Root of the service, without a signature.
    pub(super) url: Url,
    /// Name of the account; may be empty where a signature says it all.
    pub(super) account: String,
    /// By what requests are authorized.
    pub(super) authority: Authority,
}

/// By what requests are authorized.
pub(super) enum Authority {
    /// A token of Entra.
    Token(Arc<dyn TokenCredential>),
    /// A signature by the account's key.
    Key(Vec<u8>),
    /// A shared access signature: the query of a URL.
    Sas(String),
}

impl Endpoint {
    /// The URL of `path` in this service.
    pub(crate) fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let root = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{root}/{path}"));
        url
    }
}

/// `url` as it may be shown: without a shared access signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

impl Config {
    /// A service of the configured storage account. Does no I/O beyond reading a secret.
    ///
    /// # Errors
    /// No account is configured, or what is configured cannot be used.
    pub(crate) fn storage(&self, service: Service) -> Result<Endpoint, Fault> {
        let Access { mut url, account, authority } = self.access(service)?;
        let retry = RetryOptions::none();
        let transport = Some(Transport::new(Arc::new(http_client()?)));
        let mut options = ClientOptions { retry, transport, ..Default::default() };
        let mut credential = None;
        match authority {
            Authority::Token(entra) => credential = Some(entra),
            Authority::Key(key) => {
                options.per_try_policies.push(Arc::new(SharedKey::new(account, key)));
            }
            Authority::Sas(query) => url.set_query(Some(&query)),
        }
        Ok(Endpoint { url, credential, options })
    }

    /// Where a service of the configured storage account is, and by what requests are authorized.
    pub(super) fn access(&self, service: Service) -> Result<Access, Fault> {
        let given = match service {
            Service::Blob => &self.blob_endpoint,
            Service::Queue => &self.queue_endpoint,
        };
        let parse = |text: &String| {
            Url::parse(text).map_err(|_| unusable(format!("`{text}` is not a URL")))
        };
        let given = given.as_ref().map(parse).transpose()?;
        match &self.storage {
            None => Err(unusable(NO_ACCOUNT)),
            Some(Account::Account(name)) => {
                let usual = format!("https://{name}.{}.core.windows.net", service.name());
                let url = given.map_or_else(|| parse(&usual), Ok)?;
                if url.scheme() != "https" {
                    let text = "a token may travel over https only; use a connection string";
                    return Err(unusable(text));
                }
                let authority = Authority::Token(self.token_credential()?);
                Ok(Access { url, account: name.clone(), authority })
            }
            Some(Account::ConnectionString(secret)) => {
                let text = secret.read().map_err(unusable)?;
                let wrong = |what| unusable(format!("the connection string in {secret}: {what}"));
                let parsed = ConnectionString::parse(&text).map_err(wrong)?;
                let url = given.map_or_else(|| parsed.endpoint(service).map_err(wrong), Ok)?;
                let authority = match parsed.auth {
                    Auth::Sas(query) => Authority::Sas(query),
                    Auth::Key(key) => Authority::Key(key),
                };
                Ok(Access { url, account: parsed.account, authority })
            }
        }
    }

    /// What to say where a connector needs a storage account and none is configured.
    pub(crate) fn no_account(&self) -> Option<String> {
        self.storage.is_none().then(|| NO_ACCOUNT.to_owned())
    }

    /// What is wrong with the settings: the path of a field, and why, with a hint.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if matches!(&self.storage, Some(Account::Account(name)) if !is_account_name(name)) {
            let text = "an account's name has 3 to 24 small letters and digits; for an endpoint \
                        of your own set `queue_endpoint` or `blob_endpoint`";
            problems.push(("azure.storage.account", text.to_owned()));
        }
        let endpoints = [
            ("azure.queue_endpoint", &self.queue_endpoint),
            ("azure.blob_endpoint", &self.blob_endpoint),
        ];
        for (path, endpoint) in endpoints {
            let Some(text) = endpoint else { continue };
            let parsed = Url::parse(text).ok();
            if parsed.is_none_or(|url| !url.scheme().starts_with("http") || !url.has_host()) {
                problems.push((path, "is not an http or https URL".to_owned()));
            }
        }
        problems
    }
}

/// <https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name>
fn is_account_name(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn unusable(cause: impl Into<crate::fault::BoxError>) -> Fault {
    Fault::stop("connect", "settings", cause)
}

/// The SDK's own, but for the age of idle connections and the time that one may take to be made.
fn http_client() -> Result<reqwest::Client, Fault> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(CALL_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(unusable)
}

/// Awaits a request within its deadline. The fault of a failed one is [`fault`]'s.
pub(crate) async fn call<T>(
    op: &'static str,
    target: &str,
    request: impl Future<Output = azure_core::Result<T>>,
) -> Result<T, Refusal> {
    match timeout(CALL_MAX, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Refusal { code: code(&error), fault: fault(op, target, &error) }),
        Err(_) => {
            let text = format!("{target}: no answer within {} s", CALL_MAX.as_secs());
            Err(Refusal { code: String::new(), fault: Fault::busy(op, "timeout", text) })
        }
    }
}

/// A failed request: the service's own name of the error, for those that a connector expects, and
/// what it means otherwise.
pub(crate) struct Refusal {
    /// Such as `MessageNotFound`; empty where the service gave none.
    /// <https://learn.microsoft.com/rest/api/storageservices/queue-service-error-codes>
    pub(crate) code: String,
    pub(crate) fault: Fault,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        refusal.fault
    }
}

fn code(error: &azure_core::Error) -> String {
    match error.kind() {
        // Where the service has given none, the status stands for it.
        ErrorKind::HttpResponse { error_code: Some(code), .. } if code.parse::<u16>().is_err() => {
            code.clone()
        }
        _ => String::new(),
    }
}

/// What a failed request to `target` means. Its text is made here and not by the SDK, whose errors
/// hold URLs with shared access signatures and the bodies of answers.
fn fault(op: &'static str, target: &str, error: &azure_core::Error) -> Fault {
    let ErrorKind::HttpResponse { status, raw_response, .. } = error.kind() else {
        return match error.kind() {
            ErrorKind::Credential => {
                let cause = format!("{target}: no token: {error}; check `azure.credential`");
                Fault::stop(op, "credential", cause)
            }
            ErrorKind::DataConversion => {
                Fault::busy(op, "bad_answer", format!("{target}: the answer cannot be read"))
            }
            _ => Fault::busy(op, "unreachable", format!("{target}: {}", root_cause(error))),
        };
    };
    let after = raw_response.as_ref().and_then(|response| {
        let text = response.headers().get_optional_str(&RETRY_AFTER)?;
        text.parse().ok().map(Duration::from_secs)
    });
    let code = code(error);
    let status = u16::from(*status);
    let cause = format!("{target}: {status} {code}");
    match status {
        401 | 403 => {
            let hint = "check the key, the signature's permissions and end, or the identity's role";
            Fault::stop(op, "denied", format!("{cause}; {hint}"))
        }
        404 => {
            let hint = "create it, or mend its name or the account";
            Fault::stop(op, "not_found", format!("{cause}; {hint}"))
        }
        413 => Fault::reject(op, "too_large", cause),
        408 | 409 | 429 | 500.. => {
            let class = if matches!(status, 429 | 503) { "throttled" } else { "unavailable" };
            Fault::new(Verdict::Busy { after }, op, class, cause)
        }
        // Who has no name for the error is not the service, but something on the way to it.
        _ if code.is_empty() => Fault::new(Verdict::Busy { after }, op, "unavailable", cause),
        _ => Fault::reject(op, "refused", cause),
    }
}

/// Whether the service is there and knows us, but does not let us do this one thing.
pub(crate) fn is_not_permitted(refusal: &Refusal) -> bool {
    refusal.code.starts_with("AuthorizationPermissionMismatch")
        || refusal.code.starts_with("AuthorizationResourceTypeMismatch")
}

/// The end of an error's chain: the system's own words, without the URL that stands before them.
fn root_cause(error: &azure_core::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    if text.contains("://") { "the connection failed".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str) -> Fault {
        let kind = ErrorKind::HttpResponse {
            status: status.into(),
            error_code: Some(code.to_owned()),
            raw_response: None,
        };
        fault("PutMessage", "queue orders", &kind.into_error())
    }

    #[test]
    fn an_answer_is_judged_by_its_status() {
        assert_eq!(answered(403, "AuthenticationFailed").verdict, Verdict::Stop);
        assert_eq!(answered(404, "QueueNotFound").verdict, Verdict::Stop);
        assert_eq!(answered(400, "InvalidXmlDocument").verdict, Verdict::Reject);
        assert_eq!(answered(413, "RequestBodyTooLarge").verdict, Verdict::Reject);
        assert_eq!(answered(503, "ServerBusy").verdict, Verdict::Busy { after: None });
        assert_eq!(answered(500, "OperationTimedOut").class, "unavailable");
    }

    #[test]
    fn what_says_that_the_service_is_not_there_is_no_verdict_on_an_event() {
        let busy = Verdict::Busy { after: None };
        let statuses = [408, 409, 429, 500, 502, 503, 504, 302, 400, 405, 407, 421];
        for status in statuses {
            // As the SDK says it where an answer has a body and no name of the error.
            for code in ["", &status.to_string()] {
                assert_eq!(answered(status, code).verdict, busy, "{status} {code:?}");
            }
        }
        for kind in
            [ErrorKind::Io, ErrorKind::Connection, ErrorKind::DataConversion, ErrorKind::Other]
        {
            let error = azure_core::Error::with_message(kind, "failed to lookup address");
            assert_eq!(fault("PutMessage", "queue orders", &error).verdict, busy, "{error:?}");
        }
    }

    #[test]
    fn a_missing_queue_is_named_with_what_to_do() {
        let text = answered(404, "QueueNotFound").to_string();
        assert_eq!(
            text,
            "PutMessage failed: queue orders: 404 QueueNotFound; create it, or mend its name or the account"
        );
    }

    #[test]
    fn an_unreachable_endpoint_is_told_without_its_signature() {
        let io = std::io::Error::other("http://acme/?sig=secret");
        let error = azure_core::Error::with_error(ErrorKind::Io, io, "failed");
        let fault = fault("GetMessages", "queue orders", &error);
        assert_eq!(fault.verdict, Verdict::Busy { after: None });
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }

    #[test]
    fn no_account_says_where_one_belongs() {
        let fault = Config::default().storage(Service::Queue).err().unwrap();
        assert!(fault.to_string().contains("azure: { storage: "), "{fault}");
        assert_eq!(fault.verdict, Verdict::Stop);
    }

    #[test]
    fn an_endpoint_without_tls_wants_a_connection_string() {
        let config = Config {
            storage: Some(Account::Account("acme".into())),
            queue_endpoint: Some("http://127.0.0.1:10001/acme".into()),
            ..Config::default()
        };
        let fault = config.storage(Service::Queue).err().unwrap();
        assert!(fault.to_string().contains("use a connection string"), "{fault}");
    }
}
