//! `dead-letters`: look at what was parked, send it again, or throw it away.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value as Json, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    event_file::{show_body, show_event},
    paint::clean,
};
use crate::{
    config::{self, environment::Environment, units::Span},
    redrive::{self, Request, Summary, Task, Told, entry::Entry, filter::Filter, reading::Via},
    route::When,
};

/// What can be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print one line for each entry.
    List {
        /// Which entries.
        #[command(flatten)]
        chosen: Chosen,
        /// Count them by route and class in place of that.
        #[arg(long)]
        summary: bool,
    },
    /// Print all that is known of the entries of one event.
    Show {
        /// The id of the event.
        event: String,
        /// Where they are.
        #[command(flatten)]
        place: Place,
        /// Print the body, too.
        #[arg(long)]
        body: bool,
        /// Answer as JSON, one line for each entry.
        #[arg(long)]
        json: bool,
    },
    /// Send entries again, through the routes that gave them up or straight into a sink.
    Redrive {
        /// Which entries.
        #[command(flatten)]
        chosen: Chosen,
        /// The sink that they go to, as they are; without it, each takes its own route again.
        #[arg(long, value_name = "SINK")]
        to: Option<String>,
        /// How many are sent in a second at most.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// Say what would be sent, and send nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask what has been delivered before, on routes with `dedup`.
        #[arg(long)]
        without_dedup: bool,
    },
    /// Delete entries.
    Discard {
        /// Which entries.
        #[command(flatten)]
        chosen: Chosen,
        /// Delete all of them, where no filter is given.
        #[arg(long)]
        all: bool,
        /// Say what would be deleted, and delete nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where entries are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The configuration file.
    #[arg(long, env = "EVENTFERRY_CONFIG")]
    pub config: PathBuf,
    /// The dead-letter sink to read; several may be given. Without it, every one of the file.
    #[arg(long)]
    pub sink: Vec<String>,
    /// The SQS queue to read in place of a dead-letter sink that is an SNS topic.
    #[arg(long)]
    pub queue: Option<String>,
    /// The consumer group to read a dead-letter sink with that is an event hub; `$Default` without
    /// it. Takes the hub's partitions from whoever reads with the same group.
    #[arg(long)]
    pub consumer_group: Option<String>,
}

/// Which entries.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// Where they are.
    #[command(flatten)]
    place: Place,
    /// Only those that this route gave up.
    #[arg(long)]
    route: Option<String>,
    /// Only those of this class of cause, such as `too_large`.
    #[arg(long)]
    class: Option<String>,
    /// Only those that were given up at this time or later: RFC 3339, or how long ago, as in `2h`.
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// Only those that were given up before this time.
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// Only those whose events match this pattern, which is JSON as in a route's `when`.
    #[arg(long, value_parser = pattern)]
    pattern: Option<When>,
    /// Only those of the event of this id.
    #[arg(long)]
    id: Option<String>,
    /// This many at most.
    #[arg(long)]
    max: Option<usize>,
    /// Answer as JSON: one line for each entry, or for each route and class of a summary, and one
    /// for the sum.
    #[arg(long)]
    json: bool,
}

pub(crate) fn moment(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let ago: Span = text.parse().map_err(|_| {
        format!(
            "`{text}` is no time; write one like `2026-11-21T12:00:00Z`, or `2h` for two hours ago"
        )
    })?;
    OffsetDateTime::now_utc()
        .checked_sub((*ago).try_into().unwrap_or(time::Duration::MAX))
        .ok_or_else(|| format!("`{text}` ago was before there was a calendar"))
}

fn pattern(text: &str) -> Result<When, String> {
    let map: Map<String, Json> =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    When::read(&map).map_err(|findings| {
        let lines = findings.iter().map(|finding| match finding.path.0.is_empty() {
            true => finding.text.clone(),
            false => format!("{}: {}", finding.path, finding.text),
        });
        lines.collect::<Vec<_>>().join("; ")
    })
}

impl Chosen {
    fn filter(&self) -> Filter {
        let Self { route, class, id, since, until, pattern, .. } = self.clone();
        let (when, among) = (pattern.unwrap_or_default(), None);
        Filter { route, class, id, since, until, when, among }
    }
}

