//! Who may ask what of the admin API: every endpoint there is, by everybody there is, at a real
//! listener of a real daemon.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use eventferry::admin::{access::token::Hash, endpoint::Endpoint, endpoints};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use crate::{canary, clouds::free_port, rig::PATIENCE};

mod audit;
mod tls;

/// A daemon with two ways in memory, killed at the end of its test.
struct Daemon {
    child: Child,
    url: String,
    dir: tempfile::TempDir,
    client: Client,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        canary::look_for_any(&self.dir.path().join("log"));
    }
}

/// A file with two ways: `one` from `a` to `x`, and `two` from `b` to `y`.
fn two_ways(admin: Json) -> Json {
    let memory = |name: &str| json!({ "memory": { "queue": name } });
    json!({
        "admin": admin,
        "reload": "on_request",
        "sources": { "a": memory("a"), "b": memory("b") },
        "sinks": { "x": memory("x"), "y": memory("y"), "parked": memory("parked") },
        "routes": [
            { "name": "one", "from": "a", "to": { "all": ["x"] } },
            { "name": "two", "from": "b", "to": { "all": ["y"] } },
        ],
        "dead_letter": "parked",
    })
}

impl Daemon {
    /// One with this `admin`, whose `listen` is an address that a free port is added to.
    async fn start(admin: Json) -> Self {
        Self::with(two_ways(admin), Client::new(), |_| ()).await
    }

