//! What an emulator serves and how it behaves.

use std::{net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

/// How an emulator is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of both listeners.
    pub host: IpAddr,
    /// Port of AMQP; 0 takes a free one.
    pub port: u16,
    /// Port of the control API; 0 takes a free one.
    pub control_port: u16,
    /// What is served from the start.
    pub hubs: Vec<HubConfig>,
    /// How it behaves; can be changed while it runs.
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            control_port: 0,
            hubs: Vec::new(),
            settings: Settings::default(),
        }
    }
}

impl Config {
    /// On free ports, with these hubs.
    pub fn with_hubs(hubs: impl IntoIterator<Item = HubConfig>) -> Self {
        Self { hubs: hubs.into_iter().collect(), ..Self::default() }
    }
}

/// A hub to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Its name.
    pub name: String,
    /// How many partitions it has, named "0", "1", ...
    pub partitions: u32,
    /// Its consumer groups beside `$Default`, which every hub has.
    pub consumer_groups: Vec<String>,
    /// Bytes of the largest event or batch.
    pub max_message_bytes: u64,
}

impl HubConfig {
    /// A hub of the Standard tier with no consumer group but `$Default`.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        Self {
            name: name.into(),
            partitions,
            consumer_groups: Vec::new(),
            max_message_bytes: crate::limits::MAX_MESSAGE_BYTES,
        }
    }

    /// The same with one more consumer group.
    pub fn consumer_group(mut self, name: impl Into<String>) -> Self {
        self.consumer_groups.push(name.into());
        self
    }
}

/// How an emulator behaves. Each can be changed while it runs, by `POST /settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Milliseconds between a transfer and its disposition. Not 0 by default, because the official
    /// Rust SDK registers a transfer after sending it and waits for ever when the answer is faster.
    pub disposition_delay_ms: u64,
    /// Milliseconds that the clock of the service runs ahead of this machine's.
    pub clock_offset_ms: i64,
    /// How much faster than the real service the idle rules are.
    pub time_scale: f64,
    /// Milliseconds after which a token that was not put again detaches the links of its hub.
    /// `null`: tokens last for ever, whatever they say themselves.
    pub token_ttl_ms: Option<u64>,
    /// Reads at `$management` that are answered per second; more are refused. `null`: no limit.
    pub max_management_reads_per_second: Option<u32>,
    /// How offsets of new events look.
    pub offsets: OffsetMode,
    /// Whether positions by numeric offset are refused, as after a fail-over to another region.
    pub refuse_numeric_offsets: bool,
    /// Whether events go out settled to receivers that leave it to the service.
    pub settle_deliveries: bool,
    /// Whether a connection may have one link pair to `$cbs` only.
    pub one_cbs_link_pair: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            disposition_delay_ms: 1,
            clock_offset_ms: 0,
            time_scale: 1.0,
            token_ttl_ms: None,
            max_management_reads_per_second: None,
            offsets: OffsetMode::Numeric,
            refuse_numeric_offsets: false,
            settle_deliveries: true,
            one_cbs_link_pair: false,
        }
    }
}

/// How offsets look. Both differ from the sequence number, so that no client can confuse the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetMode {
    /// A number that grows by the size of each event.
    Numeric,
    /// Text that is no number, as in a geo-replicated namespace.
    Opaque,
}

/// A seed file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It cannot be read.
    #[error("cannot read the seed file")]
    Read(#[from] std::io::Error),
    /// It is not what it should be.
    #[error("the seed file is not a configuration of the Event Hubs emulator")]
    Parse(#[from] serde_json::Error),
    /// A hub has an impossible number of partitions.
    #[error("hub `{0}` must have 1 to {max} partitions", max = crate::limits::MAX_PARTITIONS_STANDARD)]
    Partitions(String),
}

/// Reads hubs from a file in the format of Microsoft's own emulator (`Config.json`), so that one
/// file seeds either.
///
/// <https://learn.microsoft.com/azure/event-hubs/test-locally-with-event-hub-emulator>
///
/// # Errors
///
/// When the file cannot be read, is not that format, or asks for an impossible hub.
pub fn hubs_from_file(path: &Path) -> Result<Vec<HubConfig>, SeedError> {
    hubs_from_json(&std::fs::read_to_string(path)?)
}

fn hubs_from_json(text: &str) -> Result<Vec<HubConfig>, SeedError> {
    let seed: Seed = serde_json::from_str(text)?;
    let entities = seed.user_config.namespace_config.into_iter().flat_map(|ns| ns.entities);
    entities.map(hub_from_entity).collect()
}

fn hub_from_entity(entity: Entity) -> Result<HubConfig, SeedError> {
    let partitions = match entity.partition_count {
        Count::Number(count) => Some(count),
        Count::Text(text) => text.parse().ok(),
    };
    let partitions = partitions
        .filter(|count| (1..=crate::limits::MAX_PARTITIONS_STANDARD).contains(count))
        .ok_or_else(|| SeedError::Partitions(entity.name.clone()))?;
    let mut hub = HubConfig::new(entity.name, partitions);
    hub.consumer_groups = entity.consumer_groups.into_iter().map(|group| group.name).collect();
    Ok(hub)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Seed {
    user_config: UserConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UserConfig {
    namespace_config: Vec<NamespaceConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamespaceConfig {
    entities: Vec<Entity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entity {
    name: String,
    partition_count: Count,
    #[serde(default)]
    consumer_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Group {
    name: String,
}

/// Microsoft's examples write the number as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u32),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{"UserConfig": {
        "NamespaceConfig": [{"Type": "EventHub", "Name": "emulatorNs1", "Entities": [
            {"Name": "orders", "PartitionCount": "2", "ConsumerGroups": [{"Name": "cg1"}]},
            {"Name": "devices", "PartitionCount": 4}
        ]}],
        "LoggingConfig": {"Type": "File"}
    }}"#;

    #[test]
    fn a_configuration_of_microsofts_emulator_is_a_seed() {
        let hubs = hubs_from_json(EXAMPLE).unwrap();
        assert_eq!(
            hubs,
            [HubConfig::new("orders", 2).consumer_group("cg1"), HubConfig::new("devices", 4)]
        );
    }

    #[test]
    fn a_hub_without_partitions_is_refused() {
        let error = hubs_from_json(&EXAMPLE.replace("\"2\"", "\"0\"")).unwrap_err();
        assert_eq!(error.to_string(), "hub `orders` must have 1 to 32 partitions");
    }
}
