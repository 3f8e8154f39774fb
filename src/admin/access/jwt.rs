//! Tokens that an issuer has signed (RFC 7519), as compact JWS (RFC 7515). The key says by which
//! algorithm one is verified, so that no token can ask for a weaker one, or for none. Signatures
//! are verified by the library that TLS has; the crates for these tokens bring it twice, and
//! algorithms that are not wanted.

use std::sync::Arc;

use axum::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value as Json;
use time::{Duration, OffsetDateTime};

use super::{Caller, Until, Way, forbidden, keys::Keys, unknown};
use crate::admin::{answer::Refusal, endpoint::Role, setting::Jwt};

/// How far the clocks of issuer and daemon may be apart.
const LEEWAY: Duration = Duration::seconds(30);
/// More than any issuer puts into one, and less than the bound on headers.
const BYTES_MAX: usize = 16 << 10;
/// Of the name that the audit log has.
const NAME_CHARS_MAX: usize = 256;

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood. None is.
    crit: Option<Json>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: OneOrMany,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    #[serde(flatten)]
    others: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

/// Who has this token, and until when.
///
/// # Errors
/// Nobody, or nobody who may do anything; or it cannot be said now.
pub(super) async fn caller(
    jwt: &Jwt,
    keys: &Arc<Keys>,
    token: &str,
) -> Result<(Caller, Until), Refusal> {
    let invalid = || unknown("nobody has this token, or nobody has it any more");
    let Signed { head, claims, text, signature } = Signed::split(token).ok_or_else(invalid)?;
    let keys = keys.find(&jwt.jwks, &head.alg, head.kid.as_deref()).await.map_err(|_| {
        let text = "the keys by which tokens are verified cannot be had now; try again";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
    })?;
    if !keys.iter().any(|key| key.has_signed(text.as_bytes(), &signature)) {
        return Err(invalid());
    }
    // Only now is anything of it to be believed.
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| invalid())?;
    let ends = claims.check(jwt, OffsetDateTime::now_utc()).ok_or_else(invalid)?;
    let others = &claims.others;
    let Some(role) = claim(others, &jwt.role_claim).and_then(role) else {
        return Err(forbidden(format!(
            "the token has no role: its claim `{}` should be `viewer`, `operator` or `admin`",
            jwt.role_claim
        )));
    };
    let routes = match jwt.routes_claim.as_ref().map(|name| claim(others, name)) {
        None => None,
        Some(claimed) => {
            let names: Vec<&str> = claimed.map(texts).unwrap_or_default();
            (!names.contains(&"*")).then(|| names.into_iter().map(Into::into).collect())
        }
    };
    let name: String = claims.sub.chars().take(NAME_CHARS_MAX).collect();
    Ok((Caller { name: name.into(), by: Way::Jwt, role, routes }, Some(ends)))
}

/// A token in its parts, of which nothing is verified.
struct Signed<'a> {
    head: Head,
    claims: Vec<u8>,
    /// What is signed.
    text: &'a str,
    signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    fn split(token: &'a str) -> Option<Self> {
        if token.len() > BYTES_MAX {
            return None;
        }
        let (text, signature) = token.rsplit_once('.')?;
        let (head, claims) = text.split_once('.')?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let head: Head = serde_json::from_slice(&bytes(head)?).ok()?;
        if head.crit.is_some() {
            return None;
        }
        Some(Self { head, claims: bytes(claims)?, text, signature: bytes(signature)? })
    }
}

impl Claims {
    /// When it ends, if it is what it should be and it is its time.
    fn check(&self, jwt: &Jwt, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let moment = |seconds: f64| OffsetDateTime::from_unix_timestamp(seconds as i64).ok();
        let ends = moment(self.exp)?;
        let begins = self.nbf.map(moment).unwrap_or(Some(now))?;
        let is_ours = self.iss == jwt.issuer && self.aud.has(&jwt.audience);
        let is_now = now < ends.saturating_add(LEEWAY) && begins.saturating_sub(LEEWAY) <= now;
        (is_ours && is_now && !self.sub.is_empty()).then(|| ends.saturating_add(LEEWAY))
    }
}

/// The claim of this name; else, where the name has dots, that within others.
fn claim<'a>(claims: &'a serde_json::Map<String, Json>, name: &str) -> Option<&'a Json> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        claim(claims.get(first)?.as_object()?, rest)
    })
}

/// The texts of a claim: of a list, or parted by spaces.
fn texts(claim: &Json) -> Vec<&str> {
    match claim {
        Json::Array(list) => list.iter().filter_map(Json::as_str).collect(),
        Json::String(text) => text.split_whitespace().collect(),
        _ => Vec::new(),
    }
}

/// The highest role that a claim names.
fn role(claim: &Json) -> Option<Role> {
    let named = |role: &Role| texts(claim).contains(&role.as_str());
    Role::ALL.into_iter().rev().find(named)
}

#[cfg(test)]
mod tests;
