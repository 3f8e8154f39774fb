//! Azure: credentials, endpoint, and what its errors mean.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientSecretCredential,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{config::secret::Secret, fault::Fault};

mod connection_string;
pub(crate) mod container;
pub(crate) mod queue;
mod shared_key;
pub mod storage;

/// How to reach Azure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Azure")]
pub struct Config {
    /// Who the daemon is to Microsoft Entra; `environment` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The storage account of Storage Queues and checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<storage::Account>,
    /// Another Queue endpoint than the account's own, such as
    /// `http://127.0.0.1:10001/devstoreaccount1` for Azurite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_endpoint: Option<String>,
    /// Another Blob endpoint than the account's own, such as
    /// `http://127.0.0.1:10000/devstoreaccount1` for Azurite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_endpoint: Option<String>,
}

impl Config {
    /// The settings of one connector: its own, where it has any, else the file's.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        let text = |own: &Option<String>, default: &Option<String>| own.clone().or(default.clone());
        Self {
            credential: self.credential.clone().or_else(|| defaults.credential.clone()),
            storage: self.storage.clone().or_else(|| defaults.storage.clone()),
            queue_endpoint: text(&self.queue_endpoint, &defaults.queue_endpoint),
            blob_endpoint: text(&self.blob_endpoint, &defaults.blob_endpoint),
        }
    }

    /// The credential, ready to fetch tokens. Does no I/O beyond reading a secret: the first token
    /// is fetched by the first call that needs one.
    ///
    /// # Errors
    /// A secret cannot be read, or what the credential needs from the environment is not there.
    pub fn token_credential(&self) -> Result<Arc<dyn TokenCredential>, Fault> {
        self.credential.clone().unwrap_or_default().open()
    }
}

/// Who the daemon is to Microsoft Entra.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Credential {
    /// What the environment offers: workload identity where `AZURE_FEDERATED_TOKEN_FILE` is set,
    /// a client secret where `AZURE_CLIENT_SECRET` is, else the managed identity of the host.
    #[default]
    Environment,
    /// A Kubernetes service account that Entra trusts.
    WorkloadIdentity {
        /// Directory; `AZURE_TENANT_ID` where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant_id: Option<String>,
        /// Application; `AZURE_CLIENT_ID` where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// File of the service account's token; `AZURE_FEDERATED_TOKEN_FILE` where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<std::path::PathBuf>,
    },
    /// The identity of the virtual machine, app or container that the daemon runs in.
    ManagedIdentity {
        /// Client id of a user-assigned identity; the system-assigned one where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
    },
    /// A service principal with a secret.
    ClientSecret {
        /// Directory.
        tenant_id: String,
        /// Application.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
    },
    /// Whoever is logged in with `az login`.
    AzureCli {
        /// Directory; the CLI's own default where it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tenant_id: Option<String>,
    },
}

impl Credential {
    fn open(&self) -> Result<Arc<dyn TokenCredential>, Fault> {
        let opened = match self {
            Self::Environment => return Self::from_environment().open(),
            Self::WorkloadIdentity { tenant_id, client_id, token_file } => {
                WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    tenant_id: tenant_id.clone(),
                    client_id: client_id.clone(),
                    token_file_path: token_file.clone(),
                    ..Default::default()
                }))
                .map(|credential| credential as Arc<dyn TokenCredential>)
            }
            Self::ManagedIdentity { client_id } => {
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    ..Default::default()
                }))
                .map(|credential| credential as Arc<dyn TokenCredential>)
            }
            Self::ClientSecret { tenant_id, client_id, client_secret } => {
                let secret = client_secret.read().map_err(unusable)?.into();
                ClientSecretCredential::new(tenant_id, client_id.clone(), secret, None)
                    .map(|credential| credential as Arc<dyn TokenCredential>)
            }
            Self::AzureCli { tenant_id } => {
                AzureCliCredential::new(Some(AzureCliCredentialOptions {
                    tenant_id: tenant_id.clone(),
                    ..Default::default()
                }))
                .map(|credential| credential as Arc<dyn TokenCredential>)
            }
        };
        opened.map_err(unusable)
    }

    /// What [`Credential::Environment`] stands for in this process.
    fn from_environment() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let text = |name| std::env::var(name).unwrap_or_default();
        if set("AZURE_FEDERATED_TOKEN_FILE") {
            return Self::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None };
        }
        if set("AZURE_CLIENT_SECRET") {
            return Self::ClientSecret {
                tenant_id: text("AZURE_TENANT_ID"),
                client_id: text("AZURE_CLIENT_ID"),
                client_secret: Secret::Env("AZURE_CLIENT_SECRET".to_owned()),
            };
        }
        let client_id = Some(text("AZURE_CLIENT_ID")).filter(|id| !id.is_empty());
        Self::ManagedIdentity { client_id }
    }
}

fn unusable(cause: impl Into<crate::fault::BoxError>) -> Fault {
    Fault::stop("credential", "credential", cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Config, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn every_credential_is_written_in_yaml() {
        assert_eq!(
            parse("credential: environment").unwrap().credential,
            Some(Credential::Environment)
        );
        assert_eq!(
            parse("credential: { managed_identity: { client_id: abc } }").unwrap().credential,
            Some(Credential::ManagedIdentity { client_id: Some("abc".into()) })
        );
        assert_eq!(
            parse("credential: { azure_cli: {} }").unwrap().credential,
            Some(Credential::AzureCli { tenant_id: None })
        );
        parse("credential: { workload_identity: {} }").unwrap();
        let secret =
            "credential: { client_secret: { tenant_id: t, client_id: c, client_secret: '${S}' } }";
        parse(secret).unwrap();
    }

    #[test]
    fn a_connectors_own_settings_come_before_the_files() {
        let file = parse("{ credential: { azure_cli: {} }, storage: { account: file } }").unwrap();
        let own = parse("{ storage: { account: own } }").unwrap();
        let both = own.or(&file);
        assert_eq!(both.credential, file.credential);
        assert_eq!(both.storage, own.storage);
    }

    #[test]
    fn a_client_secret_written_out_is_refused() {
        let yaml =
            "credential: { client_secret: { tenant_id: t, client_id: c, client_secret: hunter2 } }";
        let error = parse(yaml).unwrap_err();
        assert!(error.contains("may not be written out here"), "{error}");
    }

    #[test]
    fn a_credential_whose_secret_is_not_there_names_the_reference() {
        let secret = Secret::Env("EVENTFERRY_NO_SUCH_SECRET".into());
        let credential = Credential::ClientSecret {
            tenant_id: "t".into(),
            client_id: "c".into(),
            client_secret: secret,
        };
        let fault = credential.open().err().unwrap();
        assert_eq!(fault.verdict, crate::fault::Verdict::Stop);
        assert!(fault.to_string().contains("EVENTFERRY_NO_SUCH_SECRET"), "{fault}");
    }
}
