//! A container of Blob Storage as an object store, authorized as the other services are.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{credentials::TokenCredential, time::OffsetDateTime};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, ObjectStore, RetryConfig,
    azure::{AzureConfigKey, AzureCredential, MicrosoftAzureBuilder},
};

use super::{
    Config,
    connection_string::Service,
    storage::{Access, Authority},
};
use crate::{
    cloud::{IDLE_MAX, lasting::Lasting},
    fault::Fault,
};

const CONNECT_MAX: Duration = Duration::from_secs(3);
/// No request may take longer.
const CALL_MAX: Duration = Duration::from_secs(30);
/// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory>
const SCOPE: &str = "https://storage.azure.com/.default";

/// Opens a container, and answers its URL. Asks it nothing.
pub(crate) fn open(
    config: &Config,
    container: &str,
) -> Result<(Arc<dyn ObjectStore>, String), Fault> {
    let Access { url, account, authority } = config.access(Service::Blob)?;
    let root = url.as_str().trim_end_matches('/').to_owned();
    let builder = MicrosoftAzureBuilder::new()
        // Needed even where a signature says it all, and then of no use.
        .with_account(if account.is_empty() { "account" } else { &account })
        .with_container_name(container)
        .with_endpoint(root.clone())
        // `deliver` retries.
        .with_retry(RetryConfig {
            max_retries: 0,
            retry_timeout: CALL_MAX,
            backoff: BackoffConfig::default(),
        })
        .with_client_options(
            ClientOptions::new()
                .with_connect_timeout(CONNECT_MAX)
                .with_timeout(CALL_MAX)
                .with_pool_idle_timeout(IDLE_MAX)
                .with_allow_http(url.scheme() == "http"),
        );
    let builder = match authority {
        Authority::Token(entra) => {
            builder.with_credentials(Arc::new(Entra { entra, lasting: Lasting::default() }))
        }
        Authority::Key(key) => builder.with_access_key(BASE64.encode(key)),
        Authority::Sas(query) => builder.with_config(AzureConfigKey::SasKey, query),
    };
    // Its errors may hold what it was given.
    let unusable = |_| Fault::stop("open container", "settings", format!("{root}: unusable"));
    let store = builder.build().map_err(unusable)?;
    Ok((Arc::new(store), format!("{root}/{container}")))
}

/// Tokens of Entra, in the shape of the object store.
struct Entra {
    entra: Arc<dyn TokenCredential>,
    lasting: Lasting<AzureCredential>,
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entra").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Entra {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let fetch = async || {
            let found = self.entra.get_token(&[SCOPE], None).await.map_err(|error| {
                object_store::Error::Unauthenticated { path: String::new(), source: error.into() }
            })?;
            let lasts = (found.expires_on - OffsetDateTime::now_utc()).try_into().ok();
            Ok((AzureCredential::BearerToken(found.token.secret().to_owned()), lasts))
        };
        self.lasting.get(fetch).await
    }
}
