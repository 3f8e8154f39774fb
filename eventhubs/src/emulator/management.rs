//! The node `$management`: tells of hubs and partitions.

use fe2o3_amqp_types::primitives::{Array, OrderedMap, Value};

use super::{
    armed::Moment,
    config::OffsetMode,
    core::Core,
    event::{AnyMessage, timestamp},
    fault::{Kind, Place},
    journal::What,
    namespace::Hub,
    request::{Answer, property},
};
use crate::management as names;

/// Answers a request; `None`: not at all.
pub(crate) fn answer(core: &Core, place: &Place, request: &AnyMessage) -> Option<Answer> {
    let answer = match core.strike(Moment::Mgmt, place, 0, 0) {
        Some(Kind::MgmtSilent) => return None,
        Some(Kind::Mgmt { code }) => Answer::status(code, "The emulator was asked to answer this."),
        _ if !core.may_read() => Answer::status(
            503,
            "com.microsoft:server-busy: too many reads of properties. Error code : 50002.",
        ),
        _ => read(core, request),
    };
    core.note(place, What::Read { code: answer.code });
    Some(answer)
}

fn read(core: &Core, request: &AnyMessage) -> Answer {
    if property(request, names::OPERATION) != Some(names::READ) {
        return Answer::status(400, "The operation is not READ.");
    }
    let name = property(request, names::NAME).unwrap_or_default();
    let Some(hub) = core.namespace.hub(name) else {
        return Answer::status(404, format!("The messaging entity '{name}' could not be found."));
    };
    match property(request, names::TYPE) {
        Some(names::TYPE_HUB) => found(describe_hub(core, &hub)),
        Some(names::TYPE_PARTITION) => {
            let id = property(request, names::PARTITION).unwrap_or_default();
            match describe_partition(core, &hub, id) {
                Some(description) => found(description),
                None => Answer::status(404, format!("The partition '{id}' could not be found.")),
            }
        }
        _ => Answer::status(400, "The type is neither a hub nor a partition."),
    }
}

type Description = Vec<(&'static str, Value)>;

fn found(description: Description) -> Answer {
    let entries =
        description.into_iter().map(|(key, value)| (Value::String(key.to_owned()), value));
    let body = Value::Map(entries.collect::<OrderedMap<_, _>>());
    Answer { code: names::OK, description: "OK".to_owned(), body }
}

fn describe_hub(core: &Core, hub: &Hub) -> Description {
    let ids = (0..hub.partition_count()).map(|id| Value::String(id.to_string())).collect();
    let replicas = if core.settings().offsets == OffsetMode::Opaque { 2 } else { 1 };
    vec![
        (names::NAME, Value::String(hub.config.name.clone())),
        (names::TYPE, Value::String(names::TYPE_HUB.to_owned())),
        (names::CREATED_AT, timestamp(hub.created_ms)),
        (names::PARTITION_COUNT, Value::Int(hub.partition_count() as i32)),
        (names::PARTITION_IDS, Value::Array(Array(ids))),
        (names::GEO_REPLICATION_FACTOR, Value::Int(replicas)),
    ]
}

fn describe_partition(core: &Core, hub: &Hub, id: &str) -> Option<Description> {
    let extent = hub.partition(hub.index_of(id)?)?.extent();
    let epoch = if core.settings().offsets == OffsetMode::Opaque { 0 } else { -1 };
    Some(vec![
        (names::NAME, Value::String(hub.config.name.clone())),
        (names::PARTITION, Value::String(id.to_owned())),
        (names::TYPE, Value::String(names::TYPE_PARTITION.to_owned())),
        (names::BEGIN_SEQUENCE_NUMBER, Value::Long(extent.begin)),
        (names::BEGIN_SEQUENCE_NUMBER_EPOCH, Value::Int(epoch)),
        (names::LAST_ENQUEUED_SEQUENCE_NUMBER, Value::Long(extent.last_sequence_number())),
        (names::LAST_ENQUEUED_SEQUENCE_NUMBER_EPOCH, Value::Int(epoch)),
        (names::LAST_ENQUEUED_OFFSET, Value::String(extent.last_offset())),
        (names::LAST_ENQUEUED_TIME, timestamp(extent.last_enqueued_ms())),
        (names::IS_PARTITION_EMPTY, Value::Bool(extent.is_empty)),
    ])
}
