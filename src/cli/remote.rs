//! The way from the command line to a daemon that runs: its admin API.

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder, Response, StatusCode,
    Url, header::HeaderValue, redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::paint::clean;
use crate::admin::answer::Refusal;

/// How long a daemon that is there takes to be reached at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take: a source drains before it goes back.
const ANSWER_MAX: Duration = Duration::from_secs(150);
/// A refusal has so many characters at most.
const DETAIL_MAX: usize = 10_000;
/// The variable that may hold the token. It is no argument, which others could see.
const TOKEN: &str = "EVENTFERRY_TOKEN";

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// Where the daemon's `admin` listens.
    #[arg(long, env = "EVENTFERRY_URL", default_value = "http://127.0.0.1:8080", value_parser = url)]
    url: Url,
    /// A file that holds the token; without it, the variable EVENTFERRY_TOKEN does, if one is
    /// needed.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A file with the certificates of an authority that has signed the daemon's, beside those that
    /// the system trusts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with the certificate that says who asks, and those between it and its authority.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A file with the key of that certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

fn url(text: &str) -> Result<Url, String> {
    let wrong = || "write an address like `http://127.0.0.1:8080`".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    Ok(url)
}

/// Why the daemon has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody is there.
    #[error(
        "nothing answers at {url}: {why}. Is the daemon running, and is its `admin` there? Say \
         where by --url or EVENTFERRY_URL"
    )]
    Away {
        /// Where.
        url: String,
        /// As the system says it.
        why: String,
    },
    /// Somebody is there, and nobody knows whether it is the daemon.
    #[error(
        "{url} shows a certificate that is not trusted: {why}. If an authority of your own has \
         signed it, name the file of that authority's certificate by --ca"
    )]
    Untrusted {
        /// Where.
        url: String,
        /// What is wrong with the certificate.
        why: String,
    },
    /// It was there, and then it was not.
    #[error("{url} has broken off: {why}. Ask again")]
    Broken {
        /// Where.
        url: String,
        /// As far as that is known.
        why: String,
    },
    /// It does not know who asks.
    #[error(
        "{url} does not know who asks: {why}. A token is read from the file of --token-file, or \
         from EVENTFERRY_TOKEN; a certificate from those of --cert and --key"
    )]
    Unauthorized {
        /// Where.
        url: String,
        /// In the daemon's words.
        why: String,
    },
    /// It has said why not.
    #[error("{0}")]
    Refused(String),
    /// It is another program, or another version.
    #[error("{url} answers what eventferry {} does not understand: {why}", env!("CARGO_PKG_VERSION"))]
    Strange {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// They would be seen.
    #[error(
        "no credentials belong into --url or EVENTFERRY_URL; a token is read from the file of \
         --token-file, or from EVENTFERRY_TOKEN"
    )]
    Credentials,
    /// A file cannot be used.
    #[error("cannot read the {what} from {}: {why}", .path.display())]
    File {
        /// What was to be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The answer cannot be printed.
    #[error(transparent)]
    Print(#[from] io::Error),
}

impl Remote {
    /// Asks for what the path names, and answers what the daemon says.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        let request = self.request(Method::GET, self.at(path))?.timeout(ANSWER_MAX);
        self.read(self.send(request).await?).await
    }

    /// Has the daemon do what the path names.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(io::Error::from)?;
        let request = self.request(Method::POST, self.at(path))?.timeout(ANSWER_MAX);
        let request = request.header("content-type", "application/json").body(body);
        self.read(self.send(request).await?).await
    }

    /// Begins to listen to what never ends.
    pub(super) async fn listen(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Response, Failure> {
        let mut url = self.at(path);
        url.query_pairs_mut().extend_pairs(query);
        let asked = self.send(self.request(Method::GET, url)?);
        timeout(ANSWER_MAX, asked).await.map_err(|_| self.broken("no answer in time"))?
    }

    /// What is heard next; nothing once the other end has closed.
    pub(super) async fn next(
        &self,
        answer: &mut Response,
        silence_max: Duration,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let heard = timeout(silence_max, answer.chunk()).await;
        let heard =
            heard.map_err(|_| self.broken("it is silent, and does not say that it lives"))?;
        let heard = heard.map_err(|error| self.broken(cause(&error).to_string()))?;
        Ok(heard.map(Vec::from))
    }

    /// It has closed before it has said that this is the end.
    pub(super) fn cut(&self) -> Failure {
        self.broken(
            "it ends, another configuration says something else of who may ask, or the token that \
             was shown holds no longer",
        )
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        // One that has a host has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Failure> {
        // Not when the arguments are read, which would print them.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::Credentials);
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("eventferry/", env!("CARGO_PKG_VERSION")));
        let client = self.certified(client)?.build().map_err(|error| self.away(&error))?;
        let request = client.request(method, url);
        Ok(match self.token()? {
            Some(token) => request.header("authorization", token),
            None => request,
        })
    }

    /// One that trusts whom it is to trust, and shows who asks.
    fn certified(&self, mut client: ClientBuilder) -> Result<ClientBuilder, Failure> {
        if let Some(path) = &self.ca {
            let what = "certificates of --ca";
            let failed =
                |why: &str| Failure::File { what, path: path.clone(), why: why.to_owned() };
            let found = Certificate::from_pem_bundle(&read(path, what)?).unwrap_or_default();
            if found.is_empty() {
                return Err(failed("no certificate is in it, as PEM"));
            }
            client = client.tls_certs_merge(found);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let both = [read(cert, "certificate of --cert")?, read(key, "key of --key")?].concat();
            let identity = Identity::from_pem(&both).map_err(|error| Failure::File {
                what: "certificate and its key",
                path: cert.clone(),
                why: cause(&error).to_string(),
            })?;
            client = client.identity(identity);
        }
        Ok(client)
    }

    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let named = self.token_file.as_ref();
        let failed = |why: String| Failure::File {
            what: "token",
            path: named.cloned().unwrap_or_else(|| TOKEN.into()),
            why,
        };
        let text = match named {
            Some(path) => {
                Some(std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?)
            }
            None => std::env::var(TOKEN).ok(),
        };
        let Some(text) = text.as_deref().map(str::trim) else { return Ok(None) };
        if text.is_empty() {
            return if named.is_some() { Err(failed("it is empty".to_owned())) } else { Ok(None) };
        }
        let mut value = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| failed("it holds what no token can".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.map_err(|error| self.away(&error))?;
        let refusal = serde_json::from_str::<Refusal>(&text);
        let detail = refusal.map(|refusal| clean(&refusal.detail, DETAIL_MAX));
        Err(match (status, detail) {
            (StatusCode::UNAUTHORIZED, detail) => {
                let why = detail.unwrap_or_else(|_| "it does not say why".to_owned());
                let why = why.trim_end_matches('.').to_owned();
                Failure::Unauthorized { url: self.shown(), why }
            }
            (_, Ok(detail)) => Failure::Refused(detail),
            (status, Err(_)) => self.strange(status),
        })
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Failure> {
        let text = answer.bytes().await.map_err(|error| self.away(&error))?;
        serde_json::from_slice(&text).map_err(|error| self.strange(error))
    }

    /// As people write it.
    fn shown(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    fn strange(&self, why: impl ToString) -> Failure {
        Failure::Strange { url: self.shown(), why: why.to_string() }
    }

    fn broken(&self, why: impl Into<String>) -> Failure {
        Failure::Broken { url: self.shown(), why: why.into() }
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        let (url, cause) = (self.shown(), cause(error));
        if let Some(why) = distrust(cause) {
            return Failure::Untrusted { url, why: why.to_string() };
        }
        let why =
            if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
        Failure::Away { url, why }
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| {
        let why = error.to_string();
        Failure::File { what, path: path.to_owned(), why }
    };
    std::fs::read(path).map_err(failed)
}

/// The last of what lies behind an error says most.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause
}

/// Why a certificate is not trusted, if that is what has failed. Errors of a connection hold one
/// another and the one of TLS, and do not call them their source.
fn distrust<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(outer) => distrust(outer.get_ref()?),
        None => error
            .downcast_ref()
            .filter(|error| matches!(error, rustls::Error::InvalidCertificate(_))),
    }
}

/// Prints an answer as it came.
pub(super) fn print(answer: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    let text = serde_json::to_string(answer).map_err(io::Error::from)?;
    Ok(writeln!(out, "{text}")?)
}

#[cfg(test)]
mod tests;
