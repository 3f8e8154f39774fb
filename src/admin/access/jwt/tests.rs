use std::{
    io::Write as _,
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256,
    },
};
use axum::{Router, routing::get};
use serde_json::json;

use super::*;
use crate::admin::setting::Jwt;

/// An issuer with a key.
enum Issuer {
    Rs256(Box<RsaKeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn all() -> [Self; 3] {
        [
            Self::Rs256(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
            Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Self::ed25519(),
        ]
    }

    fn ed25519() -> Self {
        Self::EdDsa(Ed25519KeyPair::generate().unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn published(&self, id: &str) -> Json {
        let mut key = match self {
            Self::Rs256(key) => {
                // A sequence of two numbers, in DER: 2048 bits with a zero before them, and 65537.
                let der = key.public_key().as_ref();
                let at = der.len() - 5 - 256;
                json!({ "kty": "RSA", "n": text(&der[at..at + 256]), "e": "AQAB" })
            }
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
            Self::EdDsa(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key()) })
            }
        };
        key["kid"] = json!(id);
        key
    }

    fn sign(&self, head: &Json, claims: &Json) -> String {
        let signed = format!("{}.{}", text(head.to_string()), text(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let done = key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature);
                done.unwrap();
                signature
            }
            Self::Es256(key) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", text(signature))
    }

    fn token(&self, claims: &Json) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "kid": "k" }), claims)
    }
}

fn set(keys: &[Json]) -> String {
    json!({ "keys": keys }).to_string()
}

fn file(keys: &[Json]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(set(keys).as_bytes()).unwrap();
    file
}

fn setting(jwks: impl Into<String>) -> Jwt {
    Jwt {
        issuer: "https://issuer".to_owned(),
        audience: "eventferry".to_owned(),
        jwks: jwks.into(),
        role_claim: "role".to_owned(),
        routes_claim: None,
    }
}

