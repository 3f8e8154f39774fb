//! One session: links are attached to nodes, and request and response links are paired.

use std::sync::Arc;

use fe2o3_amqp::{
    Receiver, Sender,
    acceptor::{LinkAcceptor, LinkEndpoint, ListenerSessionHandle, SupportedReceiverSettleModes},
};
use fe2o3_amqp_types::definitions::{Error as AmqpError, ReceiverSettleMode, SenderSettleMode};
use fe2o3_amqp_types::performatives::Attach;
use tokio::{sync::mpsc, time::timeout};

use super::{
    armed::Moment,
    attaching::{self, Node, Plan},
    connection::{PATIENCE, product},
    consumer::Consumer,
    core::Core,
    fault::LinkKind,
    journal::What,
    publisher::Publisher,
    request::{self, Pair},
    roster::{Connection, Link, LinkOrder},
};
use crate::limits::MAX_MESSAGE_BYTES;

/// What the service adds to an event must fit, too.
const DELIVERY_MARGIN_BYTES: u64 = 65_536;

/// Serves a session until it ends.
pub(crate) async fn serve(
    core: Arc<Core>,
    connection: Arc<Connection>,
    handle: ListenerSessionHandle,
) {
    let (orders, mut ordered) = mpsc::channel(1);
    let mut session = Session { core, connection, handle, orders, halves: Halves::default() };
    loop {
        tokio::select! {
            biased;
            Some(error) = ordered.recv() => {
                // A client that does not answer is left anyway.
                let _ = timeout(PATIENCE, session.handle.end_with_error(error)).await;
                return;
            }
            attach = session.handle.next_incoming_attach() => match attach {
                Some(attach) => session.attach(attach).await,
                None => return,
            },
        }
    }
}

struct Session {
    core: Arc<Core>,
    connection: Arc<Connection>,
    handle: ListenerSessionHandle,
    orders: mpsc::Sender<AmqpError>,
    halves: Halves,
}

/// Links to `$cbs` and `$management` that wait for their other half. Either may come first.
#[derive(Default)]
struct Halves {
    cbs: Half,
    management: Half,
}

#[derive(Default)]
struct Half {
    requests: Option<(Receiver, Arc<Link>)>,
    responses: Option<(Sender, Arc<Link>)>,
}

impl Session {
    async fn attach(&mut self, attach: Attach) {
        let (orders, ordered) = mpsc::channel(1);
        let plan = attaching::plan(&self.core, &self.connection, &attach);
        let acceptor = acceptor(&plan);
        let mut link = Link::new(plan.place, attach.name.clone(), orders, self.orders.clone());
        link.epoch = plan.epoch;
        link.properties = plan.properties;
        let link = Arc::new(link);
        // Before anything is awaited: from now on another receiver may displace this one.
        self.connection.attach(Arc::clone(&link));
        let settles = attach.snd_settle_mode != SenderSettleMode::Unsettled;
        let accepted = acceptor.accept_incoming_attach(attach, &mut self.handle).await;
        let (node, endpoint) = match (plan.node, accepted) {
            (Ok(node), Ok(endpoint)) => (node, endpoint),
            (Ok(node), Err(_)) => return self.core.ended(&self.connection, &link, node.hub()),
            (Err(error), accepted) => {
                self.connection.detach(link.id);
                self.core.note(&link.place, detach_note(&error));
                if let Ok(endpoint) = accepted {
                    refuse(endpoint, error);
                }
                return;
            }
        };
        self.core.note(
            &link.place,
            What::Attach {
                name: link.name.clone(),
                epoch: link.epoch,
                filter: plan.filter,
                properties: link.properties.clone(),
            },
        );
        match (node, endpoint) {
            (Node::Request(kind), endpoint) => self.pair(kind, endpoint, Arc::clone(&link)),
            (Node::Publish(target), LinkEndpoint::Receiver(receiver)) => {
                let (core, connection) = (Arc::clone(&self.core), Arc::clone(&self.connection));
                let publisher =
                    Publisher::new(core, connection, Arc::clone(&link), target, receiver);
                tokio::spawn(publisher.run(ordered, plan.no_credit));
            }
            (Node::Receive(source), LinkEndpoint::Sender(sender)) => {
                let consumer = Consumer {
                    core: Arc::clone(&self.core),
                    connection: Arc::clone(&self.connection),
                    link: Arc::clone(&link),
                    source,
                    sender,
                    settled: settles && self.core.settings().settle_deliveries,
                };
                tokio::spawn(consumer.run(ordered));
            }
            // The plan follows the role, and so does the endpoint.
            _ => self.connection.detach(link.id),
        }
        self.core.strike(Moment::Attached, &link.place, 0, 0);
    }

