//! A receiver that owns its position.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    Hub,
    error::{Error, ErrorKind},
    event::ReceivedEvent,
    properties::PartitionProperties,
    receive_link::ReceiveLink,
};
use crate::{address::DEFAULT_CONSUMER_GROUP, filter::Position};

/// A link that was up for this long was in order: the next attempt need not wait.
const HELD: Duration = Duration::from_secs(10);

/// What to receive, and how much of it ahead.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// The partition's id.
    pub partition: String,
    /// Where to start. [`Position::Latest`] is turned into a sequence number when the receiver
    /// opens, so that nothing that comes later can be missed.
    pub start: Position,
    /// The consumer group; `$Default` unless set.
    pub consumer_group: String,
    /// With an epoch, at most one receiver of the consumer group has the partition: one with an
    /// equal or higher epoch takes it over, and the loser gets [`ErrorKind::Stolen`].
    pub epoch: Option<i64>,
    /// How many events the service may send ahead of [`Receiver::receive`].
    pub credit_events: u32,
    /// How many bytes it may send ahead. AMQP counts events only, so this holds by the size of
    /// recent events; one window too many can be under way when events suddenly grow.
    pub credit_bytes: usize,
    /// The receiver's name in the service's error texts.
    pub name: String,
}

impl ReceiverOptions {
    /// Of `$Default`, without an epoch, up to 1000 events and 8 MiB ahead.
    pub fn new(partition: impl Into<String>, start: Position) -> Self {
        Self {
            partition: partition.into(),
            start,
            consumer_group: DEFAULT_CONSUMER_GROUP.to_owned(),
            epoch: None,
            credit_events: 1000,
            credit_bytes: 8 << 20,
            name: "eventhubs".to_owned(),
        }
    }
}

/// Receives the events of one partition, in order, each once.
///
/// Whatever happens to link and connection, the next event handed out is the one after the last.
/// What has arrived already is still handed out first.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Where the next link starts: after the last event that arrived.
    position: Position,
    state: State,
    /// Arrived, and not handed out yet: what a dropped call had collected.
    arrived: Vec<ReceivedEvent>,
    /// Attempts to attach since the last event.
    failures: u32,
    /// When the link was attached.
    attached: Instant,
    /// A refused token was replaced once since the last event.
    token_replaced: bool,
    quiet: Quiet,
    /// Why it was interrupted last, until somebody asks.
    interrupted: Option<Error>,
}

struct Shared {
    hub: Hub,
    options: ReceiverOptions,
    /// What `Latest` meant when it was first asked.
    latest: OnceLock<Position>,
}

enum State {
    Attached(Box<ReceiveLink>),
    /// Kept here, so that a dropped call does not abandon a half-made link.
    Attaching {
        attempt: BoxFuture<'static, Result<ReceiveLink, Error>>,
        because: Error,
    },
    /// Nothing more will come; every call gets this.
    Ended(Error),
}

