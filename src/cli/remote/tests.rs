use axum::{Router, http::HeaderMap, routing::get};
use clap::Parser;
use tokio::net::TcpListener;

use super::*;

#[derive(Debug, Parser)]
struct Wrap {
    #[command(flatten)]
    remote: Remote,
}

fn remote(args: &[&str]) -> Remote {
    Wrap::try_parse_from([&["x"], args].concat()).unwrap().remote
}

/// A daemon that answers the path `/WORD` as its word says; where it is.
async fn daemon() -> String {
    let refuse = |status: u16, detail: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = Refusal::new(status, "no", detail);
        get(async move || refusal)
    };
    let router = Router::new()
        .route("/well", get(async || "\"well\""))
        .route("/unauthorized", refuse(401, "no token"))
        .route("/forbidden", refuse(403, "this needs the role operator."))
        .route("/conflict", refuse(409, "others read it as well"))
        .route("/strange", get(async || "<html>"))
        .route("/lost", get(async || StatusCode::NOT_FOUND))
        .route(
            "/token",
            get(async |headers: HeaderMap| {
                let token = headers.get("authorization").map(|it| it.to_str().unwrap().to_owned());
                axum::Json(token)
            }),
        )
        .route("/a/{name}", get(async |name: axum::extract::Path<String>| axum::Json(name.0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn whatever_is_wrong_is_said_with_what_to_do() {
    let url = daemon().await;
    let remote = remote(&["--url", &url]);
    assert_eq!(remote.get::<String>(&["well"]).await.unwrap(), "well");
    assert_eq!(remote.get::<String>(&["a", "b/c d"]).await.unwrap(), "b/c d");
    let mut texts = Vec::new();
    for path in ["unauthorized", "forbidden", "conflict", "strange", "lost"] {
        let failure = remote.get::<String>(&[path]).await.unwrap_err();
        texts.push(format!("{path}: {failure}"));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let failure = super::tests::remote(&["--url", &away]).get::<String>(&["well"]).await;
    texts.push(format!("away: {}", failure.unwrap_err()));
    let text = texts.join("\n").replace(&url, "URL").replace(&away, "AWAY");
    insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[tokio::test]
async fn a_token_is_read_from_a_file_and_never_shown() {
    let url = daemon().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let path = file.to_str().unwrap().to_owned();
    let asked = async || {
        let remote = remote(&["--url", &url, "--token-file", &path]);
        remote.get::<Option<String>>(&["token"]).await.map_err(|failure| failure.to_string())
    };
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(asked().await, Ok(Some("Bearer s3cret".to_owned())));
    let mut texts = Vec::new();
    for text in ["", "s3\ncret"] {
        std::fs::write(&file, text).unwrap();
        texts.push(asked().await.unwrap_err());
    }
    std::fs::remove_file(&file).unwrap();
    texts.push(asked().await.unwrap_err());
    insta::assert_snapshot!(texts.join("\n").replace(&path, "FILE"));
}

#[test]
fn an_address_that_cannot_be_one_is_refused() {
    let refused = |url: &str| {
        let failed = Wrap::try_parse_from(["x", "--url", url]).unwrap_err().to_string();
        failed.lines().next().unwrap_or_default().to_owned()
    };
    let all = ["nowhere", "ftp://host"].map(refused);
    insta::assert_snapshot!(all.join("\n"));
}

#[tokio::test]
async fn credentials_in_an_address_are_refused_and_not_shown() {
    let remote = remote(&["--url", "http://me:s3cret@127.0.0.1:1"]);
    let failure = remote.get::<String>(&["well"]).await.unwrap_err().to_string();
    assert!(!failure.contains("s3cret"), "{failure}");
    insta::assert_snapshot!(failure);
}
