//! Redis, or what speaks its protocol: one store that many replicas share.
//!
//! Every call is one script, so that a batch of claims is atomic per key and one round trip. What
//! Redis has confirmed it may still lose at a fail-over, by its own design: then an event is
//! delivered again, or a partition is read from an older place.

use std::{
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, Script,
    ScriptInvocation, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, DedupStore, Found, PartitionKey, StateStore,
    ownership::{OURS, OwnershipStore},
};
use crate::{
    config::secret::Secret,
    dedup::Key,
    fault::{BoxError, Fault},
};

mod ownership;

/// A Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RedisState")]
pub struct Config {
    /// Where it is: `rediss://HOST:PORT` with TLS, `redis://HOST:PORT` without; a number behind a
    /// slash picks the database. No password: that is a setting of its own.
    pub url: String,
    /// User, where the server knows several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// What all keys begin with: daemons that share a server, but not their work, differ in it.
    #[serde(default = "default_prefix")]
    pub prefix: String,
}

fn default_prefix() -> String {
    "eventferry".to_owned()
}

/// How long a claim lasts without being renewed, which is how long the events of a replica that
/// has died wait for another.
const LEASE: Duration = Duration::from_secs(30);
/// For one answer. Well within a third of the lease, so that a renewal can fail and be repeated.
const ANSWER: Duration = Duration::from_secs(3);
/// For a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// What a key holds whose event has been delivered; else it holds its owner, and the number of the
/// owner's attempts to release that had failed when it was claimed.
const DONE: &str = "d";

/// 0: ours; 1: done; 2: somebody else's.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local answers = {}
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held == ARGV[3] then
    answers[i] = 1
  elseif held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
    answers[i] = 2
  else
    redis.call('SET', key, ARGV[1] .. ARGV[2], 'PX', ARGV[4])
    answers[i] = 0
  end
end
return answers",
    )
});

/// A key that nobody holds any more was ours until its lease ran out, and is done all the same.
static COMMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or held == ARGV[2] or string.sub(held, 1, #ARGV[1]) == ARGV[1] then
    redis.call('SET', key, ARGV[2], 'PX', ARGV[i + 2])
  end
end",
    )
});

/// Leaves alone what its owner has claimed after this release was given up for lost: a server may
/// still carry it out when its sender has long released the key by another, and claimed it again.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held and string.sub(held, 1, #ARGV[1]) == ARGV[1]
    and tonumber(string.sub(held, #ARGV[1] + 1)) <= tonumber(ARGV[2]) then
    redis.call('DEL', key)
  end
end",
    )
});

/// Answers the places of those that somebody else has. One that nobody has is taken again.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local lost = {}
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or string.sub(held, 1, #ARGV[1]) == ARGV[1] then
    redis.call('SET', key, ARGV[1] .. ARGV[2], 'PX', ARGV[3])
  else
    lost[#lost + 1] = i
  end
end
return lost",
    )
});

/// As [`Checkpoint::outranks`] says, and nothing of a partition that another replica has: its owner
/// goes on from where it has begun.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"for i = 1, #KEYS / 2 do
  local key, partition = KEYS[2 * i - 1], ARGV[4 * i - 2]
  local sequence, offset, made = ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1]
  local held = redis.call('HGET', KEYS[2 * i], partition)
  local owner = held and cjson.decode(held).owner or ''
  local known = redis.call('HGET', key, 'sequence')
  local hub = redis.call('HGET', key, 'hub_made')
  local outranks = not known or tonumber(known) < tonumber(sequence)
  if known and hub and hub ~= '' and made ~= '' and hub ~= made then
    outranks = tonumber(made) > tonumber(hub)
  end
  if (owner == '' or owner == ARGV[1]) and outranks then
    redis.call('HSET', key, 'sequence', sequence, 'offset', offset, 'hub_made', made)
  end
end",
    )
});

static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local sequence = redis.call('HGET', KEYS[1], 'sequence')
local hub = redis.call('HGET', KEYS[1], 'hub_made') or ''
if not sequence or (sequence == ARGV[4] and hub == ARGV[5]) then
  redis.call('HSET', KEYS[1], 'sequence', ARGV[1], 'offset', ARGV[2], 'hub_made', ARGV[3])
end",
    )
});