    async fn with(mut config: Json, client: Client, prepare: impl FnOnce(&Path)) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        prepare(dir.path());
        let listen = config["admin"]["listen"].as_str().unwrap_or("127.0.0.1").to_owned();
        config["admin"]["listen"] = json!(format!("{listen}:{port}"));
        let scheme = if config["admin"]["tls"].is_object() { "https" } else { "http" };
        let file = dir.path().join("daemon.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_eventferry"))
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(dir.path())
            .env("CANARY", CANARY)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { child, url: format!("{scheme}://127.0.0.1:{port}"), dir, client };
        let until = Instant::now() + PATIENCE;
        while daemon.ask(Method::GET, "/livez").send().await.is_err() {
            assert!(Instant::now() < until, "does not listen; log: {}", daemon.log());
            sleep(std::time::Duration::from_millis(20)).await;
        }
        daemon
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        self.ask(Method::GET, path).bearer_auth(token).send().await.unwrap()
    }

    /// Writes another file for it to read.
    fn write(&self, mut config: Json) {
        let address = self.url.split("//").nth(1).unwrap();
        config["admin"]["listen"] = json!(address);
        std::fs::write(self.dir.path().join("daemon.yaml"), config.to_string()).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// What a refusal says to do.
async fn detail(answer: Response) -> String {
    let answer: Json = answer.json().await.unwrap();
    answer["detail"].as_str().unwrap().to_owned()
}

/// Somebody with a token, which is their name and some more.
fn somebody(name: &str, role: &str) -> Json {
    json!({ "name": name, "role": role, "sha256": Hash::of(&token(name)) })
}

fn token(name: &str) -> String {
    format!("{name}-and-some-more")
}

fn everybody() -> Json {
    let limited = |name: &str, role: &str| {
        let mut token = somebody(name, role);
        token["routes"] = json!(["one"]);
        token
    };
    json!({
        "open": [],
        "tokens": [
            somebody("viewer", "viewer"),
            somebody("operator", "operator"),
            somebody("admin", "admin"),
            limited("viewer-of-one", "viewer"),
            limited("operator-of-one", "operator"),
            limited("admin-of-one", "admin"),
        ],
    })
}

/// Those who ask, in the order of the columns of [`TABLE`]. The first has no token, the second a
/// wrong one.
const CALLERS: [&str; 8] = [
    "",
    "wrong",
    "viewer",
    "operator",
    "viewer-of-one",
    "operator-of-one",
    "admin-of-one",
    "admin",
];

/// What becomes of each request by each caller: `?` nobody knows who they are (401), `-` they may
/// not (403), `+` it is done, or not for another reason. What ends the daemon comes last.
const TABLE: &[(&str, &str, &str)] = &[
    ("GET", "/", "++++++++"),
    ("GET", "/livez", "++++++++"),
    ("GET", "/readyz", "++++++++"),
    ("GET", "/status", "??++++++"),
    ("GET", "/status/live", "??++++++"),
    ("GET", "/caller", "??++++++"),
    ("GET", "/metrics", "??++---+"),
    ("GET", "/openapi.json", "??++++++"),
    ("GET", "/audit", "??----++"),
    ("GET", "/page/page.css", "++++++++"),
    ("GET", "/history", "??++++++"),
    ("GET", "/errors", "??++++++"),
    ("GET", "/tap", "??++---+"),
    ("GET", "/tap?route=one", "??++++++"),
    ("GET", "/tap?route=one&whole=true", "??----++"),
    ("GET", "/tap?route=two", "??++---+"),
    ("GET", "/traces", "??++---+"),
    ("GET", "/traces?route=one", "??++++++"),
    ("GET", "/traces?route=two", "??++---+"),
    ("GET", "/config", "??++---+"),
    ("GET", "/dead-letters", "??++---+"),
    ("GET", "/dead-letters?route=one", "??++++++"),
    ("GET", "/dead-letters/e-1?route=one", "??++++++"),
    ("GET", "/dead-letters/e-1?route=one&whole=true", "??----++"),
    ("POST", "/dead-letters/redrive", "??-+---+"),
    ("POST", "/dead-letters/discard", "??-----+"),
    ("GET", "/jobs", "??++---+"),
    ("GET", "/jobs/1", "??++---+"),
    ("GET", "/jobs/1/live", "??++---+"),
    ("POST", "/jobs/1/stop", "??-+---+"),
    ("POST", "/reload", "??-+---+"),
    ("GET", "/checkpoints", "??++++++"),
    ("POST", "/sources/a/pause", "??-+-+++"),
    ("POST", "/sources/a/resume", "??-+-+++"),
    ("POST", "/sources/b/pause", "??-+---+"),
    ("POST", "/sources/b/resume", "??-+---+"),
    ("POST", "/sources/none/pause", "??-+---+"),
    ("POST", "/routes/one/pause", "??-+-+++"),
    ("POST", "/routes/one/resume", "??-+-+++"),
    ("POST", "/routes/two/pause", "??-+---+"),
    ("POST", "/routes/two/resume", "??-+---+"),
    ("PUT", "/routes/one/limit", "??-+-+++"),
    ("PUT", "/routes/two/limit", "??-+---+"),
    ("DELETE", "/routes/one/limit", "??-+-+++"),
    ("PUT", "/sinks/x/limit", "??-+-+++"),
    ("PUT", "/sinks/y/limit", "??-+---+"),
    ("PUT", "/sinks/parked/limit", "??-+---+"),
    ("DELETE", "/sinks/x/limit", "??-+-+++"),
    ("POST", "/sinks/x/breaker", "??-+-+++"),
    ("POST", "/sinks/y/breaker", "??-+---+"),
    ("POST", "/sources/a/rewind", "??----++"),
    ("POST", "/sources/b/rewind", "??-----+"),
    ("POST", "/drain", "??-----+"),
];

/// Whether a path is one of an endpoint's.
fn is_of(path: &str, endpoint: &Endpoint) -> bool {
    let path = path.split('?').next().unwrap();
    let (steps, known): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), endpoint.path.split('/').collect());
    let fits = |(step, known): (&&str, &&str)| known.starts_with('{') || step == known;
    steps.len() == known.len() && steps.iter().zip(&known).all(fits)
}

