//! The way from the command line to a daemon that runs: its admin API.

use std::{io, path::PathBuf, time::Duration};

use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header::HeaderValue, redirect};
use serde::{Serialize, de::DeserializeOwned};

use crate::admin::answer::Refusal;

/// How long a daemon that is there takes to be reached at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take: a source drains before it goes back.
const ANSWER_MAX: Duration = Duration::from_secs(150);
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
    /// It wants to know who asks.
    #[error(
        "{0} wants a token, or does not take this one: put a valid one into a file and name it by \
         --token-file, or set EVENTFERRY_TOKEN"
    )]
    Unauthorized(String),
    /// Who asks may not do it.
    #[error("this token may not do that: {0}. Ask with one of a higher role, or for other routes")]
    Forbidden(String),
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
    /// The token cannot be read.
    #[error("cannot read the token from {}: {why}", .path.display())]
    Token {
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
        self.send(self.request(Method::GET, url)?).await
    }

    /// What was said while listening broke off.
    pub(super) fn broken(&self, error: &reqwest::Error) -> Failure {
        self.away(error)
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
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("eventferry/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| self.away(&error))?;
        let request = client.request(method, url);
        Ok(match self.token()? {
            Some(token) => request.header("authorization", token),
            None => request,
        })
    }

    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let named = self.token_file.as_ref();
        let failed = |why: String| Failure::Token {
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
        let detail = refusal.map(|refusal| refusal.detail);
        match (status, detail) {
            (StatusCode::UNAUTHORIZED, _) => Err(Failure::Unauthorized(self.shown())),
            (StatusCode::FORBIDDEN, detail) => {
                let detail = detail.unwrap_or_else(|_| "the daemon does not say why".to_owned());
                Err(Failure::Forbidden(detail.trim_end_matches('.').to_owned()))
            }
            (_, Ok(detail)) => Err(Failure::Refused(detail)),
            (status, Err(_)) => Err(self.strange(status)),
        }
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

    /// The last of what lies behind an error says most.
    fn away(&self, error: &reqwest::Error) -> Failure {
        let mut why: &dyn std::error::Error = error;
        while let Some(cause) = why.source() {
            why = cause;
        }
        let why = if error.is_timeout() { "no answer in time".to_owned() } else { why.to_string() };
        Failure::Away { url: self.shown(), why }
    }
}

#[cfg(test)]
mod tests;