fn of_file(file: &tempfile::NamedTempFile) -> Jwt {
    setting(file.path().to_str().unwrap())
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn claims() -> Json {
    json!({
        "iss": "https://issuer", "aud": "eventferry", "sub": "alice", "exp": now() + 600,
        "role": "operator",
    })
}

fn with(name: &str, value: Json) -> Json {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[tokio::test]
async fn who_an_issuer_vouches_for_is_known_by_each_algorithm() {
    for issuer in Issuer::all() {
        let file = file(&[issuer.published("other"), issuer.published("k")]);
        let (jwt, keys) = (of_file(&file), Arc::new(Keys::default()));
        let (known, until) = caller(&jwt, &keys, &issuer.token(&claims())).await.unwrap();
        assert_eq!((&*known.name, known.by, known.role), ("alice", Way::Jwt, Role::Operator));
        assert_eq!(known.routes, None);
        assert!(until.is_some_and(|until| until > OffsetDateTime::now_utc()));
        let without_id = issuer.sign(&json!({ "alg": issuer.algorithm() }), &claims());
        assert!(caller(&jwt, &keys, &without_id).await.is_ok());
    }
}

#[tokio::test]
async fn what_no_issuer_has_signed_in_this_form_is_nobodys() {
    let issuer = Issuer::ed25519();
    let file = file(&[issuer.published("k")]);
    let (jwt, keys) = (of_file(&file), Arc::new(Keys::default()));
    let good = issuer.token(&claims());
    assert!(caller(&jwt, &keys, &good).await.is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = signed.split_once('.').unwrap();
    let none = text(r#"{"alg":"none"}"#);
    let hmac = text(r#"{"alg":"HS256","kid":"k"}"#);
    let forged = text(with("role", json!("admin")).to_string());
    let key = |alg: &str, id: &str| json!({ "alg": alg, "kid": id });
    let long = with("padding", json!("x".repeat(BYTES_MAX)));
    let wrong = [
        ("no signature", format!("{signed}.")),
        ("none", format!("{none}.{body}.")),
        ("none, signed", format!("{none}.{body}.{signature}")),
        ("an algorithm of another kind", format!("{hmac}.{body}.{signature}")),
        ("another algorithm", issuer.sign(&key("ES256", "k"), &claims())),
        ("an unknown key", issuer.sign(&key("EdDSA", "?"), &claims())),
        ("another issuer's key", Issuer::ed25519().token(&claims())),
        ("claims of another", format!("{head}.{forged}.{signature}")),
        (
            "critical",
            issuer.sign(&json!({ "alg": "EdDSA", "kid": "k", "crit": ["b64"] }), &claims()),
        ),
        ("issuer", issuer.token(&with("iss", json!("https://other")))),
        ("audience", issuer.token(&with("aud", json!(["other"])))),
        ("expired", issuer.token(&with("exp", json!(now() - 60)))),
        ("not yet", issuer.token(&with("nbf", json!(now() + 60)))),
        ("endless", issuer.token(&with("exp", Json::Null))),
        ("nobody", issuer.token(&with("sub", json!("")))),
        ("too long", issuer.token(&long)),
        ("a number", issuer.token(&json!(1))),
        ("text", "a.b.c".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, token) in wrong {
        let refused = caller(&jwt, &keys, &token).await;
        assert_eq!(refused.map_err(|it| it.status).err(), Some(401), "{what}");
    }
}

#[tokio::test]
async fn role_and_routes_come_from_the_claims_that_the_file_names() {
    let issuer = Issuer::ed25519();
    let file = file(&[issuer.published("k")]);
    let keys = Arc::new(Keys::default());
    let mut jwt = of_file(&file);
    jwt.role_claim = "access.roles".to_owned();
    jwt.routes_claim = Some("routes".to_owned());
    let ask = async |claims: Json| caller(&jwt, &keys, &issuer.token(&claims)).await;
    let refused = ask(claims()).await.unwrap_err();
    assert_eq!(refused.status, 403, "no role");
    assert!(refused.detail.contains("access.roles"), "{}", refused.detail);

    let roles = json!({ "roles": ["x", "admin", "viewer"] });
    let (known, _) = ask(with("access", roles.clone())).await.unwrap();
    assert_eq!(known.role, Role::Admin, "the highest");
    assert_eq!(known.routes, Some([].into()), "a token that names no route has none");
    let mut claims = with("access", roles);
    for (claimed, routes) in [
        (json!(["a", "b"]), Some(["a".into(), "b".into()].into())),
        (json!("a b"), Some(["a".into(), "b".into()].into())),
        (json!(["*"]), None),
    ] {
        claims["routes"] = claimed;
        assert_eq!(ask(claims.clone()).await.unwrap().0.routes, routes);
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_is_asked_for_an_unknown_key_once_a_minute_and_no_more() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (first, second) = (Issuer::ed25519(), Issuer::ed25519());
    let sets = [set(&[first.published("k")]), set(&[second.published("k2")])];
    let answer = move || {
        let asked = ASKED.fetch_add(1, Ordering::SeqCst);
        std::future::ready(sets[asked.min(1)].clone())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwt = setting(format!("http://{}/keys", listener.local_addr().unwrap()));
    let mut serving = tokio::task::JoinSet::new();
    let router = Router::new().route("/keys", get(answer));
    serving.spawn(async move { axum::serve(listener, router).await });

    let keys = Arc::new(Keys::default());
    let asked = || ASKED.load(Ordering::SeqCst);
    assert!(caller(&jwt, &keys, &first.token(&claims())).await.is_ok());
    let renewed = second.sign(&json!({ "alg": "EdDSA", "kid": "k2" }), &claims());
    for _ in 0..100 {
        assert_eq!(caller(&jwt, &keys, &renewed).await.map_err(|it| it.status).err(), Some(401));
    }
    assert_eq!(asked(), 1, "not for each of them");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    assert!(caller(&jwt, &keys, &renewed).await.is_ok());
    assert_eq!(asked(), 2);
    let refused = caller(&jwt, &keys, &first.token(&claims())).await;
    assert_eq!(refused.map_err(|it| it.status).err(), Some(401), "its key is published no more");
    serving.abort_all();
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_cannot_have_an_issuer_asked_again_and_again() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static ANSWERS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);
    let issuer = Issuer::ed25519();
    let published = set(&[issuer.published("k")]);
    let answer = async move || {
        ASKED.fetch_add(1, Ordering::SeqCst);
        ANSWERS.acquire().await.unwrap().forget();
        published
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwt = setting(format!("http://{}/keys", listener.local_addr().unwrap()));
    let mut serving = tokio::task::JoinSet::new();
    let router = Router::new().route("/keys", get(answer));
    serving.spawn(async move { axum::serve(listener, router).await });
    let (keys, token) = (Arc::new(Keys::default()), issuer.token(&claims()));
    for _ in 0..10 {
        let moment = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(moment, caller(&jwt, &keys, &token)).await.is_err());
    }
    assert_eq!(ASKED.load(Ordering::SeqCst), 1);
    // What they have left behind is not held against the issuer.
    tokio::time::advance(std::time::Duration::from_secs(15)).await;
    ANSWERS.add_permits(2);
    assert!(caller(&jwt, &keys, &token).await.is_ok());
    assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    serving.abort_all();
}

#[tokio::test]
async fn keys_that_cannot_be_had_make_nobody_known() {
    let issuer = Issuer::ed25519();
    let (jwt, keys) = (setting("/nowhere/keys.json"), Arc::new(Keys::default()));
    for _ in 0..2 {
        let refused = caller(&jwt, &keys, &issuer.token(&claims())).await.unwrap_err();
        assert_eq!(refused.status, 503);
        assert!(!refused.detail.contains("nowhere"), "{}", refused.detail);
    }
}