#[test]
fn the_table_has_every_endpoint() {
    for endpoint in endpoints() {
        let is_there = TABLE
            .iter()
            .any(|(method, path, _)| *method == endpoint.method.as_str() && is_of(path, &endpoint));
        assert!(is_there, "who may {} {}?", endpoint.method, endpoint.path);
    }
    assert!(TABLE.len() * CALLERS.len() >= 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let daemon = Daemon::start(everybody()).await;
    let refused = daemon.ask(Method::POST, "/reload").bearer_auth(token("viewer")).send().await;
    let refused = detail(refused.unwrap()).await;
    assert_eq!(refused, "this needs the role `operator`, and viewer has `viewer`");
    for (method, path, expected) in TABLE {
        for (caller, expected) in CALLERS.into_iter().zip(expected.chars()) {
            let mut request = daemon.ask(method.parse().unwrap(), path);
            if !caller.is_empty() {
                request = request.bearer_auth(token(caller));
            }
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let became = match status {
                StatusCode::UNAUTHORIZED => '?',
                StatusCode::FORBIDDEN => '-',
                _ => '+',
            };
            assert_eq!(became, expected, "{method} {path} by `{caller}`: {status}");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers.contains_key("www-authenticate"), became == '?');
            if became != '+' {
                assert_eq!(headers["content-type"], "application/problem+json");
                assert!(!detail(answer).await.contains("-and-some-more"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_does_not_make_a_route_that_drops_drop_more() {
    let mut config = two_ways(everybody());
    config["routes"][1]["rate_limit"] = json!({ "per_second": 100, "over": "drop" });
    let daemon = Daemon::with(config, Client::new(), |_| ()).await;
    let limited = async |who: &str, route: &str| {
        let path = format!("/routes/{route}/limit");
        let asked = daemon.ask(Method::PUT, &path).bearer_auth(token(who));
        asked.json(&json!({ "per_second": 5 })).send().await.unwrap().status().as_u16()
    };
    assert_eq!([limited("operator", "one").await, limited("operator", "two").await], [200, 403]);
    assert_eq!(limited("admin", "two").await, 200);
    // Nor by taking back what let more pass.
    let lifted = async |who: &str, route: &str| {
        let path = format!("/routes/{route}/limit");
        let asked = daemon.ask(Method::DELETE, &path).bearer_auth(token(who));
        asked.send().await.unwrap().status().as_u16()
    };
    assert_eq!([lifted("operator", "one").await, lifted("operator", "two").await], [200, 403]);
    assert_eq!(lifted("admin", "two").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_limited_to_a_route_sees_nothing_of_others() {
    let daemon = Daemon::start(everybody()).await;
    let status: Json = daemon.get("/status", &token("admin-of-one")).await.json().await.unwrap();
    let names = |what: &str| -> Vec<String> {
        let all = status[what].as_array().unwrap().iter();
        all.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names("routes"), names("sources")), (vec!["one".into()], vec!["a".into()]));
    assert!(names("sinks").contains(&"x".into()) && !names("sinks").contains(&"y".into()));
    let mut live = daemon.get("/status/live", &token("viewer-of-one")).await;
    let first = live.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    assert!(first.contains("\"one\"") && !first.contains("\"two\""), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_others_than_its_machine_it_tells_how_it_is_and_no_more() {
    let daemon = Daemon::start(json!({ "listen": "0.0.0.0" })).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = daemon.get(path, "any").await;
        assert_ne!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
    for (method, path, _) in
        TABLE.iter().filter(|(_, path, _)| !["/livez", "/readyz", "/metrics"].contains(path))
    {
        let answer = daemon.ask(method.parse().unwrap(), path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {path}");
        assert!(detail(answer).await.contains("`admin.tokens`"), "{path}");
    }
    let closed = Daemon::start(json!({ "listen": "0.0.0.0", "open": [] })).await;
    let answer = closed.ask(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_somebody_else_cannot_use_who_is_on_its_machine() {
    let daemon = Daemon::start(json!({})).await;
    let own = daemon.url.clone();
    let reload = async |name: &'static str, value: &str| {
        let asked = daemon.ask(Method::POST, "/reload").header(name, value).send().await;
        asked.unwrap().status().as_u16()
    };
    assert_eq!(reload("origin", &own).await, 200);
    assert_eq!(reload("origin", "http://example.com").await, 403);
    assert_eq!(reload("origin", "null").await, 403);
    assert_eq!(reload("sec-fetch-site", "cross-site").await, 403);
    assert_eq!(reload("host", "example.com").await, 403, "a name that was made to point here");
    for (name, value) in [("host", "example.com:8080"), ("sec-fetch-site", "cross-site")] {
        // To look is to receive, and to hold one of a few places.
        for path in ["/status", "/dead-letters", "/tap", "/status/live"] {
            let read = daemon.ask(Method::GET, path).header(name, value).send().await;
            assert_eq!(read.unwrap().status(), StatusCode::FORBIDDEN, "{name} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_token_is_taken_up_by_a_reload_and_the_former_one_ends() {
    let admin = |name: &str| json!({ "tokens": [somebody(name, "admin")] });
    let daemon = Daemon::start(admin("old")).await;
    let mut live = daemon.get("/status/live", &token("old")).await;
    assert!(live.chunk().await.unwrap().is_some());
    daemon.write(two_ways(admin("new")));
    let reload = daemon.ask(Method::POST, "/reload").bearer_auth(token("old")).send().await;
    let told: Json = reload.unwrap().json().await.unwrap();
    assert_eq!((&told["changes"], &told["restarted"]), (&json!(["~ admin"]), &json!([])));
    assert_eq!(daemon.get("/status", &token("old")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(daemon.get("/status", &token("new")).await.status(), StatusCode::OK);
    let ended = async { while live.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("what was open for the old token ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_file_does_not_name_is_read_for_admins_of_all_routes_alone() {
    let daemon = Daemon::start(everybody()).await;
    let wish = json!({ "dry_run": { "queue": "orders" } });
    for caller in ["viewer", "operator", "admin-of-one"] {
        for elsewhere in ["queue=orders", "consumer_group=billing"] {
            let path = format!("/dead-letters?route=one&{elsewhere}");
            assert_eq!(daemon.get(&path, &token(caller)).await.status(), 403, "{caller}");
        }
        let redrive = daemon.ask(Method::POST, "/dead-letters/redrive").bearer_auth(token(caller));
        assert_eq!(redrive.json(&wish).send().await.unwrap().status(), 403, "{caller}");
    }
    let look = daemon.get("/dead-letters?queue=orders", &token("admin")).await;
    assert_ne!(look.status(), 403);
}

/// To look is to receive, and to hide from others: where one's own routes park, and nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_one_route_looks_where_it_parks_and_nowhere_else() {
    let mut config = two_ways(everybody());
    let aws = json!({ "region": "eu-west-1", "endpoint": "http://127.0.0.1:9" });
    config["sinks"]["theirs"] = json!({ "sns": { "topic": "their-letters", "aws": aws } });
    config["routes"][1]["dead_letter"] = json!("theirs");
    let daemon = Daemon::with(config, Client::new(), |_| ()).await;
    // A topic cannot be read, which whoever looks into it is told.
    let all = detail(daemon.get("/dead-letters?route=one", &token("viewer")).await).await;
    assert!(all.contains("their-letters"), "{all}");
    for caller in ["viewer-of-one", "operator-of-one", "admin-of-one"] {
        let mine = daemon.get("/dead-letters?route=one", &token(caller)).await;
        assert_eq!(mine.status(), StatusCode::OK, "{caller}");
        for sink in ["theirs", "their", "x"] {
            let path = format!("/dead-letters?route=one&sink={sink}");
            let refused = daemon.get(&path, &token(caller)).await;
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{caller}: {sink}");
            let said = detail(refused).await;
            assert!(!said.contains("theirs") || sink == "theirs", "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_goes_past_the_steps_of_its_route_for_admins_alone() {
    let daemon = Daemon::start(everybody()).await;
    let straight = async |caller: &str| {
        let wish = json!({ "dry_run": { "to": "x" } });
        let redrive = daemon.ask(Method::POST, "/dead-letters/redrive").bearer_auth(token(caller));
        redrive.json(&wish).send().await.unwrap().status()
    };
    assert_eq!(straight("operator").await, 403);
    // Nor may they confirm what an admin has asked for.
    assert_eq!(straight("admin").await, 202);
    let jobs: Json = daemon.get("/jobs", &token("admin")).await.json().await.unwrap();
    let confirm = json!({ "confirm": jobs["jobs"][0]["id"] });
    let ask = daemon.ask(Method::POST, "/dead-letters/redrive").bearer_auth(token("operator"));
    assert_eq!(ask.json(&confirm).send().await.unwrap().status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_look_at_once() {
    let daemon = Daemon::start(json!({})).await;
    let mut open = Vec::new();
    let refused = loop {
        let answer = daemon.ask(Method::GET, "/status/live").send().await.unwrap();
        if answer.status() != StatusCode::OK {
            break answer;
        }
        open.push(answer);
        assert!(open.len() < 100, "there is no bound");
    };
    assert_eq!((open.len(), refused.status()), (64, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(daemon.ask(Method::GET, "/livez").send().await.unwrap().status(), StatusCode::OK);
    drop(open);
    let until = Instant::now() + PATIENCE;
    while daemon.ask(Method::GET, "/status/live").send().await.unwrap().status() != StatusCode::OK {
        assert!(Instant::now() < until, "none of them is given back");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Stands in the configuration by reference, and must be in no answer.
const CANARY: &str = "canary-6f1d7c0be7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_has_a_secret_of_the_configuration_in_it() {
    let mut config = two_ways(everybody());
    let secret =
        "Endpoint=sb://127.0.0.1:1/;SharedAccessKeyName=n;SharedAccessKey=${CANARY};EntityPath=h";
    // Both say why they cannot connect.
    config["sinks"]["x"] = json!({ "event_hubs": {
        "hub": "h", "connection_string": "file:connection",
    } });
    config["sinks"]["y"] = json!({ "storage_queue": { "queue": "queue" } });
    config["azure"] = json!({ "storage": { "connection_string": "${CANARY}" } });
    // To a collector that is not there, which is told as well.
    config["otlp"] =
        json!({ "endpoint": "http://127.0.0.1:1", "headers": { "x-key": "${CANARY}" } });
    config["routes"][0]["transform"] = json!([{
        "redact": { "paths": ["data.name"], "with": { "hash": { "salt": "${CANARY}" } } },
    }]);
    let secret = secret.replace("${CANARY}", CANARY);
    let daemon = Daemon::with(config, Client::new(), |dir| {
        std::fs::write(dir.join("connection"), secret).unwrap();
    })
    .await;
    let until = Instant::now() + PATIENCE;
    loop {
        let status: Json = daemon.get("/status", &token("admin")).await.json().await.unwrap();
        let has_failed = |sink: &str| {
            let sink = status["sinks"].as_array().unwrap().iter().find(|it| it["name"] == sink);
            let problem = &sink.unwrap()["problem"];
            problem.is_string() && *problem != "connecting"
        };
        if has_failed("x") && has_failed("y") {
            break;
        }
        assert!(Instant::now() < until, "{status}; log: {}", daemon.log());
        sleep(std::time::Duration::from_millis(50)).await;
    }
    let ready = daemon.ask(Method::GET, "/readyz").send().await.unwrap().text().await.unwrap();
    assert!(ready.contains("sink x: see the log or /status\n"), "{ready}");
    let hash = Hash::of(&token("admin")).to_string();
    let secrets = [CANARY, hash.as_str(), &token("admin"), "SharedAccessKey="];
    for (method, path, _) in TABLE {
        let request = daemon.ask(method.parse().unwrap(), path).bearer_auth(token("admin"));
        let mut answer = request.send().await.unwrap();
        let kind = answer.headers().get("content-type");
        let is_stream = kind.is_some_and(|kind| kind == "text/event-stream");
        if path.starts_with("/tap") || path.starts_with("/traces") {
            // Nothing passes.
            continue;
        }
        let mut text = format!("{:?}", answer.headers());
        while let Some(chunk) = answer.chunk().await.unwrap() {
            text += &String::from_utf8_lossy(&chunk);
            if is_stream {
                break;
            }
        }
        for secret in secrets {
            assert!(!text.contains(secret), "{method} {path} has a secret in it");
        }
    }
    for secret in secrets {
        assert!(!daemon.log().contains(secret), "the log has a secret in it");
    }
}
