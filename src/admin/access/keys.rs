//! The public keys of an issuer of tokens, as it publishes them (RFC 7517), and what they verify.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

/// Keys are read again when they are so old.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// However many tokens come with keys that are not known, the issuer is asked once in this time.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// How long the issuer may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long somebody waits for it who could do without.
const MOMENT: Duration = Duration::from_millis(300);
/// Bytes of a set of keys.
const SET_BYTES_MAX: usize = 1 << 20;

/// A key, and the one algorithm that it is for: a token does not choose how it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Rs256 { n: Vec<u8>, e: Vec<u8> },
    Es256 { point: Vec<u8> },
    EdDsa { point: Vec<u8> },
}

impl Key {
    /// The algorithm, as a token names it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Rs256 { .. } => "RS256",
            Kind::Es256 { .. } => "ES256",
            Kind::EdDsa { .. } => "EdDSA",
        }
    }

    /// Whether it is meant by a token that names this algorithm and, if any, this key.
    #[must_use]
    pub fn is(&self, algorithm: &str, id: Option<&str>) -> bool {
        self.algorithm() == algorithm && (id.is_none() || self.id.as_deref() == id)
    }

    /// Whether it has signed the text.
    #[must_use]
    pub fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Kind::Rs256 { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature).is_ok()
            }
            Kind::Es256 { point } => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(text, signature).is_ok()
            }
            Kind::EdDsa { point } => {
                UnparsedPublicKey::new(&ED25519, point).verify(text, signature).is_ok()
            }
        }
    }
}

/// A set of keys as it is published. Of others than those that are understood, nothing is wanted.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Published>,
}

#[derive(Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Published {
    fn key(self) -> Option<Key> {
        if self.r#use.is_some_and(|it| it != "sig") {
            return None;
        }
        let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let kind = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Kind::Rs256 { n: bytes(self.n)?, e: bytes(self.e)? },
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(self.x)?, bytes(self.y)?);
                Kind::Es256 { point: [&[4], &*x, &*y].concat() }
            }
            ("OKP", Some("Ed25519")) => Kind::EdDsa { point: bytes(self.x)? },
            _ => return None,
        };
        let key = Key { id: self.kid, kind };
        let is_meant = self.alg.is_none_or(|it| it == key.algorithm());
        is_meant.then_some(key)
    }
}

fn parse(text: &[u8]) -> Result<Arc<[Key]>, KeysError> {
    let Set { keys } = serde_json::from_slice(text).map_err(|_| KeysError::NoSet)?;
    Ok(keys.into_iter().filter_map(Published::key).collect())
}

/// Why the keys of an issuer cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The issuer does not answer.
    #[error("cannot read them")]
    Http(#[from] reqwest::Error),
    /// The file cannot be read.
    #[error("cannot read them")]
    File(#[from] std::io::Error),
    /// They are too many.
    #[error("there are more than {SET_BYTES_MAX} bytes of them")]
    TooLong,
    /// They could not be read a moment ago.
    #[error("they could not be read a moment ago")]
    Lately,
    /// They are something else.
    #[error("they are no JSON Web Key Set")]
    NoSet,
}

/// The keys that are known, and when they were asked for.
#[derive(Debug, Default)]
pub struct Keys {
    known: Mutex<Known>,
    /// The question that is under way, which the next goes on with if whoever has asked leaves: else
    /// they could have the issuer asked as often as they like.
    asking: tokio::sync::Mutex<Option<Question>>,
}

/// A question to an issuer.
struct Question {
    /// Whose keys it is about.
    of: String,
    began: Instant,
    answer: BoxFuture<'static, Result<(), KeysError>>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("of", &self.of).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// Whose: a URL or a path.
    of: String,
    keys: Arc<[Key]>,
    read: Option<Instant>,
    asked: Option<Instant>,
}

impl Keys {
    /// The keys that a token may mean, of those at a URL or path. Asks for them where none is known,
    /// or they are old, but not all the time. Those that are a little old are good while they are
    /// asked for, so that nobody waits for an issuer that is away.
    ///
    /// # Errors
    /// There are none, since they cannot be read.
    pub async fn find(
        self: &Arc<Self>,
        of: &str,
        algorithm: &str,
        id: Option<&str>,
    ) -> Result<Vec<Key>, KeysError> {
        let among = |known: &Known| -> Vec<Key> {
            known.keys.iter().filter(|key| key.is(algorithm, id)).cloned().collect()
        };
        let known = self.known(of);
        let found = among(&known);
        let is_younger = |age| known.read.is_some_and(|read| read.elapsed() < age);
        if !found.is_empty() && is_younger(2 * FRESH) {
            if !is_younger(FRESH)
                && let Ok(mut asking) = self.asking.try_lock()
            {
                // One of those who ask meanwhile waits for a moment, so that it comes on.
                if timeout(MOMENT, self.question(&mut asking, of)).await.is_ok() {
                    *asking = None;
                }
            }
            return Ok(found);
        }
        match self.ask(of).await {
            Ok(()) => Ok(among(&self.known(of))),
            Err(error) if known.read.is_none() => Err(error),
            Err(_) => Ok(found),
        }
    }

    /// What is known of these keys.
    fn known(&self, of: &str) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.of != of {
            *known = Known { of: of.to_owned(), ..Known::default() };
        }
        known.clone()
    }

    /// Waits for the question that is under way, or for a new one.
    async fn ask(self: &Arc<Self>, of: &str) -> Result<(), KeysError> {
        let mut asking = self.asking.lock().await;
        let asked = self.question(&mut asking, of).await;
        *asking = None;
        asked
    }

    fn question<'a>(
        self: &Arc<Self>,
        asking: &'a mut Option<Question>,
        of: &str,
    ) -> &'a mut BoxFuture<'static, Result<(), KeysError>> {
        // One that was left for so long has failed by now, and that says nothing of the issuer.
        asking.take_if(|known| known.of != of || known.began.elapsed() >= ANSWER_MAX);
        let question = asking.get_or_insert_with(|| {
            let (keys, whose) = (self.clone(), of.to_owned());
            let answer = async move { keys.ask_now(&whose).await }.boxed();
            Question { of: of.to_owned(), began: Instant::now(), answer }
        });
        &mut question.answer
    }

    /// Reads the keys, unless that was tried a moment ago.
    async fn ask_now(&self, of: &str) -> Result<(), KeysError> {
        let known = self.known(of);
        if known.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return known.read.map(drop).ok_or(KeysError::Lately);
        }
        let read = read(of).await.and_then(|text| parse(&text));
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.of != of {
            // Others are meant by now.
            return Err(KeysError::Lately);
        }
        known.asked = Some(now);
        match read {
            Ok(keys) => {
                (known.keys, known.read) = (keys, Some(now));
                Ok(())
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, jwks = of, "the keys of `admin.jwt` cannot be had");
                Err(error)
            }
        }
    }
}

async fn read(of: &str) -> Result<Vec<u8>, KeysError> {
    if !of.contains("://") {
        let text = tokio::fs::read(of).await?;
        return if text.len() > SET_BYTES_MAX { Err(KeysError::TooLong) } else { Ok(text) };
    }
    let client = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        // Another place is not the one that was configured, and perhaps not one with TLS.
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let mut answer = client.get(of).send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(more) = answer.chunk().await? {
        text.extend_from_slice(&more);
        if text.len() > SET_BYTES_MAX {
            return Err(KeysError::TooLong);
        }
    }
    Ok(text)
}
