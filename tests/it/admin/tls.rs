//! The listener with TLS: certificates of its own that are renewed, and those of whoever asks.

use std::fs;

use reqwest::{Certificate, Identity};

use super::*;

/// An authority in a directory, which signs by the `openssl` of the machine.
struct Authority<'d> {
    dir: &'d Path,
    name: &'static str,
}

impl<'d> Authority<'d> {
    fn new(dir: &'d Path, name: &'static str) -> Self {
        let authority = Self { dir, name };
        authority.make(name, &["-addext", "keyUsage=keyCertSign"]);
        authority
    }

    /// A key and a certificate, `NAME.key` and `NAME.pem`.
    fn make(&self, name: &str, options: &[&str]) {
        let done = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(options)
            .current_dir(self.dir)
            .output()
            .expect("openssl makes the certificates of this test");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// One of somebody with this alternative name.
    fn sign(&self, name: &str, alternative: &str) {
        let (certificate, key) = (format!("{}.pem", self.name), format!("{}.key", self.name));
        let alternative = format!("subjectAltName={alternative}");
        let not = "basicConstraints=critical,CA:FALSE";
        let options = ["-CA", &certificate, "-CAkey", &key, "-addext", &alternative];
        self.make(name, &[&options[..], &["-addext", not]].concat());
    }
}

fn certificate(dir: &Path, name: &str) -> Certificate {
    Certificate::from_pem(&fs::read(dir.join(format!("{name}.pem"))).unwrap()).unwrap()
}

/// Somebody who trusts the authority, and has the certificate of this name, if any.
fn client(dir: &Path, name: Option<&str>) -> Client {
    let mut client = Client::builder().tls_certs_only([certificate(dir, "ours")]);
    if let Some(name) = name {
        let part = |ending: &str| fs::read(dir.join(format!("{name}.{ending}"))).unwrap();
        let identity = [part("key"), part("pem")].concat();
        client = client.identity(Identity::from_pem(&identity).unwrap());
    }
    client.build().unwrap()
}

/// A directory with all certificates, since a client has to have them before there is a daemon.
fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new(dir.path(), "ours");
    ours.sign("server", "IP:127.0.0.1");
    ours.sign("ops", "DNS:ops.example.com");
    ours.sign("robot", "URI:spiffe://example.com/robot");
    ours.sign("stranger", "DNS:stranger.example.com");
    Authority::new(dir.path(), "theirs").sign("forger", "DNS:ops.example.com");
    dir
}

