//! Plays eventferry between two clouds on this machine and shows what it does.
//!
//! 1. [`places`] finds free ports and says in the environment where everything is.
//! 2. [`clouds`] starts the three local clouds, [`relay`] the daemon, each as a person would.
//! 3. [`scenario`] is the story; a [`producer`] publishes it into what the daemon reads, and a
//!    [`consumer`] reads what the daemon writes. Both are the [`opposite`] of its own ends.
//! 4. [`tally`] keeps the books, of each of the [`outlets`]; [`metrics`] reads the daemon's.
//! 5. [`mod@play`] runs it all and shows it as a [`table`] on the [`screen`], with a [`report`] in
//!    words.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

mod clouds;
mod consumer;
mod metrics;
mod opposite;
mod outlets;
mod places;
mod play;
mod producer;
mod relay;
mod report;
mod scenario;
mod screen;
mod table;
mod tally;

use places::Places;
use play::{Ending, Play};
use relay::Relay;
use screen::Screen;

/// Plays eventferry between two clouds on this machine and shows what it does.
#[derive(Parser)]
#[command(name = "eventferry-demo")]
struct Args {
    /// Publish a number of events, count what arrives, and end.
    #[arg(long)]
    once: bool,
    /// How many events that are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    events: u32,
    /// What eventferry is told to do.
    #[arg(long, default_value = "config/demo.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let played = match places::entered() {
        true => run(&args),
        false => places::enter().map(|never| match never {}),
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether everything arrived, once, and without what must not.
#[tokio::main]
async fn run(args: &Args) -> Result<bool> {
    let places = Places::new()?;
    fs::create_dir_all(&places.local)?;
    let lock = File::create(places.local.join("lock"))?;
    if lock.try_lock().is_err() {
        bail!("another demo runs in this checkout; end it first");
    }
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    #[expect(clippy::disallowed_methods, reason = "listens for as long as the process lives")]
    tokio::spawn(obey_signals(stop.clone(), hurry.clone()));
    let config = places.root.join(&args.config);
    let count = args.once.then_some(args.events);
    Screen::new().say(&report::introduction(&places, &config, count));
    let played = play(&places, &config, count, &stop, &hurry).await;
    let stopped = clouds::stop(&places).await;
    let Some(Ending { published, balance }) = played? else {
        println!("demo: stopped before it began");
        return Ok(false);
    };
    stopped?;
    if balance.strange > 0 {
        println!("demo: {} events arrived where they do not belong", balance.strange);
    }
    if balance.leaked > 0 {
        println!("demo: CARD NUMBERS OR E-MAIL ADDRESSES HAVE REACHED AZURE");
    }
    let (lost, duplicated, leaked) = (balance.missing(), balance.duplicated, balance.leaked);
    println!("demo: {published} events, {lost} lost, {duplicated} duplicated, {leaked} leaked");
    Ok((lost, duplicated, leaked, balance.strange) == (0, 0, 0, 0))
}

/// Answers nothing if it was stopped before there was anything to see.
async fn play(
    places: &Places,
    config: &Path,
    count: Option<u32>,
    stop: &CancellationToken,
    hurry: &CancellationToken,
) -> Result<Option<Ending>> {
    println!("Starting the clouds:");
    if !clouds::start(places, stop).await? {
        return Ok(None);
    }
    // Checkpoints of clouds that are no more.
    match fs::remove_dir_all(places.local.join("data")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot remove the checkpoints of the last demo");
        }
        _ => {}
    }
    let begin = async {
        let relay = Relay::start(places, config).await?;
        Ok::<_, anyhow::Error>((relay, Play::prepare(config, Screen::new()).await?))
    };
    let (relay, play) = tokio::select! {
        begun = begin => begun?,
        () = stop.cancelled() => return Ok(None),
    };
    println!("  {:<26} ready\n", "eventferry");
    play.run(relay, count, stop, hurry).await.map(Some)
}

/// The first signal stops, the second stops without waiting for what is under way.
async fn obey_signals(stop: CancellationToken, hurry: CancellationToken) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let Ok(mut signals) = kinds.into_iter().map(signal).collect::<Result<Vec<Signal>, _>>() else {
        return;
    };
    for token in [stop, hurry] {
        futures::future::select_all(signals.iter_mut().map(|one| Box::pin(one.recv()))).await;
        token.cancel();
    }
}
