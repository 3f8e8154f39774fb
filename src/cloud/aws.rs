//! AWS: credentials, endpoint, and what its errors mean.

use std::{error::Error as _, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    client::{http::SharedHttpClient, orchestrator::HttpResponse, result::SdkError},
    http::Headers,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IDLE_MAX;
use crate::fault::{BoxError, Fault, Verdict};

pub(crate) mod bucket;
pub mod queue;
pub mod topic;

/// How to reach AWS. What is not given follows the AWS default chain: environment, profile, web
/// identity (IRSA), container and instance roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Aws")]
pub struct Config {
    /// Region, such as `eu-west-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than AWS's own, such as `http://127.0.0.1:4566` for LocalStack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A profile of the shared configuration files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// A role to assume with the credentials found so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// ARN of the role.
    pub role_arn: String,
    /// Name of the session, seen in CloudTrail.
    #[serde(default = "default_session_name")]
    pub session_name: String,
    /// What the role's trust policy may demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

fn default_session_name() -> String {
    "eventferry".to_owned()
}

/// No request may take longer, beside the time that a long poll waits.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// The longest that SQS holds a poll.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>
pub const LONG_POLL_MAX: Duration = Duration::from_secs(20);
const CONNECT_MAX: Duration = Duration::from_secs(3);

impl Config {
    /// The settings of one connector: its own, where it has any, else the file's.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        let pick = |own: &Option<String>, default: &Option<String>| own.clone().or(default.clone());
        Self {
            region: pick(&self.region, &defaults.region),
            endpoint: pick(&self.endpoint, &defaults.endpoint),
            profile: pick(&self.profile, &defaults.profile),
            assume_role: self.assume_role.clone().or_else(|| defaults.assume_role.clone()),
        }
    }

    /// What the SDK's clients are made from. The SDK retries nothing: that is `deliver`'s job,
    /// and hidden retries would hide throttling from it.
    pub async fn load(&self) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_attempt_timeout(ATTEMPT_MAX + LONG_POLL_MAX)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let Some(role) = &self.assume_role else {
            if let Some(endpoint) = &self.endpoint {
                loader = loader.endpoint_url(endpoint);
            }
            return loader.load().await;
        };
        // The role is assumed at the real STS, also where the queues are elsewhere.
        let base = loader.load().await;
        let mut provider = AssumeRoleProvider::builder(&role.role_arn)
            .session_name(&role.session_name)
            .configure(&base);
        if let Some(id) = &role.external_id {
            provider = provider.external_id(id);
        }
        let provider = provider.build().await;
        let mut config = base.into_builder();
        config.set_credentials_provider(Some(
            aws_credential_types::provider::SharedCredentialsProvider::new(provider),
        ));
        config.set_endpoint_url(self.endpoint.clone());
        config.build()
    }
}

/// The SDK's own, but for the age of idle connections.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let tls = Provider::Rustls(CryptoMode::AwsLc);
        let mut connector = ConnectorBuilder::default().tls_provider(tls);
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.proxy_config(ProxyConfig::from_env()).pool_idle_timeout(IDLE_MAX).build()
    })
}

/// A deadline for requests that do not poll.
pub(crate) fn short() -> TimeoutConfig {
    long(Duration::ZERO)
}

/// A deadline for requests that SQS holds for `wait`.
pub(crate) fn long(wait: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_MAX + wait).build()
}

/// Names that AWS uses for "slower, please".
const THROTTLES: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "Throttled",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "OverLimit",
    "AWS.SimpleQueueService.OverLimit",
    "KmsThrottled",
    "KMSThrottling",
    "KMSThrottlingException",
    "SlowDown",
    "ServiceUnavailable",
];

/// Names that AWS uses for what only somebody's hand can mend.
const STOPS: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSecurityException",
    "InvalidSignatureException",
    "NotAuthorized",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "MissingAuthenticationToken",
    "OptInRequired",
    "NotFound",
    "NotFoundException",
    "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "KmsAccessDenied",
    "KMSAccessDeniedException",
    "KmsDisabled",
    "KMSDisabledException",
    "KmsNotFound",
    "KMSNotFoundException",
    "KmsInvalidKeyUsage",
    "KmsInvalidState",
    "KMSInvalidStateException",
    "KmsOptInRequired",
    "KMSOptInRequired",
];

/// What a failed request means. `target` is the queue or topic, for the message.
pub(crate) fn fault<E>(op: &'static str, target: &str, error: SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let after = error.raw_response().and_then(|response| retry_after(response.headers()));
    match &error {
        SdkError::ServiceError(service) => {
            // Who has no name for the error is not the service, but something on the way to it.
            let is_named = service.err().code().is_some();
            let code = service.err().code().unwrap_or("unknown").to_owned();
            let text = service.err().message().unwrap_or("no message").to_owned();
            let cause = format!("{target}: {code}: {text}");
            if THROTTLES.contains(&code.as_str()) || status == 429 {
                return Fault::new(Verdict::Busy { after }, op, "throttled", cause);
            }
            if STOPS.contains(&code.as_str()) || matches!(status, 401 | 403) {
                let (class, hint) = stopped(&code);
                return Fault::stop(op, class, format!("{cause}; {hint}"));
            }
            if status >= 500 || status == 408 || !(is_named || status == 413) {
                return Fault::new(Verdict::Busy { after }, op, "unavailable", cause);
            }
            Fault::retry(op, "bad_request", cause)
        }
        _ if is_credentials(&error) => Fault::stop(
            op,
            "credentials",
            with_target(target, "no usable AWS credentials", error.into()),
        ),
        SdkError::TimeoutError(_) => {
            Fault::busy(op, "timeout", with_target(target, "no answer in time", error.into()))
        }
        SdkError::ConstructionFailure(_) => Fault::stop(
            op,
            "settings",
            with_target(target, "the request cannot be made; is the region set?", error.into()),
        ),
        _ => Fault::busy(op, "unreachable", with_target(target, "cannot reach AWS", error.into())),
    }
}