/// Does what is asked for until `stop`; progress goes to `aside`. Answers whether every entry that
/// was meant is where it should be.
///
/// # Errors
/// The answer cannot be written.
pub async fn dead_letters(
    command: &Command,
    stop: CancellationToken,
    out: &mut (impl Write + Send),
    aside: &mut (impl Write + IsTerminal + Send),
) -> io::Result<bool> {
    let asked = Asked::of(command);
    if let Command::Discard { chosen, all: false, .. } = command
        && chosen.filter().is_all()
    {
        writeln!(aside, "without a filter this deletes every entry; say `--all` if you mean it")?;
        return Ok(false);
    }
    let plan = match config::load(&asked.place.config, &Environment::of_process()) {
        Ok(checked) => checked.plan,
        Err(problems) => {
            write!(aside, "{problems}")?;
            return Ok(false);
        }
    };
    let (view, Place { sink, queue, consumer_group, .. }) = (asked.view, asked.place);
    let via = Via { queue: queue.clone(), consumer_group: consumer_group.clone() };
    let Asked { filter, max, rate, task, dry_run, .. } = asked;
    let request = Request { plan, sinks: sink.clone(), via, filter, max, rate, task, dry_run };
    let works = !matches!(request.task, Task::List) && !dry_run;
    let mut page = Page { view, out, groups: BTreeMap::new(), failed: None };
    let mut progress = Progress { aside, told: Instant::now(), shown: false };
    let mut tell = |told: Told<'_>| match told {
        Told::Found(_, None) if works => {}
        Told::Found(entry, why_not) => page.entry(entry, why_not),
        Told::Progress(summary) => progress.tell(summary),
    };
    let done = redrive::run(request, stop, &mut tell).await;
    progress.end();
    if let Some(error) = page.failed.take() {
        return Err(error);
    }
    let summary = match done {
        Ok(summary) => summary,
        Err(error) => {
            writeln!(progress.aside, "{error}")?;
            return Ok(false);
        }
    };
    page.end(&summary, works)?;
    let is_found = !matches!(command, Command::Show { .. }) || summary.meant > 0;
    let is_done = summary.failures() == 0
        && summary.skipped.is_empty()
        && summary.left() == 0
        && summary.unconfirmed == 0;
    let is_all = !summary.interrupted && summary.unread == 0;
    Ok(is_found && is_all && (!works || is_done))
}

/// What a command comes to.
struct Asked<'a> {
    place: &'a Place,
    filter: Filter,
    max: Option<usize>,
    rate: Option<u32>,
    task: Task,
    dry_run: bool,
    view: View,
}

/// How entries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Lines,
    Groups { json: bool },
    Whole { body: bool },
    Json { whole: bool, body: bool },
}

impl<'a> Asked<'a> {
    fn of(command: &'a Command) -> Self {
        let of = |chosen: &'a Chosen, task| {
            let json = View::Json { whole: false, body: false };
            Self {
                place: &chosen.place,
                filter: chosen.filter(),
                max: chosen.max,
                rate: None,
                task,
                dry_run: false,
                view: if chosen.json { json } else { View::Lines },
            }
        };
        match command {
            Command::List { chosen, summary: false } => of(chosen, Task::List),
            Command::List { chosen, summary: true } => {
                Self { view: View::Groups { json: chosen.json }, ..of(chosen, Task::List) }
            }
            Command::Show { event, place, body, json } => Self {
                place,
                filter: Filter { id: Some(event.clone()), ..Filter::default() },
                max: None,
                rate: None,
                task: Task::List,
                dry_run: false,
                view: match json {
                    true => View::Json { whole: true, body: *body },
                    false => View::Whole { body: *body },
                },
            },
            Command::Redrive { chosen, to, rate, dry_run, without_dedup } => {
                let (to, without_dedup) = (to.clone(), *without_dedup);
                let task = Task::Redrive { to, without_dedup };
                Self { rate: *rate, dry_run: *dry_run, ..of(chosen, task) }
            }
            Command::Discard { chosen, dry_run, .. } => {
                Self { dry_run: *dry_run, ..of(chosen, Task::Discard) }
            }
        }
    }
}

/// What entries are counted by.
type RouteAndClass = (Option<String>, Option<String>);

/// What is printed, as it grows.
struct Page<'a, W> {
    view: View,
    out: &'a mut W,
    /// Counts by route and class, with the first and the last time. No class: no record of ours.
    groups: BTreeMap<RouteAndClass, (usize, OffsetDateTime, OffsetDateTime)>,
    /// Why it cannot be printed.
    failed: Option<io::Error>,
}

