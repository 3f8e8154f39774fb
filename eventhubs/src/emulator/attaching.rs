//! What a client wants when it attaches a link, and whether it may.

use std::sync::{Arc, atomic::Ordering};

use fe2o3_amqp_types::definitions::{Error as AmqpError, ErrorCondition, Role};
use fe2o3_amqp_types::messaging::TargetArchetype;
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::{Symbol, Value};

use super::{
    armed::Moment,
    config::OffsetMode,
    core::Core,
    fault::{Kind, LinkKind, Place},
    namespace::Hub,
    partition::{NoSuchPosition, Partition},
    roster::{Connection, amqp_error},
};
use crate::{
    address::Address,
    condition, filter,
    filter::Position,
    link::{EPOCH, GEO_REPLICATION_CAPABILITY, RUNTIME_METRIC_CAPABILITY},
};

/// What is done with an attach.
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// What the link is attached to, or why not.
    pub(crate) node: Result<Node, AmqpError>,
    pub(crate) epoch: Option<i64>,
    pub(crate) filter: Option<String>,
    /// The client's link properties, as text.
    pub(crate) properties: String,
    pub(crate) offers: Option<&'static str>,
    /// The publisher gets no credit.
    pub(crate) no_credit: bool,
}

/// What a link is attached to.
pub(crate) enum Node {
    /// `$cbs` or `$management`.
    Request(LinkKind),
    /// A hub, or one of its partitions.
    Publish(Target),
    /// A partition.
    Receive(Source),
}

impl Node {
    pub(crate) fn hub(&self) -> Option<&Hub> {
        match self {
            Self::Request(_) => None,
            Self::Publish(target) => Some(&target.hub),
            Self::Receive(source) => Some(&source.hub),
        }
    }
}

/// Where a publisher's events go.
pub(crate) struct Target {
    pub(crate) hub: Arc<Hub>,
    /// `None`: by key, else in turn.
    pub(crate) partition: Option<u32>,
}

/// Where a receiver's events come from.
pub(crate) struct Source {
    pub(crate) hub: Arc<Hub>,
    pub(crate) partition: Arc<Partition>,
    /// The first sequence number.
    pub(crate) next: i64,
    /// Every event also tells of the end of the partition.
    pub(crate) metrics: bool,
}

/// Decides on an attach. A receiver that is let in has displaced those it displaces.
pub(crate) fn plan(core: &Core, connection: &Connection, attach: &Attach) -> Plan {
    let text = address_text(attach);
    let address = text.as_deref().and_then(|text| text.parse::<Address>().ok());
    let place = place(core, connection, attach, address.as_ref());
    let filter = filter_text(attach);
    let strike = core.strike(Moment::Attach, &place, 0, 0);
    let node = match (&strike, address) {
        (Some(Kind::AttachRefuse { condition }), _) => {
            Err(amqp_error(condition, "The emulator was asked to refuse the link."))
        }
        (Some(Kind::StaleOffset), _) => {
            let text = condition::unknown_offset(filter.as_deref().unwrap_or_default(), "-1");
            Err(amqp_error(condition::ARGUMENT_ERROR, text))
        }
        (_, Some(address)) => node(core, connection, attach, &address, &place, filter.as_deref()),
        (_, None) => Err(not_found(text.as_deref().unwrap_or_default())),
    };
    let is_geo = core.settings().offsets == OffsetMode::Opaque;
    Plan {
        place,
        node,
        epoch: epoch(attach),
        filter,
        properties: properties_text(attach),
        offers: is_geo.then_some(GEO_REPLICATION_CAPABILITY),
        no_credit: matches!(strike, Some(Kind::CreditZero)),
    }
}

pub(crate) fn not_found(what: &str) -> AmqpError {
    let text = format!("The messaging entity '{what}' could not be found.");
    amqp_error(condition::NOT_FOUND, text)
}

pub(crate) fn condition_of(error: &AmqpError) -> String {
    match &error.condition {
        ErrorCondition::Custom(symbol) => symbol.to_string(),
        other => format!("{other:?}"),
    }
}

fn node(
    core: &Core,
    connection: &Connection,
    attach: &Attach,
    address: &Address,
    place: &Place,
    filter: Option<&str>,
) -> Result<Node, AmqpError> {
    let hub = |name: &str| core.namespace.hub(name).ok_or_else(|| not_found(name));
    match (address, &attach.role) {
        (Address::Cbs, Role::Sender) => {
            let pairs = connection.cbs_pairs.fetch_add(1, Ordering::Relaxed);
            if pairs > 0 && core.settings().one_cbs_link_pair {
                let text = "The connection has a link pair to $cbs already.";
                return Err(amqp_error(condition::NOT_ALLOWED, text));
            }
            Ok(Node::Request(LinkKind::Cbs))
        }
        (Address::Cbs, Role::Receiver) => Ok(Node::Request(LinkKind::Cbs)),
        (Address::Management, _) => Ok(Node::Request(LinkKind::Mgmt)),
        (Address::Hub { hub: name }, Role::Sender)
        | (Address::Publisher { hub: name, .. }, Role::Sender) => {
            Ok(Node::Publish(Target { hub: hub(name)?, partition: None }))
        }
        (Address::Partition { hub: name, partition }, Role::Sender) => {
            let hub = hub(name)?;
            let index = hub.index_of(partition).ok_or_else(|| no_partition(partition, &hub))?;
            Ok(Node::Publish(Target { hub, partition: Some(index) }))
        }
        (Address::Events { hub: name, group, partition }, Role::Receiver) => {
            let hub = hub(name)?;
            if !hub.has_consumer_group(group) {
                return Err(not_found(&format!("{name}/ConsumerGroups/{group}")));
            }
            let index = hub.index_of(partition).ok_or_else(|| no_partition(partition, &hub))?;
            receive(core, hub, group, index, attach, place, filter).map(Node::Receive)
        }
        _ => Err(amqp_error(
            condition::NOT_ALLOWED,
            format!("A link of this direction cannot be attached to '{address}'."),
        )),
    }
}