/// Checkpoints and deduplication keys in Redis.
pub struct RedisStore {
    client: Client,
    connection: Mutex<Connection>,
    /// In a cluster the braces keep all keys of a daemon on one node, so that one script may touch
    /// several.
    prefix: String,
    /// Who this process is to others: the beginning of what its claims hold.
    owner: String,
    /// How many of its releases have failed.
    failed_releases: AtomicU64,
    /// The same as the owner of partitions.
    replica: String,
}

/// A manager is a handle: all of its clones share one connection, which it makes anew when the
/// server or the system says that it has ended. Of one that has fallen silent nobody says so.
#[derive(Clone)]
struct Connection {
    manager: ConnectionManager,
    /// How many were there before it.
    number: u64,
}

/// One try each: whoever calls tries again, and says so.
fn settings() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_response_timeout(Some(ANSWER))
        .set_connection_timeout(Some(CONNECT))
}

impl Config {
    /// What is wrong with the settings: the name of one, and what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match self.info() {
            None => problems.push((
                "url",
                "this is no address of a Redis server; write one like `rediss://HOST:6380`"
                    .to_owned(),
            )),
            Some(info) if info.redis_settings().password().is_some() => problems.push((
                "url",
                "a password may not be written out here; take it out, and give it as \
                 `password: ${NAME}` or `password: file:PATH`"
                    .to_owned(),
            )),
            Some(_) => {}
        }
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            let text = "give keys a beginning of their own, without braces, such as `eventferry`";
            problems.push(("prefix", text.to_owned()));
        }
        problems
    }

    fn info(&self) -> Option<ConnectionInfo> {
        self.url.as_str().into_connection_info().ok()
    }

    /// Connects.
    ///
    /// # Errors
    /// The password cannot be read, or the server does not answer or refuses it.
    pub async fn open(&self) -> Result<RedisStore, Fault> {
        let stop = |cause: BoxError| Fault::stop("open state store", "state", cause);
        let info = self.info().ok_or_else(|| stop("unusable `url`".into()))?;
        let mut server = info.redis_settings().clone();
        if let Some(username) = &self.username {
            server = server.set_username(username);
        }
        if let Some(password) = &self.password {
            server = server.set_password(password.read().map_err(|error| stop(error.into()))?);
        }
        let client = Client::open(info.set_redis_settings(server)).map_err(|e| stop(e.into()))?;
        let manager = ConnectionManager::new_with_config(client.clone(), settings()).await;
        let manager = manager.map_err(|error| fault("open state store", error))?;
        let owner = uuid::Uuid::new_v4().simple().to_string();
        Ok(RedisStore {
            client,
            connection: Mutex::new(Connection { manager, number: 0 }),
            prefix: format!("{{{}}}", self.prefix),
            replica: format!("{OURS}{owner}"),
            owner: format!("{owner}."),
            failed_releases: AtomicU64::new(0),
        })
    }
}

impl RedisStore {
    fn key(&self, key: &Key) -> String {
        let mut text = format!("{}:key:", self.prefix);
        for byte in key.0 {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
        }
        text
    }

    /// What a claim made now holds beside its owner.
    fn number(&self) -> u64 {
        self.failed_releases.load(Ordering::Acquire)
    }

    fn add(&self, keys: &[Key], script: &mut ScriptInvocation<'_>) {
        for key in keys {
            script.key(self.key(key));
        }
    }

    fn partition(&self, key: &PartitionKey) -> String {
        let PartitionKey { namespace, hub, group, partition } = key.to_lower_case();
        format!("{}:checkpoint:{namespace}/{hub}/{group}/{partition}", self.prefix)
    }