fn copy(from: &Path, to: &Path) {
    for name in ["server.pem", "server.key", "ours.pem"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn admin() -> Json {
    json!({
        "tls": { "certificate": "server.pem", "key": "server.key", "clients": "ours.pem" },
        "tokens": [somebody("admin", "admin")],
        "certificates": [
            { "name": "ops.example.com", "role": "operator" },
            { "name": "spiffe://example.com/robot", "role": "viewer" },
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_who_asks_and_without_one_nothing_but_health_is_told() {
    let certificates = certificates();
    let dir = certificates.path();
    let daemon = Daemon::with(two_ways(admin()), client(dir, None), |to| copy(dir, to)).await;
    let ask = async |name: Option<&str>, method: Method, path: &str, token: Option<&str>| {
        let mut request = client(dir, name).request(method, format!("{}{path}", daemon.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.map(|it| it.status().as_u16())
    };
    let (admin, get) = (token("admin"), || Method::GET);
    // Probes have none.
    assert_eq!(ask(None, get(), "/livez", None).await.unwrap(), 200);
    assert_eq!(ask(None, get(), "/metrics", None).await.unwrap(), 200);
    assert_eq!(ask(None, get(), "/status", None).await.unwrap(), 401);
    assert_eq!(ask(None, get(), "/status", Some(&admin)).await.unwrap(), 401, "a token alone");
    assert_eq!(ask(Some("ops"), get(), "/status", None).await.unwrap(), 200);
    assert_eq!(ask(Some("ops"), get(), "/audit", None).await.unwrap(), 403);
    assert_eq!(ask(Some("ops"), get(), "/audit", Some(&admin)).await.unwrap(), 200, "both");
    assert_eq!(ask(Some("ops"), get(), "/status", Some("wrong")).await.unwrap(), 401);
    assert_eq!(ask(Some("robot"), get(), "/status", None).await.unwrap(), 200);
    assert_eq!(ask(Some("robot"), Method::POST, "/reload", None).await.unwrap(), 403);
    assert_eq!(ask(Some("stranger"), get(), "/status", None).await.unwrap(), 401);
    assert_eq!(ask(Some("stranger"), get(), "/status", Some(&admin)).await.unwrap(), 200);
    assert!(ask(Some("forger"), get(), "/livez", None).await.is_err(), "of another authority");
    // A browser shows a certificate with whatever a page sends.
    let foreign = client(dir, Some("ops"))
        .post(format!("{}/reload", daemon.url))
        .header("origin", "https://example.com");
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(reqwest::get(daemon.url.replace("https", "http")).await.is_err(), "plain HTTP");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_trusts_an_authority_that_is_named_and_shows_a_certificate() {
    let certificates = certificates();
    let dir = certificates.path();
    let daemon = Daemon::with(two_ways(admin()), client(dir, None), |to| copy(dir, to)).await;
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let status = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eventferry"));
        command.args(["status", "--url", &daemon.url]).args(args).env_remove("EVENTFERRY_TOKEN");
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (ca, cert, key) = (path("ours.pem"), path("robot.pem"), path("robot.key"));
    let all = ["--ca", ca.as_str(), "--cert", &cert, "--key", &key];
    let until = Instant::now() + PATIENCE;
    while !status(&all).0 {
        assert!(Instant::now() < until, "{:?}", status(&all));
        sleep(std::time::Duration::from_millis(50)).await;
    }
    let (.., told, _) = status(&all);
    assert!(told.starts_with("ready, "), "{told}");
    let (is_done, _, said) = status(&all[2..]);
    assert!(!is_done && said.contains("not trusted") && said.contains("--ca"), "{said}");
    let (is_done, _, said) = status(&all[..2]);
    let wants = "show a certificate of an authority of `admin.tls.clients`";
    assert!(!is_done && said.contains(wants) && said.contains("--cert"), "{said}");
    // Nobody reads what is printed.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventferry"));
    command.args(["status", "--url", &daemon.url]).args(all).stdout(writer);
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let certificates = certificates();
    let dir = certificates.path();
    let daemon = Daemon::with(two_ways(admin()), client(dir, None), |to| copy(dir, to)).await;
    let here = daemon.dir.path();
    fs::write(here.join("server.pem"), "nothing").unwrap();
    let until = Instant::now() + PATIENCE;
    while !daemon.log().contains("cannot be used, the old ones stay") {
        assert!(client(dir, None).get(format!("{}/livez", daemon.url)).send().await.is_ok());
        assert!(Instant::now() < until, "not looked at; log: {}", daemon.log());
        sleep(std::time::Duration::from_millis(200)).await;
    }
    // Of an authority that the client does not trust: it is refused as soon as it is shown.
    for (from, to) in [("forger.pem", "server.pem"), ("forger.key", "server.key")] {
        fs::copy(dir.join(from), here.join(to)).unwrap();
    }
    while client(dir, None).get(format!("{}/livez", daemon.url)).send().await.is_ok() {
        assert!(Instant::now() < until, "not renewed; log: {}", daemon.log());
        sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(daemon.log().contains("the certificates of the admin API have changed"));
}

#[test]
fn certificates_that_cannot_be_used_end_it_at_start_with_the_file_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = two_ways(admin());
    config["admin"]["listen"] = json!("127.0.0.1:0");
    let file = dir.path().join("daemon.yaml");
    fs::write(&file, config.to_string()).unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eventferry"));
        command.args(["run", "--config"]).arg(&file).current_dir(dir.path());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run();
    assert!(said.contains("`admin.tls`: cannot read server.pem"), "{said}");
    for name in ["server.pem", "server.key", "ours.pem"] {
        fs::write(dir.path().join(name), "nothing").unwrap();
    }
    let said = run();
    assert!(said.contains("`admin.tls`: ours.pem: no certificate is in it"), "{said}");
}