fn receive(
    core: &Core,
    hub: Arc<Hub>,
    group: &str,
    index: u32,
    attach: &Attach,
    place: &Place,
    filter: Option<&str>,
) -> Result<Source, AmqpError> {
    let partition = hub.partition(index).ok_or_else(|| not_found(&index.to_string()))?;
    let position = match filter {
        None => Position::Latest,
        Some(text) => text
            .parse::<Position>()
            .map_err(|error| amqp_error(condition::ARGUMENT_ERROR, error.to_string()))?,
    };
    let next = locate(core, &partition, &position)?;
    let id = place.link_id.unwrap_or_default();
    let displaced = hub
        .admission
        .enter(group, index, id, epoch(attach))
        .map_err(|refusal| amqp_error(refusal.condition, refusal.description))?;
    core.displace(displaced);
    let wants = attach.desired_capabilities.as_ref();
    let metrics = wants.is_some_and(|wants| {
        wants.0.iter().any(|capability| capability.as_str() == RUNTIME_METRIC_CAPABILITY)
    });
    Ok(Source { hub, partition, next, metrics })
}

fn locate(core: &Core, partition: &Partition, position: &Position) -> Result<i64, AmqpError> {
    if let Position::Offset { offset, .. } = position
        && core.settings().refuse_numeric_offsets
        && offset.parse::<i64>().is_ok()
    {
        let text = condition::unknown_offset(offset, &partition.extent().last_offset());
        return Err(amqp_error(condition::ARGUMENT_ERROR, text));
    }
    partition.locate(position).map_err(|error| {
        let text = match error {
            NoSuchPosition::Offset(offset, last) => condition::unknown_offset(&offset, &last),
            NoSuchPosition::SequenceNumber(number, last) => {
                condition::unknown_sequence_number(number, last)
            }
        };
        amqp_error(condition::ARGUMENT_ERROR, text)
    })
}

fn no_partition(partition: &str, hub: &Hub) -> AmqpError {
    amqp_error(
        condition::ARGUMENT_OUT_OF_RANGE,
        format!(
            "The specified partition is invalid for an EventHub partition sender or receiver: \
             '{partition}'. It should be between 0 and {}.",
            hub.partition_count() - 1
        ),
    )
}

fn address_text(attach: &Attach) -> Option<String> {
    let address = match attach.role {
        Role::Sender => match attach.target.as_deref()? {
            TargetArchetype::Target(target) => target.address.as_ref()?,
            #[allow(unreachable_patterns)]
            _ => return None,
        },
        Role::Receiver => attach.source.as_ref()?.address.as_ref()?,
    };
    Some(address.to_string())
}

fn place(
    core: &Core,
    connection: &Connection,
    attach: &Attach,
    address: Option<&Address>,
) -> Place {
    let mut place = connection.place();
    place.link_id = Some(core.next_id());
    place.hub = address.and_then(Address::hub).map(str::to_owned);
    place.link = Some(match (address, &attach.role) {
        (Some(Address::Cbs), _) => LinkKind::Cbs,
        (Some(Address::Management), _) => LinkKind::Mgmt,
        (_, Role::Sender) => LinkKind::Send,
        (_, Role::Receiver) => LinkKind::Recv,
    });
    match address {
        Some(Address::Partition { partition, .. }) => place.partition = Some(partition.clone()),
        Some(Address::Events { group, partition, .. }) => {
            place.group = Some(group.clone());
            place.partition = Some(partition.clone());
        }
        _ => {}
    }
    place
}

fn epoch(attach: &Attach) -> Option<i64> {
    match attach.properties.as_ref()?.get(&Symbol::from(EPOCH))? {
        Value::Long(epoch) => Some(*epoch),
        Value::Int(epoch) => Some(i64::from(*epoch)),
        Value::Uint(epoch) => Some(i64::from(*epoch)),
        Value::Ulong(epoch) => i64::try_from(*epoch).ok(),
        _ => None,
    }
}

fn properties_text(attach: &Attach) -> String {
    let properties = attach.properties.iter().flatten();
    let texts = properties.map(|(key, value)| format!("{}={value:?}", key.as_str()));
    texts.collect::<Vec<_>>().join(", ")
}

/// The selector, whichever way it is described; `None` when there is none.
fn filter_text(attach: &Attach) -> Option<String> {
    let filters = attach.source.as_ref()?.filter.as_ref()?;
    let value = filters.get(&Symbol::from(filter::NAME)).or_else(|| filters.values().next())?;
    match value {
        Value::Described(described) => match &described.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        },
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}
