//! A namespace on a local port: what clients of Event Hubs need to be tested, with faults on
//! request.
//!
//! Plain AMQP 1.0, no TLS, one node, everything in memory. It lets everybody in and forgets
//! everything when it ends. How it differs from the service is written in the crate's README.
//!
//! ```no_run
//! use eventhubs::emulator::{Config, Emulator, Fault, HubConfig, Kind};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::start(Config::with_hubs([HubConfig::new("orders", 4)]))?;
//! println!("{}", emulator.connection_string("orders"));
//! emulator.control().arm(Fault::new(Kind::Rst));
//! # Ok(())
//! # }
//! ```
//!
//! The emulator runs on a thread of its own, with a runtime of its own, so that it lives while a
//! test blocks or stops the time. One thread only: the AMQP engine may miss a wake-up when credit
//! comes while a sender on another thread is about to wait for it.

#![expect(
    clippy::disallowed_methods,
    reason = "a server: a task for each connection, session and link, and the time of the wall"
)]

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

use tokio_util::sync::CancellationToken;

mod admission;
mod armed;
mod attaching;
mod cbs;
mod config;
mod connection;
mod consumer;
mod control;
mod core;
mod event;
mod fault;
mod http;
mod journal;
mod management;
mod namespace;
mod opening;
mod partition;
mod publisher;
mod request;
mod roster;
mod session;
mod view;
mod wire;

pub use config::{Config, HubConfig, OffsetMode, SeedError, Settings, hubs_from_file};
pub use control::{Append, Control, ControlError, Steal, Trim};
pub use fault::{After, Fault, Kind, LinkKind, Scope};
pub use view::{EventView, HubView, LinkView, PartitionView, Seed, StateView};

/// A running emulator; it ends when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    control_address: SocketAddr,
    control: Control,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator; clients can connect when this returns.
    ///
    /// # Errors
    ///
    /// When a port cannot be had, or no thread.
    pub fn start(config: Config) -> io::Result<Self> {
        let namespace = Arc::new(namespace::Namespace::new(&config.hubs));
        Self::serve(namespace, config)
    }

    fn serve(namespace: Arc<namespace::Namespace>, config: Config) -> io::Result<Self> {
        let listener = listen(config.host, config.port)?;
        let control_listener = listen(config.host, config.control_port)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let control = Control {
            core: Arc::new(core::Core::new(namespace, config.settings.clone())),
            runtime: runtime.handle().clone(),
            initial: config.settings,
        };
        let stop = CancellationToken::new();
        let address = listener.local_addr()?;
        let control_address = control_listener.local_addr()?;
        let (serving, stopped) = (control.clone(), stop.clone());
        let thread =
            std::thread::Builder::new().name("eventhubs-emulator".to_owned()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        result = serve(serving, listener, control_listener) => {
                            if let Err(error) = result {
                                tracing::error!(%error, "the emulator has ended");
                            }
                        }
                    }
                });
            })?;
        Ok(Self { address, control_address, control, stop, thread: Some(thread) })
    }

    /// Ends it in the middle of whatever it does, as a killed process ends, and keeps what a
    /// broker has on its disk: every event that was accepted.
    #[must_use]
    pub fn kill(self) -> Killed {
        let config = Config {
            host: self.address.ip(),
            port: self.address.port(),
            control_port: self.control_address.port(),
            hubs: Vec::new(),
            settings: self.control.initial.clone(),
        };
        let namespace = Arc::clone(&self.control.core.namespace);
        drop(self);
        // Receivers are no more.
        namespace.hubs().iter().for_each(|hub| hub.admission.clear());
        Killed { namespace, config }
    }

    /// Where AMQP is spoken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control API is.
    pub fn control_address(&self) -> SocketAddr {
        self.control_address
    }

    /// The endpoint for SDKs that take one.
    pub fn endpoint(&self) -> String {
        format!("amqp://{}", self.address)
    }

    /// A connection string for a hub; the key is made up, and every other one would do as well.
    pub fn connection_string(&self, hub: &str) -> String {
        format!(
            "Endpoint=sb://{};SharedAccessKeyName=emulator;SharedAccessKey=emulator;\
             UseDevelopmentEmulator=true;EntityPath={hub}",
            self.address
        )
    }

    /// What can be done to it from outside.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

/// What is left of an emulator that was killed.
#[derive(Debug)]
pub struct Killed {
    namespace: Arc<namespace::Namespace>,
    config: Config,
}

impl Killed {
    /// Starts it again on the same ports, with the same hubs and events, the settings that it was
    /// started with, and no fault armed.
    ///
    /// # Errors
    ///
    /// When a port is somebody else's by now, or there is no thread.
    pub fn start(self) -> io::Result<Emulator> {
        Emulator::serve(self.namespace, self.config)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported already.
            let _ = thread.join();
        }
    }
}

fn listen(host: std::net::IpAddr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    control: Control,
    listener: TcpListener,
    control_listener: TcpListener,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let control_listener = tokio::net::TcpListener::from_std(control_listener)?;
    let core = Arc::clone(&control.core);
    let http = axum::serve(control_listener, http::router(control)).into_future();
    let amqp = async {
        loop {
            // One client that is gone before it is accepted is no reason to end.
            if let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection::serve(Arc::clone(&core), socket));
            }
        }
    };
    tokio::select! {
        ended = http => ended,
        never = amqp => never,
    }
}
