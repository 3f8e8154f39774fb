//! The Event Hubs emulator as a program: serves the hubs of a seed file until it is told to stop.

use std::{io::Write, net::IpAddr, path::PathBuf};

use clap::Parser;
use eventhubs::emulator::{Config, Emulator, hubs_from_file};
use tokio::signal::unix::{SignalKind, signal};

/// An emulator of Azure Event Hubs: plain AMQP 1.0, everything in memory, faults on request.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port of AMQP; 0 takes a free one.
    #[arg(long, default_value_t = 5672)]
    port: u16,
    /// Port of the control API; 0 takes a free one.
    #[arg(long, default_value_t = 5300)]
    control_port: u16,
    /// The hubs to serve: a `Config.json` of Microsoft's own emulator.
    #[arg(long)]
    seed: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let config = Config {
        host: arguments.host,
        port: arguments.port,
        control_port: arguments.control_port,
        hubs: hubs_from_file(&arguments.seed)?,
        ..Config::default()
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let emulator = Emulator::start(config)?;
    println!("ready amqp={} control={}", emulator.address(), emulator.control_address());
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