/// What one entry of a batch was refused for.
pub(crate) fn entry_fault(op: &'static str, sender: bool, code: &str, text: Option<&str>) -> Fault {
    let cause = format!("{code}: {}", text.unwrap_or("no message"));
    if THROTTLES.contains(&code) {
        return Fault::busy(op, "throttled", cause);
    }
    if STOPS.contains(&code) {
        return Fault::stop(op, stopped(code).0, cause);
    }
    if sender { Fault::reject(op, "refused", cause) } else { Fault::retry(op, "failed", cause) }
}

/// The class of a standing fault, and what to do about it.
fn stopped(code: &str) -> (&'static str, &'static str) {
    if code.contains("NonExistentQueue")
        || code.starts_with("NotFound")
        || code == "QueueDoesNotExist"
    {
        ("missing", "create it, or mend its name, region or account")
    } else {
        ("refused", "check the credentials and what they are allowed")
    }
}

fn with_target(target: &str, what: &str, error: BoxError) -> BoxError {
    Box::new(At { text: format!("{target}: {what}"), error })
}

/// An SDK error together with what it happened to.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct At {
    text: String,
    #[source]
    error: BoxError,
}

fn is_credentials<E: std::error::Error + 'static>(error: &SdkError<E, HttpResponse>) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<aws_credential_types::provider::error::CredentialsError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn retry_after(headers: &Headers) -> Option<Duration> {
    headers.get("retry-after")?.parse().ok().map(Duration::from_secs)
}

/// `entries` in requests of at most ten, as every SQS and SNS batch call wants them.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-batch-api-actions.html>
pub(crate) const BATCH_MAX: usize = 10;

/// Most bytes of a batch, whatever its queue allows for one message.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::{body::SdkBody, error::ErrorMetadata};

    use super::*;

    #[test]
    fn a_connectors_own_settings_come_before_the_files() {
        let file = Config {
            region: Some("eu-west-1".into()),
            endpoint: Some("http://file".into()),
            ..Config::default()
        };
        let own = Config { endpoint: Some("http://own".into()), ..Config::default() };
        let both = own.or(&file);
        assert_eq!(both.region.as_deref(), Some("eu-west-1"));
        assert_eq!(both.endpoint.as_deref(), Some("http://own"));
    }

    #[test]
    fn an_entry_is_judged_by_its_own_code() {
        let verdict = |sender, code| entry_fault("op", sender, code, None).verdict;
        assert_eq!(verdict(true, "InvalidMessageContents"), Verdict::Reject);
        assert_eq!(verdict(true, "RequestThrottled"), Verdict::Busy { after: None });
        assert_eq!(verdict(false, "InternalError"), Verdict::Retry { after: None });
        assert_eq!(verdict(true, "KmsAccessDenied"), Verdict::Stop);
        assert_eq!(verdict(true, "KmsInvalidState"), Verdict::Stop);
    }

    type Failure = SdkError<SendMessageBatchError, HttpResponse>;

    fn answer(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::empty())
    }

    /// An answer with the service's own name of the error, or without one, as a proxy gives.
    fn answered(status: u16, code: Option<&str>) -> Fault {
        let mut named = ErrorMetadata::builder();
        if let Some(code) = code {
            named = named.code(code);
        }
        let error = SendMessageBatchError::generic(named.build());
        fault("op", "orders", Failure::service_error(error, answer(status)))
    }

    #[test]
    fn what_says_that_the_service_is_not_there_is_no_verdict_on_an_event() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        let dns = || "failed to lookup address information: Name or service not known".into();
        for (failure, class) in [
            (Failure::dispatch_failure(ConnectorError::io(refused())), "unreachable"),
            (Failure::dispatch_failure(ConnectorError::other(dns(), None)), "unreachable"),
            (Failure::dispatch_failure(ConnectorError::timeout("connect".into())), "unreachable"),
            (Failure::timeout_error("no answer"), "timeout"),
            (Failure::response_error("cut short", answer(200)), "unreachable"),
        ] {
            let fault = fault("op", "orders", failure);
            assert_eq!(
                (fault.verdict, fault.class),
                (Verdict::Busy { after: None }, class),
                "{fault}"
            );
        }
        for (status, code) in [
            (500, Some("InternalFailure")),
            (503, Some("ServiceUnavailable")),
            (400, Some("RequestThrottled")),
            (429, None),
            (408, None),
            (500, None),
            (502, None),
            (503, None),
            (504, None),
            (404, None),
            (400, None),
            (302, None),
        ] {
            let fault = answered(status, code);
            assert_eq!(fault.verdict, Verdict::Busy { after: None }, "{status} {code:?}");
        }
        for code in ["QueueDoesNotExist", "AccessDeniedException", "KmsInvalidState"] {
            assert_eq!(answered(400, Some(code)).verdict, Verdict::Stop, "{code}");
        }
        // These are about what was sent.
        for (status, code) in [(400, Some("InvalidParameterValue")), (413, None)] {
            let fault = answered(status, code);
            assert_eq!(fault.verdict, Verdict::Retry { after: None }, "{status} {code:?}");
        }
    }
}
