//! Ownership in Redis: a hash per consumer group, a field per partition. Ages are told by the
//! server's clock, and its scripts compare and write in one step.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use redis::Script;
use serde::Deserialize;

use super::RedisStore;
use crate::{
    fault::Fault,
    state::{
        PartitionKey,
        ownership::{Group, Held, OwnershipStore, Record, Written},
    },
};

/// The server's time in milliseconds, and all fields with their values.
static LIST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {now, redis.call('HGETALL', KEYS[1])}",
    )
});

/// Writes a record in place of a version, and answers the new version and the epoch; nothing if the
/// version is another. The epoch rises when the owner changes. Another than the owner that leaves the
/// owner as it is does not renew it.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local text = redis.call('HGET', KEYS[1], ARGV[1])
local old = text and cjson.decode(text) or { version = '', epoch = '0', owner = '' }
if old.version ~= ARGV[2] then return {} end
local epoch, renewed = tonumber(old.epoch), now
if ARGV[3] ~= old.owner and ARGV[3] ~= '' then epoch = epoch + 1 end
if ARGV[3] == old.owner and ARGV[5] ~= old.owner then renewed = old.renewed end
local version = string.format('%.0f', (tonumber(old.version) or 0) + 1)
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({
  version = version, epoch = epoch, renewed = renewed, owner = ARGV[3], wanted_by = ARGV[4]
}))
return {version, epoch}",
    )
});

#[derive(Deserialize)]
struct Field {
    version: String,
    renewed: String,
    owner: String,
    wanted_by: String,
}

fn unreadable(op: &'static str) -> Fault {
    Fault::retry(op, "bad_answer", "what the server holds of a partition cannot be read")
}

impl RedisStore {
    /// The hash of a group.
    pub(super) fn ownership_of(&self, partition: &PartitionKey) -> String {
        let PartitionKey { namespace, hub, group, .. } = partition.to_lower_case();
        format!("{}:ownership:{namespace}/{hub}/{group}", self.prefix)
    }
}

#[async_trait]
impl OwnershipStore for RedisStore {
    fn replica(&self) -> &str {
        &self.replica
    }

    async fn list(&self, group: &Group) -> Result<BTreeMap<String, Held>, Fault> {
        const OP: &str = "list ownership";
        let key = self.ownership_of(&group.partition(""));
        let (now, fields): (String, Vec<(String, String)>) = self
            .run(OP, &LIST, |script| {
                script.key(key);
            })
            .await?;
        let now: u64 = now.parse().map_err(|_| unreadable(OP))?;
        let held = |(partition, text): (String, String)| {
            let field: Field = serde_json::from_str(&text).ok()?;
            let renewed: u64 = field.renewed.parse().ok()?;
            let wanted_by = Some(field.wanted_by).filter(|name| !name.is_empty());
            let held = Held {
                record: Record { owner: field.owner, wanted_by },
                version: field.version,
                age: Duration::from_millis(now.saturating_sub(renewed)),
            };
            Some((partition, held))
        };
        fields.into_iter().map(held).collect::<Option<_>>().ok_or_else(|| unreadable(OP))
    }

    async fn put(
        &self,
        partition: &PartitionKey,
        record: &Record,
        known: Option<&str>,
    ) -> Result<Option<Written>, Fault> {
        const OP: &str = "write ownership";
        let answer: Vec<String> = self
            .run(OP, &PUT, |script| {
                script
                    .key(self.ownership_of(partition))
                    .arg(&partition.partition)
                    .arg(known.unwrap_or_default())
                    .arg(&record.owner)
                    .arg(record.wanted_by.as_deref().unwrap_or_default())
                    .arg(&self.replica);
            })
            .await?;
        let [version, epoch] = answer.as_slice() else { return Ok(None) };
        let epoch = epoch.parse().map_err(|_| unreadable(OP))?;
        Ok(Some(Written { version: version.clone(), epoch }))
    }
}
