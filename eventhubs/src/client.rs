//! Receives from and sends to a namespace, and says truthfully what happened.
//!
//! Three things set it apart from a plain wrapper of AMQP. A [`Receiver`] owns its position: after
//! any loss it resumes exactly after the last event it handed out, and what cannot be resumed (the
//! partition was taken over, the hub was made again) is an error of its own kind. A [`Sender`]
//! treats every outcome but *accepted* as an error, and tells *not stored* from *unknown*. And
//! nothing waits for ever: every call has a deadline, a silent peer is noticed and replaced.
//!
//! ```no_run
//! use std::time::Duration;
//! use eventhubs::client::{Client, ConnectionString, EventData, Options, ReceiverOptions, Target};
//! use eventhubs::filter::Position;
//!
//! # async fn run() -> Result<(), eventhubs::client::Error> {
//! let string: ConnectionString = "Endpoint=sb://127.0.0.1;SharedAccessKeyName=x;\
//!     SharedAccessKey=y;UseDevelopmentEmulator=true;EntityPath=orders".parse()?;
//! let client = Client::new(string.endpoint, string.auth, Options::default());
//! let hub = client.hub("orders");
//!
//! let sender = hub.sender(Default::default());
//! let mut batch = sender.batch(Target::Key("customer-7".into())).await?;
//! if batch.try_add(&EventData::from("hello"))? {
//!     sender.send(&batch).await?;
//! }
//!
//! let partition = &hub.properties().await?.partition_ids[0];
//! let mut receiver = hub.receiver(ReceiverOptions::new(partition, Position::Earliest)).await?;
//! for event in receiver.receive(100, Duration::from_secs(5)).await? {
//!     println!("{}: {} bytes", event.sequence_number, event.body.len());
//! }
//! # Ok(()) }
//! ```
//!
//! One [`Client`] is one connection, made when first needed and made again when lost, with a
//! back-off that all its receivers and senders share. It spawns one task that keeps tokens fresh;
//! everything else happens in the calls. The task ends with the connection, and the connection
//! with the last of client, receivers and senders.

use std::sync::Arc;

use tokio::time::Instant;

mod auth;
mod batch;
mod connection;
mod endpoint;
mod error;
mod event;
mod options;
mod properties;
mod receive_link;
mod receiver;
mod sender;
mod wire;

use connection::Connection;
/// AMQP types that appear in events.
pub use fe2o3_amqp_types::{
    messaging::MessageId,
    primitives::{SimpleValue, Symbol, Timestamp, Uuid},
};
pub use {
    auth::{Auth, SharedAccessKey},
    batch::{EventBatch, Target, bytes_in_batch},
    endpoint::{ConnectionString, Endpoint},
    error::{Error, ErrorKind},
    event::{BodyKind, EventData, ReceivedEvent},
    options::{Backoff, Options},
    properties::{HubProperties, PartitionProperties},
    receiver::{Receiver, ReceiverOptions},
    sender::{Sender, SenderOptions},
};

/// A client of one namespace. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
    slot: Arc<tokio::sync::Mutex<Slot>>,
}

/// What a connection is made from.
pub(crate) struct Settings {
    endpoint: Endpoint,
    auth: Auth,
    options: Options,
}

#[derive(Default)]
struct Slot {
    current: Option<Arc<Connection>>,
    /// Attempts in a row that gave no connection worth the name.
    failures: u32,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.settings.endpoint).finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Connects when first asked for something.
    pub fn new(endpoint: Endpoint, auth: Auth, options: Options) -> Self {
        let settings = Settings { endpoint, auth, options };
        Self { settings: Arc::new(settings), slot: Arc::default() }
    }

    /// The hub `name`. Does not look whether there is one.
    pub fn hub(&self, name: impl Into<String>) -> Hub {
        Hub { client: self.clone(), name: name.into() }
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoint
    }

    /// Closes the connection and with it all links. Whoever asks for something afterwards gets a
    /// new connection.
    pub async fn close(&self) {
        let current = self.slot.lock().await.current.take();
        if let Some(connection) = current {
            connection.close().await;
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.settings.options
    }

    /// What was begun at `since` has not come about in its time: see [`Connection::suspect`].
    fn suspect(&self, since: Instant) {
        // While somebody connects there is nothing to suspect.
        if let Ok(slot) = self.slot.try_lock()
            && let Some(connection) = &slot.current
        {
            connection.suspect(since);
        }
    }

    /// The connection, made if there is none. Whoever comes while another connects waits for the
    /// same attempt; all share one back-off.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let Options { connect_timeout, backoff, .. } = self.settings.options;
        let mut slot = self.slot.lock().await;
        if let Some(connection) = slot.current.take() {
            if connection.is_up() {
                return Ok(slot.current.insert(connection).clone());
            }
            // One that held for a while was worth the name; one that breaks at once, again and
            // again, must not be made in a tight loop.
            if connection.age() > backoff.max.min(connect_timeout) {
                (slot.failures, slot.not_before) = (0, None);
            }
        }
        if let Some(not_before) = slot.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let attempt = Connection::open(self.settings.clone());
        let result = match tokio::time::timeout(connect_timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                "connect",
                ErrorKind::Timeout,
                format!("{} after {connect_timeout:?}", self.settings.endpoint),
            )),
        };
        slot.failures = slot.failures.saturating_add(1);
        slot.not_before = Some(Instant::now() + backoff.delay(slot.failures));
        let connection = Arc::new(result?);
        tracing::debug!(endpoint = %self.settings.endpoint, "connected");
        Ok(slot.current.insert(connection).clone())
    }
}

/// One hub of a namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    client: Client,
    name: String,
}

impl Hub {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its namespace is.
    pub fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// What the hub says about itself. The namespace allows
    /// [50 such questions a second](crate::limits::MAX_MANAGEMENT_READS_PER_SECOND).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Unauthorized`], or a transient one.
    pub async fn properties(&self) -> Result<HubProperties, Error> {
        let connection = self.authorized().await?;
        connection.ask("read hub properties", properties::Read::hub(&self.name)).await
    }

    /// What the partition `id` says about itself. Counts like [`Hub::properties`].
    ///
    /// # Errors
    /// As for [`Hub::properties`].
    pub async fn partition_properties(&self, id: &str) -> Result<PartitionProperties, Error> {
        let connection = self.authorized().await?;
        let question = properties::Read::partition(&self.name, id);
        connection.ask("read partition properties", question).await
    }

    /// Opens a receiver, and comes back when it is attached. Tries once: a transient error is the
    /// caller's to repeat.
    ///
    /// # Errors
    /// Any kind that is about receiving. A refusal may also come with the first
    /// [`Receiver::receive`].
    pub async fn receiver(&self, options: ReceiverOptions) -> Result<Receiver, Error> {
        Receiver::open(self.clone(), options).await
    }

    /// A sender. Attaches when first used.
    pub fn sender(&self, options: SenderOptions) -> Sender {
        Sender::new(self.clone(), options)
    }

    /// A connection that holds a token for this hub.
    pub(crate) async fn authorized(&self) -> Result<Arc<Connection>, Error> {
        let connection = self.client.connection().await?;
        connection.authorize(&self.name).await?;
        Ok(connection)
    }
}
