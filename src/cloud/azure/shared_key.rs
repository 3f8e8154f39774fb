//! Signs requests with a storage account's key; the SDK knows Entra tokens and SAS only.
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::Arc,
};

use async_trait::async_trait;
use azure_core::{
    http::{
        Context, Request,
        headers::{AUTHORIZATION, MS_DATE},
        policies::{Policy, PolicyResult},
    },
    time::{OffsetDateTime, to_rfc7231},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// A pipeline policy that signs each try anew: the signature covers the time.
pub(super) struct SharedKey {
    account: String,
    key: Vec<u8>,
}

/// Shows the account, never the key.
impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey").field("account", &self.account).finish_non_exhaustive()
    }
}

impl SharedKey {
    pub(super) fn new(account: String, key: Vec<u8>) -> Self {
        Self { account, key }
    }

    fn sign(&self, text: &str) -> String {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(text.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    }
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        request.insert_header(MS_DATE, to_rfc7231(&OffsetDateTime::now_utc()));
        let signature = self.sign(&string_to_sign(&self.account, request));
        request.insert_header(AUTHORIZATION, format!("SharedKey {}:{signature}", self.account));
        next[0].send(context, request, &next[1..]).await
    }
}

/// The headers that stand in the string by their values alone, in its order.
const STANDARD_HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

fn string_to_sign(account: &str, request: &Request) -> String {
    let headers: BTreeMap<String, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_ascii_lowercase(), value.as_str()))
        .collect();
    let length = request.body().len().filter(|length| *length > 0);
    let length = length.map(|length| length.to_string()).unwrap_or_default();
    let mut text = format!("{}\n", request.method().as_str());
    for name in STANDARD_HEADERS {
        let value = match name {
            "content-length" => length.as_str(),
            _ => headers.get(name).copied().unwrap_or_default(),
        };
        let _ = writeln!(text, "{value}");
    }
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("x-ms-")) {
        let _ = writeln!(text, "{name}:{}", value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let _ = write!(text, "/{account}{}", request.url().path());
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.url().query_pairs() {
        query.entry(name.to_ascii_lowercase()).or_default().push(value.into_owned());
    }
    for (name, mut values) in query {
        values.sort();
        let _ = write!(text, "\n{name}:{}", values.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(Url::parse(url).unwrap(), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request
    }

    /// The two examples of the service's documentation.
    #[test]
    fn the_string_to_sign_is_the_documented_one() {
        let get = request(
            Method::Get,
            "https://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20",
            &[("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")],
        );
        assert_eq!(
            string_to_sign("myaccount", &get),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
        let mut put = request(
            Method::Put,
            "https://myaccount.blob.core.windows.net/mycontainer/hello",
            &[
                ("x-ms-version", "2015-02-21"),
                ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"),
                ("content-type", "text/plain; charset=UTF-8"),
                ("x-ms-blob-type", "BlockBlob"),
                ("x-ms-meta-m1", "v1"),
                ("x-ms-meta-m2", "v2"),
            ],
        );
        put.set_body("hello world");
        assert_eq!(
            string_to_sign("myaccount", &put),
            "PUT\n\n\n11\n\ntext/plain; charset=UTF-8\n\n\n\n\n\n\nx-ms-blob-type:BlockBlob\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-meta-m1:v1\nx-ms-meta-m2:v2\nx-ms-version:2015-02-21\n/myaccount/mycontainer/hello"
        );
    }

    #[test]
    fn a_path_style_url_names_the_account_twice() {
        let get = request(Method::Get, "http://127.0.0.1:10001/devstoreaccount1/q/messages", &[]);
        let text = string_to_sign("devstoreaccount1", &get);
        assert!(text.ends_with("\n/devstoreaccount1/devstoreaccount1/q/messages"), "{text}");
    }

    /// Test case 2 of RFC 4231, in base64.
    #[test]
    fn the_signature_is_hmac_sha256() {
        let signer = SharedKey::new("acme".into(), b"Jefe".to_vec());
        let signature = signer.sign("what do ya want for nothing?");
        assert_eq!(signature, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    }
}
