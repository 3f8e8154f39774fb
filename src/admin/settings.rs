//! What runs, as its file has it, what differs from what the file says now, and how that is taken up.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use regex::Regex;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    audit::Change,
    endpoint::{Answer, Endpoint, Role, Scope, describe},
};
use crate::{
    cli::event_file::read_event,
    config::{
        self, Checked,
        difference::{Difference, NeedsRestart},
        environment::Environment,
        plan::Plan,
        problem::Problems,
    },
    daemon::reload::{Applied, By, Refused, Request},
    transform::{
        Draft,
        redact::{self, Detector, With},
    },
};

/// Name and password in an address.
static USER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"://[^/@\s]+@").expect("a constant expression"));

/// What runs and what the file says.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Settings {
    /// The configuration that runs, by the beginning of the digest of its file.
    pub generation: Arc<str>,
    /// The file that it stands in, if the daemon was started with one.
    pub file: Option<String>,
    /// What runs, with every default filled in. Secrets stand there as the references that they are
    /// in the file; whatever else looks like one is covered.
    pub running: Value,
    /// What the file says now; none without a file.
    pub now: Option<Now>,
}

/// What the file says now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Now {
    /// Its generation; none where it cannot be used.
    pub generation: Option<Arc<str>>,
    /// What is wrong with it, a line each, with the place.
    pub problems: Vec<String>,
    /// What will probably not do what is wanted.
    pub warnings: Vec<String>,
    /// What a reload would change, a line each.
    pub changes: Vec<String>,
    /// The sources that would start anew.
    pub restarted: Vec<Arc<str>>,
    /// What needs a restart of the daemon, so that a reload is refused.
    pub needs_restart: Vec<String>,
}

/// What has been taken up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reloaded {
    /// The configuration that runs now.
    pub generation: Arc<str>,
    /// What is different, a line each; empty where nothing is.
    pub changes: Vec<String>,
    /// The sources that start anew.
    pub restarted: Vec<Arc<str>>,
}

/// What can be asked of the configuration.
pub fn endpoints() -> Vec<Endpoint> {
    let settings = Endpoint {
        answer: Answer::Json(describe::<Settings>),
        ..Endpoint::read(
            "/config",
            "config",
            "The configuration that runs, and what a reload of its file would change.",
            get(settings),
        )
    };
    let reload = Endpoint {
        answer: Answer::Json(describe::<Reloaded>),
        ..Endpoint::change(
            "/reload",
            "reload",
            "Reads the file again and takes it up, or says why not.",
            Role::Operator,
            Scope::Daemon,
            post(reload),
        )
    };
    vec![settings, reload]
}

async fn settings(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Settings>, Refusal> {
    caller.sees_all("the configuration is")?;
    let plan = api.health.plan().ok_or_else(Refusal::unavailable)?;
    let now = match &api.file {
        None => None,
        Some(file) => Some(now(plan.clone(), file.clone()).await?),
    };
    Ok(Json(Settings {
        generation: plan.generation.clone(),
        file: api.file.as_ref().map(|file| file.display().to_string()),
        running: masked(&plan.settings),
        now,
    }))
}

/// Has the file read again, and answers what became of it.
async fn reload(State(api): State<Api>) -> Result<(Extension<Change>, Json<Reloaded>), Refusal> {
    let generation = || api.health.plan().map(|plan| json!({ "generation": *plan.generation }));
    let before = generation();
    let (answer, answered) = oneshot::channel();
    // Where nobody answers, the daemon is ending.
    let _ = api.reload.send(Request { by: By::Admin, answer }).await;
    let answer = answered.await.unwrap_or_else(|_| Err(Arc::new(Refused::Ending)));
    let Applied { generation, difference } = answer.map_err(|refused| Refusal::from(&*refused))?;
    let after = Some(json!({ "generation": *generation }));
    let reloaded = Reloaded {
        generation,
        changes: difference.changes.iter().map(ToString::to_string).collect(),
        restarted: difference.restarted.iter().cloned().collect(),
    };
    Ok((Extension(Change { before, after }), Json(reloaded)))
}

impl Refused {
    /// As HTTP has it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Secrets(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NeedsRestart(_) | Self::NoFile => StatusCode::CONFLICT,
            Self::Unusable(_) | Self::Ending => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        let (status, title) = (refused.status(), refused.class());
        Self::new(status, title, format!("nothing has changed\n{}", refused.to_string().trim_end()))
    }
}

