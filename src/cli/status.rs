//! `status`: what a daemon does and how it is doing, for a terminal.

use std::{io::Write, time::Duration};

use super::{
    paint::{Paint, clean},
    remote::{Failure, Remote, print},
    table::{Cell, table},
};
use crate::admin::status::{Breaker, Leg, SinkStatus, SourceStatus, Status};

/// Prints the status of a daemon. Answers whether it is ready.
///
/// # Errors
/// It has not told.
pub async fn status(remote: &Remote, paint: Paint, out: &mut impl Write) -> Result<bool, Failure> {
    let status: Status = remote.get(&["status"]).await?;
    if remote.json {
        print(&status, out)?;
    } else {
        write!(out, "{}", shown(&status, paint))?;
    }
    Ok(status.problems.is_empty())
}

fn shown(status: &Status, paint: Paint) -> String {
    let up = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let mut text = match status.problems.is_empty() {
        true => format!("{}", paint.good("ready")),
        false => format!("{}", paint.bad("not ready")),
    };
    let (version, generation) = (&status.version, &status.generation);
    text += &format!(", eventferry {version}, configuration {generation}, up {up}\n");
    for problem in &status.problems {
        text += &format!("  {}\n", paint.bad(clean(problem, usize::MAX)));
    }
    text += &format!("\n{}", sources(&status.sources, paint));
    text += &format!("\n{}", routes(status, paint));
    text += &format!("\n{}", sinks(&status.sinks, paint));
    text
}

fn sources(sources: &[SourceStatus], paint: Paint) -> String {
    let head = ["source", "received", "settled", "in flight", "waiting", ""];
    let mut rows = vec![head.map(Cell::weak).to_vec()];
    for it in sources {
        let waiting = it.backlog.map_or_else(|| "-".to_owned(), |waiting| waiting.to_string());
        let state = match (&it.problem, it.paused) {
            (_, true) => Cell::bad("paused"),
            (Some(problem), false) => Cell::bad(format!("does not work: {problem}")),
            (None, false) => Cell::plain(""),
        };
        rows.push(vec![
            Cell::strong(&it.name),
            Cell::number(it.received),
            Cell::number(it.settled),
            Cell::number(it.in_flight),
            Cell::number(waiting),
            state,
        ]);
    }
    table(&rows, paint)
}

fn routes(status: &Status, paint: Paint) -> String {
    let head =
        ["route", "to", "in flight", "delivered", "retried", "dead letters", "p50 (5 min)", "p99"];
    let mut rows = vec![head.map(Cell::weak).to_vec()];
    for route in &status.routes {
        for (number, leg) in route.to.iter().enumerate() {
            let name = if number == 0 { route.name.as_str() } else { "" };
            let Leg { sink, in_flight, delivered, retried, dead_lettered, .. } = leg;
            rows.push(vec![
                Cell::strong(name),
                Cell::plain(sink),
                Cell::number(in_flight),
                Cell::number(delivered),
                Cell::number(retried),
                Cell::number(dead_lettered),
                Cell::number(seconds(leg.p50_seconds)),
                Cell::number(seconds(leg.p99_seconds)),
            ]);
        }
    }
    let mut text = table(&rows, paint);
    for route in status.routes.iter().filter(|route| route.rate_limit_overridden) {
        let limit =
            route.rate_limit.map_or_else(|| "without a limit".to_owned(), |it| it.in_words());
        let line = format!("{}: {limit}, as somebody asked", clean(&route.name, usize::MAX));
        text += &format!("  {}\n", paint.weak(line));
    }
    text
}

/// An upper bound, or none.
fn seconds(bound: Option<f64>) -> String {
    match bound {
        None => "-".to_owned(),
        Some(bound) if bound < 1.0 => format!("{} ms", bound * 1_000.0),
        Some(bound) => format!("{bound} s"),
    }
}

fn sinks(sinks: &[SinkStatus], paint: Paint) -> String {
    let head = ["sink", "at once", "", ""];
    let mut rows = vec![head.map(Cell::weak).to_vec()];
    for it in sinks {
        // One that has not connected has a closed breaker.
        let state = match (it.held, &it.problem, it.breaker) {
            (true, ..) => Cell::bad("left alone, as somebody asked"),
            (false, Some(_), _) => Cell::bad("does not work"),
            (false, None, Breaker::Open) => Cell::bad("left alone"),
            (false, None, Breaker::Probing) => Cell::bad("being tried"),
            (false, None, Breaker::Closed) => Cell::good("works"),
        };
        let limit = it.limit.in_words().map(|limit| {
            let whose = if it.limit_overridden { ", as somebody asked" } else { "" };
            format!("at most {limit}{whose}")
        });
        let known = it.problem.iter().cloned().chain(limit);
        rows.push(vec![
            Cell::strong(&it.name),
            Cell::number(it.concurrency),
            state,
            Cell::weak(known.collect::<Vec<_>>().join("; ")),
        ]);
    }
    table(&rows, paint)
}

#[cfg(test)]
mod tests;