    async fn run<T: FromRedisValue>(
        &self,
        op: &'static str,
        script: &Script,
        prepare: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, Fault> {
        let mut invocation = script.prepare_invoke();
        prepare(&mut invocation);
        let mut used = self.connection().clone();
        let answer = invocation.invoke_async(&mut used.manager).await;
        self.judge(op, &used, answer)
    }

    async fn ask<T: FromRedisValue>(&self, op: &'static str, command: &Cmd) -> Result<T, Fault> {
        let mut used = self.connection().clone();
        let answer = command.query_async(&mut used.manager).await;
        self.judge(op, &used, answer)
    }

    /// What has become of a request. One without an answer leaves its connection to whoever still
    /// waits there: the next request has another.
    fn judge<T>(
        &self,
        op: &'static str,
        used: &Connection,
        answer: Result<T, RedisError>,
    ) -> Result<T, Fault> {
        answer.map_err(|error| {
            let mut now = self.connection();
            if error.is_timeout() && now.number == used.number {
                // Connects when it is first used; refuses no settings that worked before.
                let another =
                    ConnectionManager::new_lazy_with_config(self.client.clone(), settings());
                if let Ok(manager) = another {
                    *now = Connection { manager, number: used.number + 1 };
                }
            }
            drop(now);
            fault(op, error)
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault(op: &'static str, error: RedisError) -> Fault {
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            Fault::stop(op, "state", error)
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => Fault::stop(op, "state", error),
        _ => Fault::busy(op, "state", error),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl DedupStore for RedisStore {
    async fn claim(&self, keys: &[Key]) -> Result<Vec<Found>, Fault> {
        let answers: Vec<u8> = self
            .run("claim", &CLAIM, |script| {
                self.add(keys, script);
                script.arg(&self.owner).arg(self.number()).arg(DONE).arg(millis(LEASE));
            })
            .await?;
        let found = |answer| match answer {
            0 => Found::Ours,
            1 => Found::Done,
            _ => Found::Theirs,
        };
        Ok(answers.into_iter().map(found).collect())
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        self.run("commit", &COMMIT, |script| {
            script.arg(&self.owner).arg(DONE);
            for (key, ttl) in done {
                script.key(self.key(key)).arg(millis(*ttl));
            }
        })
        .await
    }

    async fn release(&self, keys: &[Key]) -> Result<(), Fault> {
        let released = self.run("release", &RELEASE, |script| {
            self.add(keys, script);
            script.arg(&self.owner).arg(self.number());
        });
        released.await.inspect_err(|_| _ = self.failed_releases.fetch_add(1, Ordering::AcqRel))
    }

    async fn renew(&self, keys: &[Key]) -> Result<Vec<Key>, Fault> {
        let lost: Vec<usize> = self
            .run("renew", &RENEW, |script| {
                self.add(keys, script);
                script.arg(&self.owner).arg(self.number()).arg(millis(LEASE));
            })
            .await?;
        // Lua counts from one.
        Ok(lost.into_iter().filter_map(|place| keys.get(place.checked_sub(1)?).copied()).collect())
    }

    fn lease(&self) -> Option<Duration> {
        Some(LEASE)
    }
}

/// When a checkpoint's hub was made, as it stands beside it; empty where it does not say.
fn made(checkpoint: &Checkpoint) -> String {
    checkpoint.hub_made.map(|made| made.to_string()).unwrap_or_default()
}

#[async_trait]
impl StateStore for RedisStore {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        let mut ask = redis::cmd("HMGET");
        ask.arg(self.partition(partition)).arg(&["sequence", "offset", "hub_made"]);
        type Row = (Option<i64>, Option<String>, Option<String>);
        let (sequence, offset, made): Row = self.ask("load checkpoint", &ask).await?;
        Ok(sequence.map(|sequence| Checkpoint {
            sequence,
            offset: offset.unwrap_or_default(),
            hub_made: made.and_then(|text| text.parse().ok()),
        }))
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        let () = self
            .run("store checkpoints", &STORE, |script| {
                script.arg(&self.replica);
                for (partition, new) in checkpoints {
                    script.key(self.partition(partition)).key(self.ownership_of(partition));
                    script.arg(&partition.partition).arg(new.sequence).arg(&new.offset);
                    script.arg(made(new));
                }
            })
            .await?;
        failpoint!(DuringCheckpoint);
        Ok(())
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        self.run("begin checkpoint", &BEGIN, |script| {
            script.key(self.partition(partition)).arg(first.sequence).arg(&first.offset);
            script.arg(made(first));
            // No sequence number reads so.
            let old = instead_of.map_or_else(|| "-".to_owned(), |old| old.sequence.to_string());
            script.arg(old).arg(instead_of.map(made).unwrap_or_default());
        })
        .await
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        let mut put = redis::cmd("HSET");
        put.arg(self.partition(partition)).arg("sequence").arg(to.sequence);
        put.arg("offset").arg(&to.offset).arg("hub_made").arg(made(to));
        self.ask("put a checkpoint back", &put).await
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.ask("forget checkpoint", redis::cmd("DEL").arg(self.partition(partition))).await
    }

    fn ownership(&self) -> Option<&dyn OwnershipStore> {
        Some(self)
    }
}