/// The watch over a link on which nothing comes.
#[derive(Default)]
struct Quiet {
    check: Option<BoxFuture<'static, Result<PartitionProperties, Error>>>,
    next: Option<Instant>,
    /// The last check found events that had not come. They may have been under way.
    behind: bool,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("hub", &self.shared.hub.name)
            .field("partition", &self.shared.options.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    pub(crate) async fn open(hub: Hub, options: ReceiverOptions) -> Result<Self, Error> {
        let position = options.start.clone();
        let shared = Arc::new(Shared { hub, options, latest: OnceLock::new() });
        let link = attach(shared.clone(), position.clone(), Duration::ZERO).await?;
        let mut receiver = Self {
            position: shared.latest.get().cloned().unwrap_or(position),
            shared,
            state: State::Attached(Box::new(link)),
            arrived: Vec::new(),
            failures: 0,
            attached: Instant::now(),
            token_replaced: false,
            quiet: Quiet::default(),
            interrupted: None,
        };
        receiver.quiet.heard(receiver.shared.quiet_check());
        Ok(receiver)
    }

    /// The partition's id.
    pub fn partition(&self) -> &str {
        &self.shared.options.partition
    }

    /// Where a new receiver would have to start to continue after this one.
    pub fn position(&self) -> Position {
        match self.arrived.first() {
            Some(event) => {
                Position::SequenceNumber { number: event.sequence_number, inclusive: true }
            }
            None => self.position.clone(),
        }
    }

    /// Up to `max` events: waits for the first one, up to `wait`, and takes with it what has
    /// arrived by then. An empty answer says that the link is well and nothing came.
    ///
    /// Lost links and connections are made anew within the call, with back-off. An error that
    /// [is transient](Error::is_transient) says that `wait` is over and there is no link yet: call
    /// again. Any other error is final, and each later call returns it: open a new receiver at
    /// [`Receiver::position`] once the cause is gone.
    ///
    /// Cancel-safe: a dropped call hands nothing out twice and loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Stolen`], [`ErrorKind::PositionInvalid`], [`ErrorKind::NotFound`],
    /// [`ErrorKind::Unauthorized`], [`ErrorKind::QuotaExceeded`] and so on are final.
    pub async fn receive(
        &mut self,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ReceivedEvent>, Error> {
        let deadline = Instant::now() + wait;
        while self.arrived.is_empty() {
            match tokio::time::timeout_at(deadline, self.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if matches!(self.state, State::Ended(_)) => return Err(error),
                Ok(Err(_)) => {}
                Err(_) => match &self.state {
                    State::Attaching { because, .. } => return Err(because.clone()),
                    State::Attached(_) | State::Ended(_) => return Ok(Vec::new()),
                },
            }
        }
        while self.arrived.len() < max {
            let State::Attached(link) = &mut self.state else { break };
            match link.ready() {
                Some(Ok(event)) => self.arrive(event),
                // The next call meets it again, or resumes from it.
                Some(Err(error)) => {
                    self.lost(error);
                    break;
                }
                None => break,
            }
        }
        let rest = self.arrived.split_off(self.arrived.len().min(max.max(1)));
        Ok(std::mem::replace(&mut self.arrived, rest))
    }

    /// Why it has attached anew since this was asked last; none if it has not.
    pub fn interruption(&mut self) -> Option<Error> {
        match self.state {
            State::Attached(_) => self.interrupted.take(),
            State::Attaching { .. } | State::Ended(_) => None,
        }
    }

    /// Detaches, and waits for the service to agree: an epoch is free for others at once. Just
    /// dropping the receiver detaches as well, a little later.
    pub async fn close(self) {
        if let State::Attached(link) = self.state {
            link.close().await;
        }
    }

    /// Moves one step towards the next event. Cancel-safe.
    async fn step(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Ended(error) => Err(error.clone()),
            State::Attaching { attempt, .. } => match attempt.await {
                Ok(link) => {
                    self.state = State::Attached(Box::new(link));
                    self.attached = Instant::now();
                    self.quiet.heard(self.shared.quiet_check());
                    Ok(())
                }
                Err(error) => Err(self.lost(error)),
            },
            State::Attached(link) => {
                tokio::select! {
                    biased;
                    event = link.next() => match event {
                        Ok(event) => {
                            self.arrive(event);
                            Ok(())
                        }
                        Err(error) => Err(self.lost(error)),
                    },
                    checked = self.quiet.over(&self.shared) => self.quiet_checked(checked),
                }
            }
        }
    }

    fn arrive(&mut self, event: ReceivedEvent) {
        self.quiet.heard(self.shared.quiet_check());
        self.failures = 0;
        self.token_replaced = false;
        // A peer that sends something again must not make us hand it out again.
        if let Position::SequenceNumber { number, inclusive: false } = self.position
            && event.sequence_number <= number
        {
            return;
        }
        self.position = after(event.sequence_number);
        self.arrived.push(event);
    }

    /// The link is gone, or could not be made. Begins to make another, or ends. Returns the error.
    fn lost(&mut self, error: Error) -> Error {
        let mut again = error.is_transient();
        if error.kind() == ErrorKind::Unauthorized && !self.token_replaced {
            // The token may just have ended. If a new one does not help, it was not that.
            if let State::Attached(link) = &self.state {
                link.connection.forget_token(&self.shared.hub.name);
                self.token_replaced = true;
                again = true;
            }
        }
        let held = matches!(self.state, State::Attached(_)) && self.attached.elapsed() > HELD;
        if held {
            self.failures = 0;
        }
        self.state = if again {
            tracing::warn!(receiver = ?self, %error, "receiver interrupted, resuming");
            self.interrupted = Some(error.clone());
            let wait = self.shared.hub.client.options().backoff.delay(self.failures);
            let wait = wait.max(error.retry_after().unwrap_or_default());
            self.failures = self.failures.saturating_add(1);
            let attempt = attach(self.shared.clone(), self.position.clone(), wait).boxed();
            State::Attaching { attempt, because: error.clone() }
        } else {
            State::Ended(error.clone())
        };
        self.quiet = Quiet::default();
        error
    }

    /// The service was asked what there is, because nothing came.
    fn quiet_checked(&mut self, checked: Result<PartitionProperties, Error>) -> Result<(), Error> {
        let quiet_check = self.shared.quiet_check();
        let was_behind = self.quiet.behind;
        self.quiet.heard(quiet_check);
        match checked {
            Ok(properties) if !properties.has_after(&self.position) => Ok(()),
            Ok(_) if !was_behind => {
                self.quiet.behind = true;
                self.quiet.next = Some(Instant::now() + quiet_check / 4);
                Ok(())
            }
            Ok(_) => {
                let detail = "there are events and the link does not bring them";
                Err(self.lost(Error::new("receive", ErrorKind::Detached, detail)))
            }
            // A busy namespace is no reason to doubt the link.
            Err(error) if error.kind() == ErrorKind::ServerBusy => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }
}

impl Shared {
    fn quiet_check(&self) -> Duration {
        self.hub.client.options().quiet_check
    }
}

impl Quiet {
    fn heard(&mut self, interval: Duration) {
        *self = Self { check: None, next: Some(Instant::now() + interval), behind: false };
    }

    /// Waits until it is time to ask, and asks. Cancel-safe.
    async fn over(&mut self, shared: &Arc<Shared>) -> Result<PartitionProperties, Error> {
        let check = match &mut self.check {
            Some(check) => check,
            None => {
                match self.next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
                let shared = shared.clone();
                self.check.insert(
                    async move { shared.hub.partition_properties(&shared.options.partition).await }
                        .boxed(),
                )
            }
        };
        let checked = check.await;
        self.check = None;
        checked
    }
}

/// Waits, connects, authorises, and attaches at `position`. Every part has its deadline.
async fn attach(
    shared: Arc<Shared>,
    position: Position,
    wait: Duration,
) -> Result<ReceiveLink, Error> {
    tokio::time::sleep(wait).await;
    let Shared { hub, options, latest } = &*shared;
    let connection = hub.authorized().await?;
    let position = match position {
        Position::Latest => {
            if latest.get().is_none() {
                let end = hub.partition_properties(&options.partition).await?;
                let _ = latest.set(end.start(position)?);
            }
            latest.get().cloned().unwrap_or(Position::Earliest)
        }
        // A number beyond the end would wait in silence for the hub to reach it.
        Position::SequenceNumber { number: 0.., .. } => {
            hub.partition_properties(&options.partition).await?.start(position)?
        }
        Position::SequenceNumber { .. } => Position::Earliest,
        other => other,
    };
    ReceiveLink::attach(hub, connection, options, &position).await
}

fn after(number: i64) -> Position {
    Position::SequenceNumber { number, inclusive: false }
}
