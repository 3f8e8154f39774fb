//! Connection strings of storage accounts.
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>

use azure_core::http::Url;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// The account that every emulator of Azure Storage has, and its key. Both are published.
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const DEVELOPMENT: &str = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;\
    AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;\
    QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1";

/// What a connection string says.
pub(super) struct ConnectionString {
    /// Name of the account; empty where only endpoints and a SAS are given.
    pub(super) account: String,
    /// How requests are authorized.
    pub(super) auth: Auth,
    protocol: String,
    suffix: String,
    queue: Option<String>,
    blob: Option<String>,
}

/// How a connection string authorizes requests.
pub(super) enum Auth {
    /// Each request is signed with the account's key.
    Key(Vec<u8>),
    /// Each URL bears this query.
    Sas(String),
}

/// A service of a storage account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Blob,
    Queue,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Queue => "queue",
        }
    }
}

impl ConnectionString {
    /// Reads a connection string. The error never holds a part of it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (mut account, mut key, mut sas) = (String::new(), None, None);
        let (mut queue, mut blob) = (None, None);
        let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        for part in text.trim().split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or("a part of it is not NAME=VALUE")?;
            let value = value.trim().to_owned();
            match name.trim().to_ascii_lowercase().as_str() {
                "usedevelopmentstorage" if value == "true" => return Self::parse(DEVELOPMENT),
                "accountname" => account = value,
                "accountkey" => key = Some(value),
                "sharedaccesssignature" => sas = Some(value),
                "defaultendpointsprotocol" => protocol = value,
                "endpointsuffix" => suffix = value,
                "queueendpoint" => queue = Some(value),
                "blobendpoint" => blob = Some(value),
                "tableendpoint" | "fileendpoint" | "dfsendpoint" => {}
                _ => return Err("it has a part that storage accounts do not know"),
            }
        }
        let auth = match (key, sas) {
            (Some(key), None) => {
                Auth::Key(BASE64.decode(key).map_err(|_| "its AccountKey is not base64")?)
            }
            (None, Some(sas)) => Auth::Sas(sas.trim_start_matches('?').to_owned()),
            (None, None) => return Err("it has neither AccountKey nor SharedAccessSignature"),
            (Some(_), Some(_)) => return Err("it has both AccountKey and SharedAccessSignature"),
        };
        if account.is_empty() && matches!(auth, Auth::Key(_)) {
            return Err("it has an AccountKey and no AccountName");
        }
        Ok(Self { account, auth, protocol, suffix, queue, blob })
    }

    /// Where a service is.
    pub(super) fn endpoint(&self, service: Service) -> Result<Url, &'static str> {
        let given = match service {
            Service::Blob => &self.blob,
            Service::Queue => &self.queue,
        };
        let text = match given {
            Some(text) => text.clone(),
            None if self.account.is_empty() => return Err("it names neither account nor endpoint"),
            None => {
                let Self { account, protocol, suffix, .. } = self;
                format!("{protocol}://{account}.{}.{suffix}", service.name())
            }
        };
        Url::parse(&text).map_err(|_| "its endpoint is not a URL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str, service: Service) -> String {
        let parsed = ConnectionString::parse(text).unwrap_or_else(|error| panic!("{error}"));
        parsed.endpoint(service).unwrap().to_string()
    }

    #[test]
    fn an_account_and_key_give_the_public_endpoints() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VjcmV0;EndpointSuffix=core.chinacloudapi.cn";
        assert_eq!(endpoint(text, Service::Queue), "https://acme.queue.core.chinacloudapi.cn/");
        assert_eq!(endpoint(text, Service::Blob), "https://acme.blob.core.chinacloudapi.cn/");
        let parsed = ConnectionString::parse(text).ok().unwrap();
        assert!(matches!(parsed.auth, Auth::Key(key) if key == b"secret"));
    }

    #[test]
    fn development_storage_is_azurite_on_its_usual_ports() {
        let text = "UseDevelopmentStorage=true";
        assert_eq!(endpoint(text, Service::Queue), "http://127.0.0.1:10001/devstoreaccount1");
        assert_eq!(endpoint(text, Service::Blob), "http://127.0.0.1:10000/devstoreaccount1");
    }

    #[test]
    fn a_sas_needs_no_account_name_beside_its_endpoint() {
        let text = "QueueEndpoint=https://acme.queue.core.windows.net/;SharedAccessSignature=?sv=1&sig=a%3D";
        assert_eq!(endpoint(text, Service::Queue), "https://acme.queue.core.windows.net/");
        let parsed = ConnectionString::parse(text).ok().unwrap();
        assert!(matches!(parsed.auth, Auth::Sas(sas) if sas == "sv=1&sig=a%3D"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for text in [
            "AccountName=acme",
            "AccountName=acme;AccountKey=%%%",
            "AccountKey=c2VjcmV0",
            "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=c2VjcmV0",
            "nonsense",
        ] {
            let error = ConnectionString::parse(text).err().unwrap();
            assert!(!error.contains("c2VjcmV0") && !error.contains("%%%"), "{error}");
        }
    }
}
