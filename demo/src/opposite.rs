//! The other end of each source and sink of the daemon, derived from its configuration: what the
//! daemon reads, the demo writes, and what the daemon writes, the demo reads.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use eventferry::{
    cloud::Context,
    config::plan::Plan,
    sink::{Sink, SinkConfig},
    source::{Source, SourceConfig},
    state::memory::MemoryStore,
    telemetry::Metrics,
};
use serde_json::{Map, Value, json};

/// Connects to the topic or hub that the source of this index reads.
pub(crate) async fn of_source(plan: &Plan, index: usize) -> Result<Arc<dyn Sink>> {
    let source = &plan.sources[index];
    let (kind, settings) = kind_of(&serde_json::to_value(&source.config)?)?;
    let config: SinkConfig = serde_json::from_value(match kind.as_str() {
        "sns" => json!({ "sns": pick(&settings, &["topic"]) }),
        "event_hubs" => json!({ "event_hubs": pick(&settings, &["connection_string", "hub"]) }),
        other => bail!("the demo does not know how to write to what `{other}` reads"),
    })?;
    Ok(config.build(&context(plan, &source.name)?).await?)
}

/// Connects to the queue or hub that the sink of this index writes to. What goes to a topic is
/// read from the queue `TOPIC-inbox`, which `localstack/seed.json` subscribes to it.
pub(crate) async fn of_sink(plan: &Plan, index: usize) -> Result<Source> {
    let sink = &plan.sinks[index];
    let (kind, settings) = kind_of(&serde_json::to_value(&sink.config)?)?;
    let picked = match kind.as_str() {
        "sqs" => pick(&settings, &["queue"]),
        "storage_queue" => pick(&settings, &["queue"]),
        "event_hubs" => pick(&settings, &["connection_string", "hub"]),
        "sns" => {
            let topic = settings.get("topic").and_then(Value::as_str).unwrap_or_default();
            json!({ "topic": topic, "queue": format!("{topic}-inbox") })
        }
        other => bail!("the demo does not know how to read what `{other}` writes"),
    };
    let config: SourceConfig = serde_json::from_value(json!({ kind: picked }))?;
    Ok(config.build(&context(plan, &sink.name)?).await?)
}

/// Whether a sink writes to Azure.
pub(crate) fn is_azure(config: &SinkConfig) -> Result<bool> {
    let (kind, _) = kind_of(&serde_json::to_value(config)?)?;
    Ok(["event_hubs", "storage_queue"].contains(&kind.as_str()))
}

/// The kind of a connector, and its settings.
pub(crate) fn kind_of(config: &Value) -> Result<(String, Map<String, Value>)> {
    let mut entries = config.as_object().context("a connector is a mapping")?.iter();
    let kinds = ["sqs", "sns", "storage_queue", "event_hubs"];
    let (kind, settings) = entries
        .find(|(name, _)| kinds.contains(&name.as_str()))
        .context("the demo does not know this kind of connector")?;
    Ok((kind.clone(), settings.as_object().cloned().unwrap_or_default()))
}

fn pick(settings: &Map<String, Value>, names: &[&str]) -> Value {
    let picked = names.iter().filter_map(|name| Some(((*name).to_owned(), settings.get(*name)?)));
    picked.map(|(name, value)| (name, value.clone())).collect::<Map<_, _>>().into()
}

fn context(plan: &Plan, name: &Arc<str>) -> Result<Context> {
    Ok(Context {
        name: format!("demo-{name}").into(),
        clouds: plan.clouds.clone(),
        state: Arc::new(MemoryStore::default()),
        metrics: Metrics::new()?,
        audit: Arc::default(),
    })
}
