//! A link on which a client publishes.

use std::{collections::VecDeque, sync::Arc};

use fe2o3_amqp::{
    Receiver,
    link::{
        RecvError,
        delivery::{Delivery, DeliveryInfo},
        receiver::{CreditMode, TerminalDeliveryState},
    },
};
use fe2o3_amqp_types::messaging::{Accepted, Body, Modified, Rejected, Released};
use fe2o3_amqp_types::primitives::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    armed::Moment,
    attaching::Target,
    core::Core,
    event::{self, Publication},
    fault::Kind,
    journal::What,
    roster::{Connection, Link, LinkOrder, amqp_error},
    session::{detach_note, end_receiver},
    wire::Wire,
};
use crate::{condition, limits::MAX_PARTITION_KEY_CHARS};

/// Transfers that a publisher may have open.
const CREDIT: u32 = 1000;

/// A publishing link.
pub(crate) struct Publisher {
    core: Arc<Core>,
    connection: Arc<Connection>,
    link: Arc<Link>,
    target: Target,
    receiver: Receiver,
    /// Outcomes that are not due yet, oldest first.
    open: VecDeque<Outcome>,
}

struct Outcome {
    due: Instant,
    delivery: DeliveryInfo,
    state: TerminalDeliveryState,
}

/// Why the loop of a link ends.
enum End {
    Ordered(LinkOrder),
    Gone,
}

impl Publisher {
    pub(crate) fn new(
        core: Arc<Core>,
        connection: Arc<Connection>,
        link: Arc<Link>,
        target: Target,
        receiver: Receiver,
    ) -> Self {
        Self { core, connection, link, target, receiver, open: VecDeque::new() }
    }

    pub(crate) async fn run(mut self, mut ordered: mpsc::Receiver<LinkOrder>, no_credit: bool) {
        let (mode, credit) = match no_credit {
            true => (CreditMode::Manual, 0),
            false => (CreditMode::Auto(CREDIT), CREDIT),
        };
        self.receiver.set_credit_mode(mode);
        let end = match self.receiver.set_credit(credit).await {
            Ok(()) => self.take_transfers(&mut ordered).await,
            Err(_) => End::Gone,
        };
        self.core.ended(&self.connection, &self.link, None);
        if let End::Ordered(order) = end {
            self.core.note(&self.link.place, detach_note(&order.error));
            end_receiver(self.receiver, order).await;
        }
    }

    async fn take_transfers(&mut self, ordered: &mut mpsc::Receiver<LinkOrder>) -> End {
        loop {
            let due = self.open.front().map(|outcome| outcome.due);
            tokio::select! {
                biased;
                Some(order) = ordered.recv() => return End::Ordered(order),
                () = at(due) => if self.settle_due().await.is_err() { return End::Gone },
                delivery = self.receiver.recv::<Body<Value>>() => match delivery {
                    Ok(delivery) => self.take(delivery),
                    Err(RecvError::MessageDecode(error)) => {
                        let text = "The transfer is not an AMQP message.";
                        self.settle(error.info, rejected("amqp:decode-error", text));
                    }
                    Err(_) => return End::Gone,
                },
            }
        }
    }

    fn take(&mut self, delivery: Delivery<Body<Value>>) {
        let format = *delivery.message_format();
        let (info, message) = delivery.into_parts();
        let publication = match event::unpack(format, message) {
            Ok(publication) => publication,
            Err(error) => {
                let text = error.to_string();
                return self.settle(info, rejected(condition::ARGUMENT_ERROR, &text));
            }
        };
        let events = publication.events.len() as u64;
        let bytes = publication.events.iter().map(|event| event.encoded.len() as u64).sum();
        self.link.passed(events);
        let strike = self.core.strike(Moment::Transfer, &self.link.place, events, bytes);
        match strike {
            Some(Kind::Reject { condition }) => {
                self.settle(info, rejected(&condition, reject_text(&condition)));
            }
            Some(Kind::Released) => self.settle(info, Released {}.into()),
            Some(Kind::Modified) => {
                let modified = Modified {
                    delivery_failed: Some(true),
                    undeliverable_here: None,
                    message_annotations: None,
                };
                self.settle(info, modified.into());
            }
            strike => match self.append(publication) {
                Err(error) => self.settle(info, Rejected { error: Some(error) }.into()),
                Ok(()) => match strike {
                    Some(Kind::NoDisposition) => {}
                    Some(Kind::DropAfterAppend) => reset(&self.connection.wire),
                    _ => self.settle(info, Accepted {}.into()),
                },
            },
        }
    }

