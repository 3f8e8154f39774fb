//! Arguments, configuration, telemetry, run, exit code.

use std::{io, path::Path, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use eventferry::{
    cli::{self, Cli, Command, paint::Paint, remote::Failure},
    daemon::{self, Start, triggers::File},
    telemetry,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A third of what an event costs is what is allocated for it in one thread and freed in another,
/// which the system's allocator is slow at: docs/decisions/007-allocator.md.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { config } => run(&config).await,
        Command::Check { config, online, against } => {
            let mut out = io::stdout().lock();
            cli::check(&config, online, against.as_deref(), &mut out).await.map_err(Into::into)
        }
        Command::Explain { config, options } => {
            let mut out = io::stdout().lock();
            let paint = Paint::for_output(&out);
            cli::explain(&config, &options, paint, &mut out).map_err(Into::into)
        }
        Command::Test { config, files } => {
            let mut out = io::stdout().lock();
            let paint = Paint::for_output(&out);
            cli::test(&config, &files, paint, &mut out).map_err(Into::into)
        }
        Command::Ask(command) => {
            let mut out = io::stdout();
            let paint = Paint::for_output(&out);
            cli::ask(&command, paint, &mut out).await.map_err(Into::into)
        }
        Command::DeadLetters(command) => dead_letters(&command).await,
        Command::Token => cli::token(&mut io::stdout().lock()).map(|()| true).map_err(Into::into),
        Command::Schema => cli::schema(&mut io::stdout().lock()).map(|()| true).map_err(Into::into),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads has seen enough, as `head` has.
        Err(error) if is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eventferry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether it is that nobody reads what is printed any more.
fn is_unread(error: &anyhow::Error) -> bool {
    let printed = match error.downcast_ref() {
        Some(Failure::Print(error)) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    };
    printed.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Answers whether all entries that were meant are where they should be.
async fn dead_letters(command: &cli::dead_letters::Command) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = CancellationToken::new();
    let stopped = async {
        for told in ["what is under way may finish, the rest goes back", "ended at once"] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            eprintln!("eventferry: {told}");
            stop.cancel();
        }
    };
    let (mut out, mut aside) = (io::stdout(), io::stderr());
    tokio::select! {
        done = cli::dead_letters(command, stop.clone(), &mut out, &mut aside) => Ok(done?),
        // What is hidden is seen again when its lease ends.
        () = stopped => Ok(false),
    }
}

/// Answers whether the configuration could be used.
async fn run(config: &Path) -> anyhow::Result<bool> {
    let logging = telemetry::logs::log();
    let mut summing_up = JoinSet::new();
    summing_up.spawn(logging.keep_summing_up());
    // Before the file is read: a signal must not end the process.
    let hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let plan = match daemon::reload::load(config) {
        Ok(plan) => plan,
        Err(problems) => {
            eprint!("{problems}");
            return Ok(false);
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let file = File { path: config.to_owned(), hangup };
    daemon::run(Start { plan, file: Some(file) }, shutdown).await?;
    Ok(true)
}
