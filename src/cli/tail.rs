//! `tail`: the next events of a daemon, as they pass.

use std::{io::Write, time::Duration};

use clap::Args;
use serde_json::Value as Json;

use super::{
    paint::{Paint, clean},
    remote::{Failure, Remote},
};

/// A line of a stream may have this many bytes: the largest event of any service, as JSON.
const LINE_MAX: usize = 16 << 20;
/// A daemon that has nothing to tell says so every 15 s: one that is silent for three times as long
/// is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Which events.
#[derive(Debug, Clone, Args)]
pub struct Tail {
    /// Only those that this route takes.
    #[arg(long)]
    route: Option<String>,
    /// One in so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: Option<u32>,
    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max: Option<u32>,
    /// Which daemon.
    #[command(flatten)]
    remote: Remote,
}

/// Prints events until the daemon says that there are no more.
///
/// # Errors
/// The daemon does not tell, or has broken off: what it ends itself, it says.
pub async fn tail(asked: &Tail, paint: Paint, out: &mut impl Write) -> Result<bool, Failure> {
    let Tail { route, every, max, remote } = asked;
    let mut query = Vec::new();
    query.extend(route.iter().map(|route| ("route", route.clone())));
    query.extend(every.iter().map(|every| ("every", every.to_string())));
    query.extend(max.iter().map(|max| ("max", max.to_string())));
    let mut answer = remote.listen(&["tap"], &query).await?;
    let (mut stream, mut is_over) = (Stream::default(), false);
    while let Some(chunk) = remote.next(&mut answer, SILENCE_MAX).await? {
        for Told { name, data } in stream.take(&chunk) {
            is_over |= name == "end";
            match (name.as_str(), remote.json) {
                ("end", false) => writeln!(out, "{}", paint.weak(ended(&data)))?,
                (_, true) => writeln!(out, "{data}")?,
                (_, false) => writeln!(out, "{}", line(&data, paint))?,
            }
            out.flush()?;
        }
    }
    if is_over { Ok(true) } else { Err(remote.cut()) }
}

/// An event on a line. What is not known of it is left out.
fn line(data: &str, paint: Paint) -> String {
    let Ok(told) = serde_json::from_str::<Json>(data) else { return clean(data, usize::MAX) };
    let text = |value: &Json| clean(value.as_str().unwrap_or_default(), usize::MAX);
    let event = &told["event"];
    let taken: Vec<String> = told["taken"].as_array().into_iter().flatten().map(text).collect();
    let whereto = match (taken.is_empty(), told["unrouted"].as_str()) {
        (false, _) => taken.join(", "),
        (true, Some(class)) => paint.bad(clean(class, usize::MAX)).to_string(),
        (true, None) => paint.weak("no route").to_string(),
    };
    let at = paint.weak(text(&told["at"])).to_string();
    let from = format!("{} -> {whereto}", text(&told["source"]));
    let bytes = told["bytes"].as_u64().map(|bytes| paint.weak(format!("{bytes} B")).to_string());
    let id = paint.strong(text(&event["id"])).to_string();
    let parts = [at, from, text(&event["type"]), id, bytes.unwrap_or_default()];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("  ")
}

fn ended(data: &str) -> String {
    let told: Json = serde_json::from_str(data).unwrap_or_default();
    let dropped = told["dropped"].as_u64().unwrap_or_default();
    let left_out = match dropped {
        0 => String::new(),
        dropped => format!("; {dropped} came too fast and were left out"),
    };
    match told["why"].as_str() {
        Some(why) => format!("ended: {}{left_out}", clean(why, usize::MAX)),
        None => format!("ended{left_out}"),
    }
}

/// Something that a stream of server-sent events has told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// What it is called; empty for most.
    name: String,
    data: String,
}

/// Takes a stream of server-sent events apart.
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html>
#[derive(Debug, Default)]
struct Stream {
    line: Vec<u8>,
    told: Told,
}

impl Stream {
    /// What is complete with this.
    fn take(&mut self, chunk: &[u8]) -> Vec<Told> {
        let mut complete = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                // Whoever sends more sends no events of ours.
                if self.line.len() < LINE_MAX {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                let told = std::mem::take(&mut self.told);
                complete.extend((!told.data.is_empty()).then_some(told));
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.told.name),
                "data" if self.told.data.is_empty() => value.clone_into(&mut self.told.data),
                "data" => self.told.data += &format!("\n{value}"),
                // Comments keep the connection alive.
                _ => {}
            }
        }
        complete
    }
}

#[cfg(test)]
impl Tail {
    /// All that passes there.
    pub(super) fn of(remote: Remote) -> Self {
        Self { route: None, every: None, max: None, remote }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_taken_apart_wherever_it_is_cut() {
        let text = ": alive\n\ndata: {\"a\":1}\r\n\r\nevent: end\ndata: one\ndata: two\n\n";
        for cut in 0..text.len() {
            let mut stream = Stream::default();
            let mut told = stream.take(&text.as_bytes()[..cut]);
            told.extend(stream.take(&text.as_bytes()[cut..]));
            let of = |name: &str, data: &str| Told { name: name.into(), data: data.into() };
            assert_eq!(told, [of("", "{\"a\":1}"), of("end", "one\ntwo")]);
        }
    }

    #[test]
    fn an_event_is_a_line() {
        let told = serde_json::json!({
            "source": "orders", "at": "2026-11-21T12:00:00Z", "bytes": 91,
            "event": { "id": "order-7", "type": "order.placed" },
            "taken": ["large", "audit"],
        });
        let stray = serde_json::json!({ "source": "orders", "event": {}, "taken": [] });
        let odd = serde_json::json!({ "source": "orders", "unrouted": "undecodable" });
        let bold = serde_json::json!({
            "source": "orders", "event": { "id": "\u{1b}[2J\n7", "type": "a\u{9b}b" }, "taken": ["x"],
        });
        let lines = [&told, &stray, &odd, &bold].map(|told| line(&told.to_string(), Paint::Plain));
        insta::assert_snapshot!(lines.join("\n"));
        insta::assert_snapshot!(ended(r#"{ "why": "max", "dropped": 3 }"#));
    }
}
