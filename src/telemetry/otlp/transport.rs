//! Requests to a collector, over gRPC or HTTP.

use std::{fmt, str::FromStr};

use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tonic::{
    Code, Request, Status,
    metadata::MetadataMap,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{ANSWER, Otlp, Protocol};

/// What cannot be sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// Nobody has taken it yet.
    Away(String),
    /// The collector does not want it, and would not a second time.
    Refused(String),
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) => write!(f, "no answer: {text}"),
            Self::Refused(text) => write!(f, "refused: {text}"),
        }
    }
}

pub(super) enum Transport {
    Grpc { channel: Channel, headers: MetadataMap },
    Http { client: reqwest::Client, base: String, headers: HeaderMap },
}

/// The endpoint without what stands at its end for nothing.
///
/// # Errors
/// It is none; the text says what one looks like.
pub(super) fn address(endpoint: &str, protocol: Protocol) -> Result<String, String> {
    let example = match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::Http => "http://localhost:4318",
    };
    let wrong = || format!("`{endpoint}` is no address of a collector; write one like `{example}`");
    let url = reqwest::Url::parse(endpoint).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || url.query().is_some() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials may not be written out here; refer to them in `headers`, like \
                    `authorization: ${NAME}`"
            .to_owned());
    }
    if protocol == Protocol::Grpc && url.path() != "/" {
        return Err(format!("gRPC knows no path; write the address like `{example}`"));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

impl Transport {
    pub(super) fn new(config: &Otlp) -> Result<Self, String> {
        let base = address(&config.endpoint, config.protocol)?;
        let mut headers = HeaderMap::new();
        for (name, secret) in &config.headers {
            let value = secret.read().map_err(|error| error.to_string())?;
            let name = HeaderName::from_str(name).map_err(|error| error.to_string())?;
            // The error does not quote it.
            let mut value = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(match config.protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from_shared(base.clone()).map_err(|e| e.to_string())?;
                let channel = channel.timeout(ANSWER).connect_timeout(ANSWER);
                let channel = match base.starts_with("https:") {
                    true => channel.tls_config(ClientTlsConfig::new().with_native_roots()),
                    false => Ok(channel),
                };
                let channel = channel.map_err(|error| error.to_string())?.connect_lazy();
                Self::Grpc { channel, headers: MetadataMap::from_headers(headers) }
            }
            Protocol::Http => {
                let client = reqwest::Client::builder().timeout(ANSWER).build();
                Self::Http { client: client.map_err(|error| error.to_string())?, base, headers }
            }
        })
    }

    pub(super) async fn traces(&self, body: ExportTraceServiceRequest) -> Result<(), Unsent> {
        match self {
            Self::Grpc { channel, headers } => {
                let mut client = TraceServiceClient::new(channel.clone());
                client.export(with(headers, body)).await.map(drop).map_err(unsent)
            }
            Self::Http { .. } => self.post("traces", &body).await,
        }
    }

    pub(super) async fn metrics(&self, body: ExportMetricsServiceRequest) -> Result<(), Unsent> {
        match self {
            Self::Grpc { channel, headers } => {
                let mut client = MetricsServiceClient::new(channel.clone());
                client.export(with(headers, body)).await.map(drop).map_err(unsent)
            }
            Self::Http { .. } => self.post("metrics", &body).await,
        }
    }

    pub(super) async fn logs(&self, body: ExportLogsServiceRequest) -> Result<(), Unsent> {
        match self {
            Self::Grpc { channel, headers } => {
                let mut client = LogsServiceClient::new(channel.clone());
                client.export(with(headers, body)).await.map(drop).map_err(unsent)
            }
            Self::Http { .. } => self.post("logs", &body).await,
        }
    }

    async fn post(&self, signal: &str, body: &impl Message) -> Result<(), Unsent> {
        let Self::Http { client, base, headers } = self else { return Ok(()) };
        let request = client
            .post(format!("{base}/v1/{signal}"))
            .headers(headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(body.encode_to_vec());
        // Without the URL, which may name a tenant.
        let answer = request.send().await.map_err(|e| Unsent::Away(e.without_url().to_string()))?;
        let status = answer.status();
        match status.as_u16() {
            200..300 => Ok(()),
            // <https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>
            429 | 502..=504 => Err(Unsent::Away(status.to_string())),
            _ => Err(Unsent::Refused(status.to_string())),
        }
    }
}

fn with<T>(headers: &MetadataMap, body: T) -> Request<T> {
    let mut request = Request::new(body);
    *request.metadata_mut() = headers.clone();
    request
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures>
fn unsent(status: Status) -> Unsent {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal => Unsent::Refused(text),
        _ => Unsent::Away(text),
    }
}
