use axum::{Router, http::HeaderMap, routing::get};
use clap::Parser;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::cli::paint::Paint;

#[derive(Debug, Parser)]
struct Wrap {
    #[command(flatten)]
    remote: Remote,
}

fn remote(args: &[&str]) -> Remote {
    Wrap::try_parse_from([&["x"], args].concat()).unwrap().remote
}

/// A daemon that tells this and is then silent, or gone.
async fn told(text: &'static str, is_gone: bool) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let mut request = [0; 4_096];
        assert!(connection.read(&mut request).await.unwrap() > 0);
        connection.write_all([head, text].concat().as_bytes()).await.unwrap();
        while !is_gone && connection.read(&mut request).await.is_ok_and(|count| count > 0) {}
    });
    (format!("http://{address}"), serving)
}

/// A daemon that answers the path `/WORD` as its word says: where it is, for as long as its task
/// is kept.
async fn daemon() -> (String, JoinSet<()>) {
    let refuse = |status: u16, detail: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = Refusal::new(status, "no", detail);
        get(async move || refusal)
    };
    let router = Router::new()
        .route("/well", get(async || "\"well\""))
        .route("/unauthorized", refuse(401, "show a certificate of an authority."))
        .route(
            "/forbidden",
            refuse(403, "this needs the role `operator`\u{1b}, and me has `viewer`"),
        )
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
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), serving)
}

#[tokio::test]
async fn whatever_is_wrong_is_said_with_what_to_do() {
    let (url, _serving) = daemon().await;
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
    let (url, _serving) = daemon().await;
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

#[tokio::test]
async fn what_is_cut_short_is_an_error_and_what_is_silent_is_gone() {
    let tail = async |url: &str| {
        let asked = crate::cli::tail::Tail::of(remote(&["--url", url]));
        let mut out = Vec::new();
        let done = crate::cli::tail::tail(&asked, Paint::Plain, &mut out).await;
        (String::from_utf8(out).unwrap(), done.map_err(|failure| failure.to_string()))
    };
    let event = "data: {\"source\":\"orders\",\"event\":{\"id\":\"7\"},\"taken\":[]}\n\n";
    let (url, _serving) = told(event, true).await;
    let (printed, done) = tail(&url).await;
    assert_eq!(printed, "orders -> no route  7\n");
    insta::assert_snapshot!(done.unwrap_err().replace(&url, "URL"));
    let (url, _serving) = told("event: end\ndata: {\"why\":\"max\"}\n\n", true).await;
    assert_eq!(tail(&url).await, ("ended: max\n".to_owned(), Ok(true)));
    let (url, _serving) = told("", false).await;
    let remote = remote(&["--url", &url]);
    let mut answer = remote.listen(&["tap"], &[]).await.unwrap();
    let silent = remote.next(&mut answer, Duration::from_millis(20)).await;
    insta::assert_snapshot!(silent.unwrap_err().to_string().replace(&url, "URL"));
}

#[tokio::test]
async fn a_file_of_an_authority_that_holds_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let path = file.to_str().unwrap();
    let mut texts = Vec::new();
    let asked = async |args: &[&str]| {
        let remote = remote(&[&["--url", "https://127.0.0.1:1"], args].concat());
        remote.get::<String>(&["well"]).await.unwrap_err().to_string()
    };
    texts.push(asked(&["--ca", path]).await);
    std::fs::write(&file, "nothing").unwrap();
    texts.push(asked(&["--ca", path]).await);
    texts.push(asked(&["--cert", path, "--key", path]).await);
    insta::assert_snapshot!(texts.join("\n").replace(path, "FILE"));
    assert!(Wrap::try_parse_from(["x", "--cert", path]).is_err(), "it takes a key as well");
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
