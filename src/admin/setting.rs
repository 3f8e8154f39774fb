//! `admin` in the file: where the API listens, who may ask it, and how.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{access::token::Hash, endpoint::Role};
use crate::config::{names::Names, problem::Finding};

/// Whether the API is served, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// It is not.
    Off,
    /// By this listener.
    On(Box<Listener>),
}

/// The listener of the admin API: where it is, who may ask it, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// Its address and port.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Who may ask by a token of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// Whose tokens are believed beside those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// How it proves who it is; without, it speaks plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who may ask by a certificate alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// What everybody may read, beside `/livez` and `/readyz`.
    pub open: BTreeSet<Open>,
}

/// Somebody with a token, of which the file has the hash alone. `eventferry token` makes both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminToken")]
pub struct Token {
    /// Their name in the audit log.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The SHA-256 of the token, in 64 hexadecimal digits.
    pub sha256: Hash,
    /// The routes that they may see and do it with; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Names>,
}

/// Tokens that an issuer signs (RFC 7519), with RS256, ES256 or EdDSA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminJwt")]
pub struct Jwt {
    /// Who has to have signed them: their `iss`.
    pub issuer: String,
    /// Whom they have to be meant for: one of their `aud`.
    pub audience: String,
    /// The issuer's public keys, as a JSON Web Key Set: an `https://` URL or the path of a file.
    pub jwks: String,
    /// The claim that has the role: `viewer`, `operator` or `admin`, or a list with one of them.
    /// Dots go into a claim that has others.
    #[serde(default = "default_role_claim")]
    pub role_claim: String,
    /// The claim that has the routes that they may see and do it with: a list of names, or `*` for
    /// all. Without this setting: all. With it, tokens without the claim may see no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes_claim: Option<String>,
}

fn default_role_claim() -> String {
    "role".to_owned()
}

/// Certificates, all of them in PEM. The files are read again when they have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminTls")]
pub struct Tls {
    /// The path of its certificate, followed by those that lead to its authority.
    pub certificate: PathBuf,
    /// The path of its private key.
    pub key: PathBuf,
    /// The path of the authorities of those who ask. With it, nobody without a certificate of theirs
    /// is answered more than is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<PathBuf>,
}

/// Somebody with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminCertificate")]
pub struct Certificate {
    /// One of its alternative names: of a host (`ops.example.com`) or a URI
    /// (`spiffe://example.com/ops`).
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The routes that they may see and do it with; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Names>,
}

/// What may be open to everybody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// `/metrics`.
    Metrics,
}

impl Open {
    /// The name of its endpoint.
    #[must_use]
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
        }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tokens: Vec::new(),
            jwt: None,
            tls: None,
            certificates: Vec::new(),
            open: BTreeSet::from([Open::Metrics]),
        }
    }
}

impl Listener {
    /// Whether it knows who asks.
    #[must_use]
    pub fn has_callers(&self) -> bool {
        !self.tokens.is_empty() || self.jwt.is_some() || !self.certificates.is_empty()
    }

    /// Whether nobody may do more than read what is open: it is there for others than this machine,
    /// and does not know who asks.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        !self.has_callers() && !self.listen.ip().is_loopback()
    }

    /// What is wrong with it, in a file that has these routes.
    #[must_use]
    pub fn findings(&self, routes: &BTreeSet<&str>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut names = BTreeMap::new();
        let mut hashes = BTreeMap::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let mut found = |field: &str, text: String| {
                let finding = Finding::new(text).below(field);
                findings.push(finding.below_item(index).below("tokens"));
            };
            if token.name.is_empty() {
                found("name", "it is what the audit log calls them; it cannot be empty".to_owned());
            }
            if let Some(first) = names.insert(&token.name, index) {
                let text = format!("tokens[{first}] has this name; give each its own");
                found("name", text);
            }
            if let Some(first) = hashes.insert(&token.sha256, index) {
                let text =
                    format!("tokens[{first}] is the same token; make one with `eventferry token`");
                found("sha256", text);
            }
        }
        let limits = |kind: &'static str, at: usize, limit: &Option<Names>| -> Vec<Finding> {
            let named = limit.iter().flat_map(|limit| limit.0.iter().enumerate());
            let lost = named.filter(|(_, name)| !routes.contains(name.as_str()));
            let tell = |(place, name): (usize, &String)| {
                let text =
                    format!("there is no route `{name}`; it is limited to routes of the file");
                Finding::new(text).below_item(place).below("routes").below_item(at).below(kind)
            };
            lost.map(tell).collect()
        };
        for (index, token) in self.tokens.iter().enumerate() {
            findings.extend(limits("tokens", index, &token.routes));
        }
        for (index, certificate) in self.certificates.iter().enumerate() {
            findings.extend(limits("certificates", index, &certificate.routes));
        }
        if !self.certificates.is_empty() && self.tls.as_ref().is_none_or(|it| it.clients.is_none())
        {
            let text = "nobody is asked for a certificate; name their authorities in `tls.clients`";
            findings.push(Finding::new(text).below("certificates"));
        }
        findings.extend(self.jwt.iter().flat_map(Jwt::findings).map(|it| it.below("jwt")));
        findings
    }
}

impl Jwt {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let texts = [
            ("issuer", Some(&self.issuer)),
            ("audience", Some(&self.audience)),
            ("jwks", Some(&self.jwks)),
            ("role_claim", Some(&self.role_claim)),
            ("routes_claim", self.routes_claim.as_ref()),
        ];
        for (name, _) in texts.iter().filter(|(_, text)| text.is_some_and(String::is_empty)) {
            findings.push(Finding::new("it cannot be empty").below(*name));
        }
        if self.jwks.contains("://") && !is_safe(&self.jwks) {
            let text = "keys that come by plain HTTP could be anybody's; write `https://…`, or the \
                        path of a file";
            findings.push(Finding::new(text).below("jwks"));
        }
        findings
    }
}

/// Whether nobody on the way can change what is read there.
fn is_safe(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let is_near = url.host_str().is_some_and(super::access::browser::is_loopback);
    url.scheme() == "https" || (url.scheme() == "http" && is_near)
}

impl Default for Admin {
    fn default() -> Self {
        Self::On(Box::default())
    }
}

impl From<Admin> for Option<Box<Listener>> {
    fn from(admin: Admin) -> Self {
        match admin {
            Admin::Off => None,
            Admin::On(listener) => Some(listener),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` is no address to listen on; write one like `127.0.0.1:8080` or `0.0.0.0:8080`"
        )
    })
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for Admin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AdminVisitor;

        impl<'de> Visitor<'de> for AdminVisitor {
            type Value = Admin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, an address, or the settings of a listener")
            }

            fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<Admin, E> {
                match is_on {
                    true => Ok(Admin::default()),
                    false => Ok(Admin::Off),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Admin, E> {
                if text == "off" {
                    return Ok(Admin::Off);
                }
                let listen = address(text).map_err(E::custom)?;
                Ok(Admin::On(Box::new(Listener { listen, ..Listener::default() })))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Admin, A::Error> {
                let listener = Listener::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Admin::On(Box::new(listener)))
            }
        }

        deserializer.deserialize_any(AdminVisitor)
    }
}

impl Serialize for Admin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(listener) => listener.serialize(serializer),
        }
    }
}

impl JsonSchema for Admin {
    fn schema_name() -> Cow<'static, str> {
        "Admin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`off`, an address to listen on, or the settings of the listener.",
            "oneOf": [{ "type": "string" }, generator.subschema_for::<Listener>()],
        })
    }
}