    fn pair(&mut self, kind: LinkKind, endpoint: LinkEndpoint, link: Arc<Link>) {
        let half = match kind {
            LinkKind::Cbs => &mut self.halves.cbs,
            _ => &mut self.halves.management,
        };
        match endpoint {
            LinkEndpoint::Receiver(receiver) => half.requests = Some((receiver, link)),
            LinkEndpoint::Sender(sender) => half.responses = Some((sender, link)),
        }
        let Half { requests: Some(_), responses: Some(_) } = half else { return };
        let Half { requests: Some(requests), responses: Some(responses) } = std::mem::take(half)
        else {
            return;
        };
        let pair = Pair {
            core: Arc::clone(&self.core),
            connection: Arc::clone(&self.connection),
            kind,
            requests,
            responses,
        };
        tokio::spawn(request::run(pair));
    }
}

/// The service refuses with an attach that lacks its node, which the engine cannot write; clients
/// understand an attach that is closed at once as well. A publisher may use the credit that the
/// engine grants with the attach before it reads of the end: what it sends is not stored.
fn refuse(endpoint: LinkEndpoint, error: AmqpError) {
    tokio::spawn(async move {
        let order = LinkOrder { error, closed: true };
        match endpoint {
            LinkEndpoint::Sender(sender) => end_sender(sender, order).await,
            LinkEndpoint::Receiver(receiver) => end_receiver(receiver, order).await,
        }
    });
}

pub(crate) fn detach_note(error: &AmqpError) -> What {
    What::Detach {
        condition: attaching::condition_of(error),
        description: error.description.clone().unwrap_or_default(),
    }
}

/// Ends a link to a receiver. A client that does not answer is left anyway.
pub(crate) async fn end_sender(sender: Sender, order: LinkOrder) {
    let _ = if order.closed {
        timeout(PATIENCE, sender.close_with_error(order.error)).await.map(drop)
    } else {
        timeout(PATIENCE, sender.detach_with_error(order.error)).await.map(drop)
    };
}

/// Ends a link to a publisher. A client that does not answer is left anyway.
pub(crate) async fn end_receiver(receiver: Receiver, order: LinkOrder) {
    let _ = if order.closed {
        timeout(PATIENCE, receiver.close_with_error(order.error)).await.map(drop)
    } else {
        timeout(PATIENCE, receiver.detach_with_error(order.error)).await.map(drop)
    };
}

type NodeAcceptor = LinkAcceptor<
    fn(fe2o3_amqp_types::messaging::Source) -> Option<fe2o3_amqp_types::messaging::Source>,
    fn(fe2o3_amqp_types::messaging::Target) -> Option<fe2o3_amqp_types::messaging::Target>,
>;

fn acceptor(plan: &Plan) -> NodeAcceptor {
    let max_message_bytes = match &plan.node {
        Ok(Node::Publish(target)) => target.hub.config.max_message_bytes,
        _ => MAX_MESSAGE_BYTES + DELIVERY_MARGIN_BYTES,
    };
    let builder = LinkAcceptor::builder()
        .verify_incoming_source(false)
        .verify_incoming_target(false)
        // The Python client asks for `second` and then does not understand it.
        .supported_receiver_settle_modes(SupportedReceiverSettleModes::First)
        .fallback_receiver_settle_mode(ReceiverSettleMode::First)
        .max_message_size(max_message_bytes)
        .properties(product());
    match plan.offers {
        Some(capability) => builder.add_offered_capabilities(capability).build(),
        None => builder.build(),
    }
}