async fn now(running: Arc<Plan>, file: PathBuf) -> Result<Now, Refusal> {
    let read = move || compare(&running, config::load(&file, &Environment::of_process()));
    tokio::task::spawn_blocking(read).await.map_err(|_| Refusal::unavailable())
}

fn compare(running: &Plan, read: Result<Checked, Problems>) -> Now {
    let Checked { plan, warnings } = match read {
        Ok(checked) => checked,
        Err(problems) => return Now { problems: lines(&problems), ..Now::default() },
    };
    // Whatever of it is a secret is read at the reload alone: unread, nothing would be the same.
    let mut plan = plan;
    let secrets = plan.unlock().err().unwrap_or_default();
    // What an operator has asked for is kept.
    plan.go_on(running);
    let mut now = Now {
        generation: Some(plan.generation.clone()),
        problems: secrets.iter().map(|finding| format!("{}: {finding}", finding.path)).collect(),
        warnings: lines(&warnings),
        ..Now::default()
    };
    match Difference::between(running, &plan) {
        Ok(difference) => {
            now.changes = difference.changes.iter().map(ToString::to_string).collect();
            now.restarted = difference.restarted.into_iter().collect();
        }
        Err(NeedsRestart(why)) => now.needs_restart = why,
    }
    now
}

/// A line for each, without the count at the end.
fn lines(problems: &Problems) -> Vec<String> {
    let text = problems.to_string();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.pop();
    lines
}

/// What looks like a secret is covered, wherever it stands.
fn masked(settings: &Value) -> Value {
    let (detect, with) = (vec![Detector::Key], With::Mask);
    let config = redact::Config { paths: Vec::new(), detect, within: Vec::new(), with };
    let masked = || {
        let mut redact = config.compile().ok()?;
        redact.unlock().ok()?;
        let mut draft = Draft::new(read_event(serde_json::json!({ "data": settings })).ok()?);
        redact.apply(&mut draft).ok()?;
        draft.look().ok().cloned()
    };
    without_users(masked().unwrap_or_default())
}

/// Nor are users of addresses and hashes of tokens anybody's to read.
fn without_users(value: Value) -> Value {
    match value {
        Value::String(text) => USER.replace_all(&text, "://****@").into_owned().into(),
        Value::Array(items) => items.into_iter().map(without_users).collect(),
        Value::Object(members) => {
            let covered = |(name, value): (String, Value)| match name.as_str() {
                // The hash of a token.
                "sha256" => (name, "****".into()),
                _ => (name, without_users(value)),
            };
            members.into_iter().map(covered).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
sources: { near: { memory: { queue: n } } }
sinks: { far: { memory: { queue: f } } }
routes: [{ name: pair, from: near, to: { all: [far] } }]
unmatched: drop
";

    fn read(text: &str) -> Result<Checked, Problems> {
        config::read("f.yaml", text, &Environment::default())
    }

    #[test]
    fn what_a_reload_would_change_is_told_before() {
        let mut running = read(FILE).unwrap().plan;
        running.unlock().unwrap();
        let same = compare(&running, read(FILE));
        assert_eq!((&same.changes, &same.problems), (&Vec::new(), &Vec::new()));
        let other = compare(&running, read(&FILE.replace("queue: f", "queue: g")));
        assert_eq!(other.changes, ["~ sink far: memory.queue"]);
        assert_eq!(other.restarted, [Arc::from("near")]);
        let broken = compare(&running, read(&FILE.replace("unmatched", "unmatchd")));
        assert_eq!((broken.generation, broken.problems.len()), (None, 1));
        assert!(broken.problems[0].starts_with("f.yaml:5:"), "{:?}", broken.problems);
        let admin = compare(&running, read(&format!("{FILE}admin: off")));
        assert!(admin.needs_restart[0].contains("`admin`"), "{admin:?}");
    }

    #[test]
    fn what_runs_has_its_defaults_and_no_secret() {
        let plan = read(FILE).unwrap().plan;
        let shown = masked(&plan.settings);
        assert_eq!(shown["sources"]["near"]["memory"]["queue"], "n");
        assert_eq!(shown["hops_max"], 4);
        let hidden = masked(&serde_json::json!({
            "a": ["https://jane:canary@proxy/x"],
            "admin": { "tokens": [{ "sha256": "canary" }] },
            "b": { "c": "Endpoint=sb://x/;SharedAccessKey=canary0123456789012345678901234=" },
            "secret": "${REFERENCE}",
        }));
        let text = hidden.to_string();
        assert!(!text.contains("canary") && text.contains("${REFERENCE}"), "{text}");
        assert_eq!(hidden["a"][0], "https://****@proxy/x");
    }
}