impl<W: Write> Page<'_, W> {
    fn entry(&mut self, entry: &Entry, why_not: Option<&str>) {
        let text = match self.view {
            View::Lines => line(entry, why_not),
            View::Whole { body } => whole(entry, body),
            View::Json { whole, body } => as_json(entry, why_not, whole, body).to_string(),
            View::Groups { .. } => {
                let record = entry.record.as_deref();
                let last = record.map_or_else(OffsetDateTime::now_utc, |record| record.last);
                let route = record.and_then(|record| record.route.clone());
                let key = (route, record.map(|record| record.class.clone()));
                let group = self.groups.entry(key).or_insert((0, last, last));
                *group = (group.0 + 1, group.1.min(last), group.2.max(last));
                return;
            }
        };
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{text}").err();
        }
    }

    fn end(mut self, summary: &Summary, works: bool) -> io::Result<()> {
        if let View::Groups { json } = self.view {
            self.groups(json)?;
        }
        match self.view {
            View::Json { whole: true, .. } => {}
            View::Json { .. } | View::Groups { json: true } => {
                let mut sum = json!(summary);
                sum["left"] = summary.left().into();
                writeln!(self.out, "{}", json!({ "summary": sum }))?;
            }
            View::Whole { .. } if summary.meant == 0 => {
                writeln!(self.out, "not found among {} entries", summary.seen)?;
            }
            View::Whole { .. } => {}
            _ => write!(self.out, "{}", told(summary, works))?,
        }
        if matches!(self.view, View::Json { .. } | View::Groups { json: true }) {
            return Ok(());
        }
        if summary.is_full {
            writeln!(
                self.out,
                "looked at {} entries, which is all that can be held at once; there may be more",
                summary.seen
            )?;
        }
        if let Some(doubt) = summary.doubt() {
            writeln!(self.out, "{doubt}")?;
        }
        if summary.unread > 0 {
            writeln!(
                self.out,
                "{} more should be there and did not come within a while; ask again",
                summary.unread
            )?;
        }
        Ok(())
    }

    /// A line for each route and class.
    fn groups(&mut self, json: bool) -> io::Result<()> {
        let head =
            format!("{:>8}  {:24}  {:16}  first                 last", "entries", "route", "class");
        if !json {
            writeln!(self.out, "{head}")?;
        }
        for ((route, class), (entries, first, last)) in std::mem::take(&mut self.groups) {
            let (first, last) = (second(first), second(last));
            match json {
                true => {
                    let group = json!({
                        "route": route, "class": class, "entries": entries, "first": first, "last": last,
                    });
                    writeln!(self.out, "{group}")?;
                }
                false => {
                    let none = if class.is_none() { "?" } else { "-" };
                    let route = clean(route.as_deref().unwrap_or(none), usize::MAX);
                    let class = clean(class.as_deref().unwrap_or("?"), usize::MAX);
                    writeln!(self.out, "{entries:>8}  {route:24}  {class:16}  {first}  {last}")?;
                }
            }
        }
        Ok(())
    }
}

/// The summary for a person.
fn told(summary: &Summary, works: bool) -> String {
    let entries = |count: usize| match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let mut lines = vec![format!("{} of {}", entries(summary.meant), summary.seen)];
    if works {
        let counts = [
            (summary.redriven, "redriven"),
            (summary.duplicates, "had been delivered before"),
            (summary.filtered, "filtered by their routes"),
            (summary.discarded, "discarded"),
        ];
        lines.extend(
            counts.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")),
        );
        let failed = summary.failed.iter();
        lines.extend(failed.map(|(class, count)| format!("{count} failed again: {class}")));
    }
    let skipped = summary.skipped.iter();
    lines.extend(skipped.map(|(why, count)| format!("{count} skipped: {}", clean(why, 300))));
    if works && summary.left() > 0 {
        lines.push(format!("{} left", summary.left()));
    }
    if summary.interrupted {
        lines.push("interrupted".to_owned());
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// How far it has come, for a person who waits.
struct Progress<'a, W> {
    aside: &'a mut W,
    told: Instant,
    /// Whether a line of it stands there unended.
    shown: bool,
}

impl<W: Write + IsTerminal> Progress<'_, W> {
    fn tell(&mut self, summary: &Summary) {
        let is_terminal = self.aside.is_terminal();
        let every = Duration::from_secs(if is_terminal { 1 } else { 10 });
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let Summary { seen, meant, redriven, discarded, in_flight, .. } = summary;
        let (failed, skipped) = (summary.failures(), summary.skipped.values().sum::<usize>());
        let text = format!(
            "looked at {seen}, meant {meant}, redriven {redriven}, discarded {discarded}, failed \
             again {failed}, skipped {skipped}, under way {in_flight}"
        );
        // Who cannot be told goes without.
        let _ = match is_terminal {
            true => write!(self.aside, "\r{text}\x1b[K"),
            false => writeln!(self.aside, "{text}"),
        };
        let _ = self.aside.flush();
        self.shown = is_terminal;
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(self.aside, "\r\x1b[K");
        }
    }
}

