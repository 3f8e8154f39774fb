//! A bucket of S3 as an object store, with the credentials that the other services have.

use std::{fmt, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AwsCredential},
};

use super::{ATTEMPT_MAX, CONNECT_MAX, Config, LONG_POLL_MAX};
use crate::{
    cloud::{IDLE_MAX, lasting::Lasting},
    fault::Fault,
};

/// Opens a bucket. Asks it nothing.
pub(crate) async fn open(config: &Config, bucket: &str) -> Result<Arc<dyn ObjectStore>, Fault> {
    let unusable = |text: String| Fault::stop("open bucket", "settings", text);
    let sdk = config.load().await;
    let provider = sdk.credentials_provider().ok_or_else(|| unusable(NO_CREDENTIALS.to_owned()))?;
    let region = sdk.region().ok_or_else(|| unusable("no region is set for S3".to_owned()))?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.to_string())
        .with_credentials(Arc::new(Credentials { provider, lasting: Lasting::default() }))
        .with_retry(no_retry())
        .with_client_options(
            ClientOptions::new()
                .with_connect_timeout(CONNECT_MAX)
                .with_timeout(ATTEMPT_MAX + LONG_POLL_MAX)
                .with_pool_idle_timeout(IDLE_MAX),
        );
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
    }
    let store = builder.build().map_err(|error| unusable(format!("s3://{bucket}: {error}")))?;
    Ok(Arc::new(store))
}

const NO_CREDENTIALS: &str = "no usable AWS credentials";

/// As for the other services: `deliver` retries.
fn no_retry() -> RetryConfig {
    let backoff = BackoffConfig::default();
    RetryConfig { max_retries: 0, retry_timeout: ATTEMPT_MAX, backoff }
}

/// The SDK's credentials, in the shape of the object store.
struct Credentials {
    provider: SharedCredentialsProvider,
    lasting: Lasting<AwsCredential>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let fetch = async || {
            let found = self.provider.provide_credentials().await.map_err(|error| {
                object_store::Error::Unauthenticated { path: String::new(), source: error.into() }
            })?;
            let lasts =
                found.expiry().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
            let credential = AwsCredential {
                key_id: found.access_key_id().to_owned(),
                secret_key: found.secret_access_key().to_owned(),
                token: found.session_token().map(str::to_owned),
            };
            Ok((credential, lasts))
        };
        self.lasting.get(fetch).await
    }
}