    fn append(&self, publication: Publication) -> Result<(), fe2o3_amqp_types::definitions::Error> {
        let key = publication.partition_key.as_deref();
        if key.is_some_and(|key| key.chars().count() > MAX_PARTITION_KEY_CHARS) {
            let text = "The partition key is longer than 128 characters.";
            return Err(amqp_error(condition::ARGUMENT_ERROR, text));
        }
        let index = self.target.partition.unwrap_or_else(|| self.target.hub.assign(key));
        let Some(partition) = self.target.hub.partition(index) else {
            return Err(amqp_error(condition::NOT_FOUND, "The partition is gone."));
        };
        let skip = match self.core.strike(Moment::Append, &self.link.place, 0, 0) {
            Some(Kind::Gap { n }) => n.max(0),
            _ => 0,
        };
        let message_id = publication.message_id;
        let mode = self.core.settings().offsets;
        let stamps = partition.append(publication.events, self.core.now(), mode, skip);
        if let Some(first) = stamps.first() {
            self.core.note(
                &self.link.place,
                What::Append {
                    to: index,
                    seq: first.sequence_number,
                    off: first.offset.to_string(),
                    count: stamps.len(),
                    message_id,
                },
            );
        }
        Ok(())
    }

    fn settle(&mut self, delivery: DeliveryInfo, state: TerminalDeliveryState) {
        if !matches!(state, TerminalDeliveryState::Accepted(_)) {
            let outcome = outcome_text(&state);
            self.core.note(&self.link.place, What::Disposition { outcome });
        }
        let due = Instant::now() + self.core.disposition_delay();
        self.open.push_back(Outcome { due, delivery, state });
    }

    async fn settle_due(&mut self) -> Result<(), fe2o3_amqp::link::DispositionError> {
        let now = Instant::now();
        let mut accepted = Vec::new();
        while let Some(outcome) = self.open.pop_front_if(|outcome| outcome.due <= now) {
            match outcome.state {
                TerminalDeliveryState::Accepted(_) => accepted.push(outcome.delivery),
                state => {
                    self.receiver.accept_all(std::mem::take(&mut accepted)).await?;
                    self.receiver.dispose(outcome.delivery, state).await?;
                }
            }
        }
        self.receiver.accept_all(accepted).await
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn reset(wire: &Wire) {
    wire.bend(&Kind::Rst, 0);
}

fn rejected(condition: &str, text: &str) -> TerminalDeliveryState {
    Rejected { error: Some(amqp_error(condition, text)) }.into()
}

/// Clients look for the number in the text to tell one kind of throttling from the other.
fn reject_text(condition: &str) -> &'static str {
    match condition {
        condition::SERVER_BUSY => {
            "The request was terminated because the entity is being throttled. Error code : \
             50002. Please wait 4 seconds and try again."
        }
        _ => "The emulator was asked to reject the transfer.",
    }
}

fn outcome_text(state: &TerminalDeliveryState) -> String {
    match state {
        TerminalDeliveryState::Accepted(_) => "accepted".to_owned(),
        TerminalDeliveryState::Released(_) => "released".to_owned(),
        TerminalDeliveryState::Modified(_) => "modified".to_owned(),
        TerminalDeliveryState::Rejected(rejected) => {
            let condition = rejected.error.as_ref().map(super::attaching::condition_of);
            format!("rejected {}", condition.unwrap_or_default())
        }
    }
}
