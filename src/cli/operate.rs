//! `pause`, `resume` and `checkpoints`: what an operator has a daemon do, and where it stands.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{
    dead_letters::moment,
    paint::{Paint, clean},
    remote::{Failure, Remote, print},
    table::{Cell, table},
};
use crate::{
    admin::operations::{Checkpoints, PauseRoute, RewindAnswer, Sources},
    source::positions::{Rewind, Rewound, To},
};

/// What to pause, or to resume.
#[derive(Debug, Clone, Args)]
pub struct Pause {
    /// A source.
    #[arg(long, value_name = "NAME", required_unless_present = "route")]
    source: Option<String>,
    /// A route: all of its sources.
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    route: Option<String>,
    /// Also where other routes read these sources.
    #[arg(long, requires = "route")]
    with_others: bool,
    /// Which daemon.
    #[command(flatten)]
    remote: Remote,
}

/// How far logs are read.
#[derive(Debug, Clone, Args)]
pub struct OfLogs {
    /// What to do with them; without it, they are listed.
    #[command(subcommand)]
    command: Option<LogCommand>,
    /// Which daemon.
    #[command(flatten)]
    remote: Remote,
}

/// What can be done with checkpoints.
#[derive(Debug, Clone, Subcommand)]
enum LogCommand {
    /// Have events come again that were settled before.
    Rewind(Back),
}

/// Where to go back to.
#[derive(Debug, Clone, Args)]
pub struct Back {
    /// The source: an event hub.
    source: String,
    /// The first event to come again: `earliest`, a time (RFC 3339, or how long ago, as in `2h`), or
    /// a sequence number, which needs `--partition`.
    #[arg(long, value_parser = to)]
    to: To,
    /// This partition alone.
    #[arg(long)]
    partition: Option<String>,
    /// Say what would come again, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Which daemon.
    #[command(flatten)]
    remote: Remote,
}

fn to(text: &str) -> Result<To, String> {
    match text.parse::<i64>() {
        Ok(number) => Ok(To::SequenceNumber(number)),
        Err(_) if text == "earliest" => Ok(To::Earliest),
        Err(_) => moment(text)
            .map(To::Time)
            .map_err(|why| format!("{why}; or `earliest`, or a sequence number")),
    }
}

/// Pauses or resumes.
///
/// # Errors
/// The daemon has not done it.
pub async fn pause(what: &Pause, paused: bool, out: &mut impl Write) -> Result<bool, Failure> {
    let Pause { source, route, with_others, remote } = what;
    let verb = if paused { "pause" } else { "resume" };
    let answer: Sources = match (route, source) {
        (Some(route), _) => {
            let body = PauseRoute { with_others: *with_others };
            remote.post(&["routes", route, verb], &body).await?
        }
        (None, source) => {
            let source = source.as_deref().unwrap_or_default();
            remote.post(&["sources", source, verb], &serde_json::json!({})).await?
        }
    };
    if remote.json {
        print(&answer, out)?;
        return Ok(true);
    }
    for source in &answer.sources {
        match answer.paused {
            true => writeln!(out, "{source} is paused; what is in flight goes on")?,
            false => writeln!(out, "{source} goes on")?,
        }
    }
    Ok(true)
}

/// Lists how far logs are read, or goes back in one. Answers whether all of it was done.
///
/// # Errors
/// The daemon has not done it.
pub async fn checkpoints(
    asked: &OfLogs,
    paint: Paint,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    match &asked.command {
        Some(LogCommand::Rewind(back)) => rewind(back, out).await,
        None => {
            let told: Checkpoints = asked.remote.get(&["checkpoints"]).await?;
            if asked.remote.json {
                print(&told, out)?;
            } else {
                write!(out, "{}", listed(&told, paint))?;
            }
            Ok(told.problems.is_empty())
        }
    }
}

fn listed(Checkpoints { partitions, problems }: &Checkpoints, paint: Paint) -> String {
    if partitions.is_empty() && problems.is_empty() {
        return "no source is a log: queues have no checkpoints\n".to_owned();
    }
    let head = ["source", "partition", "settled", "newest", "lag", "read by"];
    let mut rows = vec![head.map(Cell::weak).to_vec()];
    for it in partitions {
        let settled = it.checkpoint.as_ref().map(|at| at.sequence_number.to_string());
        rows.push(vec![
            Cell::strong(&it.source),
            Cell::plain(&it.partition),
            Cell::number(settled.as_deref().unwrap_or("-")),
            Cell::number(it.last_sequence_number),
            Cell::number(it.lag),
            Cell::plain(it.owner.as_deref().unwrap_or("-")),
        ]);
    }
    let mut text = if partitions.is_empty() { String::new() } else { table(&rows, paint) };
    problems
        .iter()
        .for_each(|problem| text += &format!("{}\n", paint.bad(clean(problem, usize::MAX))));
    text
}

async fn rewind(back: &Back, out: &mut impl Write) -> Result<bool, Failure> {
    let Back { source, to, partition, dry_run, remote } = back;
    let wish = Rewind { partition: partition.clone(), to: to.clone(), dry_run: *dry_run };
    let answer: RewindAnswer = remote.post(&["sources", source, "rewind"], &wish).await?;
    if remote.json {
        print(&answer, out)?;
    } else {
        write!(out, "{}", told(&answer))?;
    }
    Ok(answer.partitions.iter().all(|it| it.refused.is_none()))
}

fn told(answer: &RewindAnswer) -> String {
    let mut text = String::new();
    for Rewound { partition, to, repeats, gone, refused, .. } in &answer.partitions {
        if let Some(why) = refused {
            text += &format!("nothing is done: {}\n", clean(why, usize::MAX));
            continue;
        }
        let what = match to {
            None => "has nothing to repeat".to_owned(),
            Some(to) if answer.dry_run => {
                format!("would repeat {repeats} events, from {to} on")
            }
            Some(to) => format!("repeats {repeats} events, from {to} on"),
        };
        text += &format!("partition {partition} {what}");
        if *gone > 0 {
            text += &format!("; {gone} more are gone from the hub");
        }
        text.push('\n');
    }
    answer.notes.iter().for_each(|note| text += &format!("{note}\n"));
    text
}

#[cfg(test)]
mod tests;