/// An entry in a line.
fn line(entry: &Entry, why_not: Option<&str>) -> String {
    let id = clean(&entry.event.id, 60);
    let sink = &entry.sink;
    let mut text = match entry.record.as_deref() {
        None => {
            let why = entry.unreadable.map_or("no record of ours", |error| error.0);
            format!("{:20}  {sink}  {id}  {why}", "-")
        }
        Some(record) => {
            let route = clean(record.route.as_deref().unwrap_or("-"), 64);
            let to = record.sink.as_deref().map(|sink| format!(" -> {}", clean(sink, 64)));
            let (last, to) = (second(record.last), to.unwrap_or_default());
            let (class, error) = (clean(&record.class, 40), clean(&record.error, 200));
            let again = match record.redriven {
                0 => String::new(),
                count => format!("  redriven {count}x"),
            };
            format!("{last}  {sink}  {id}  {route}{to}  {class}{again}  {error}")
        }
    };
    if let Some(why_not) = why_not {
        text += &format!("  (skipped: {})", clean(why_not, 200));
    }
    text
}

/// All that is known of an entry, for a person.
fn whole(entry: &Entry, body: bool) -> String {
    let event = &entry.event;
    let mut rows = vec![("entry of", entry.sink.to_string())];
    if let Some(error) = entry.unreadable {
        rows.push(("unreadable", error.to_string()));
    }
    if let Some(record) = entry.record.as_deref() {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        rows.extend([
            ("route", text(&record.route)),
            ("sink", text(&record.sink)),
            ("class", record.class.clone()),
            ("error", record.error.clone()),
            ("attempts", record.attempts.to_string()),
            ("redriven", record.redriven.to_string()),
            ("arrived", second(record.arrived)),
            ("first failure", second(record.first)),
            ("last failure", second(record.last)),
            ("source", record.source.clone()),
            ("resource", record.resource.clone()),
            ("position", record.position.clone()),
            ("handed out", record.received.to_string()),
            ("hops", record.hops.to_string()),
        ]);
    }
    let some = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let optional = [
        ("event id", Some(event.id.to_string())),
        ("event source", Some(event.source.to_string())),
        ("type", some(&event.kind)),
        ("subject", some(&event.subject)),
        ("key", some(&event.key)),
        ("content type", some(&event.content_type)),
        ("time", event.time.map(second)),
        ("traceparent", some(&event.trace.parent)),
    ];
    rows.extend(optional.into_iter().filter_map(|(name, text)| Some((name, text?))));
    let shown = show_event(event);
    let attributes = shown["attributes"].as_object().into_iter().flatten();
    rows.extend(attributes.map(|(name, value)| ("attribute", format!("{name} = {value}"))));
    rows.push(("bytes", event.body.len().to_string()));
    let mut text = String::new();
    for (name, value) in rows {
        text += &format!("{name:14} {}\n", clean(&value, 2_000));
    }
    if body && let Some((_, value)) = show_body(&event.body, event.content_type.as_deref()) {
        let shown = match value {
            Json::String(text) => clean(&text, usize::MAX),
            json => json.to_string(),
        };
        text += &format!("{:14} {shown}\n", "body");
    }
    text
}

fn as_json(entry: &Entry, why_not: Option<&str>, whole: bool, body: bool) -> Json {
    let event = &entry.event;
    let mut shown = json!({
        "sink": &*entry.sink, "id": &*event.id, "bytes": event.body.len(),
        "record": entry.record.as_deref(),
    });
    if let Some(error) = entry.unreadable {
        shown["unreadable"] = error.to_string().into();
    }
    if let Some(why_not) = why_not {
        shown["skipped"] = why_not.into();
    }
    if whole {
        let mut of_event = show_event(event);
        if let (false, Some(fields)) = (body, of_event.as_object_mut()) {
            fields.retain(|name, _| !["data", "data_text", "data_base64"].contains(&name.as_str()));
        }
        of_event["traceparent"] = event.trace.parent.as_deref().into();
        shown["event"] = of_event;
    }
    shown
}

/// RFC 3339, to the second.
fn second(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
