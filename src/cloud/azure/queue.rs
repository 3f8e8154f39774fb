//! A queue of a storage account, as source and sink share it.

use std::{sync::Arc, time::Duration};

use azure_storage_queue::{
    QueueClient, QueueClientOptions, models::QueueClientGetPropertiesResultHeaders as _,
};
use time::OffsetDateTime;

use super::{
    Config,
    storage::{Refusal, Service, call, is_not_permitted, shown},
};
use crate::fault::Fault;

/// Bytes of a message after encoding.
/// <https://learn.microsoft.com/rest/api/storageservices/put-message>
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The longest that a message can be hidden.
/// <https://learn.microsoft.com/rest/api/storageservices/update-message>
pub(crate) const VISIBILITY_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A queue that has been found.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) client: Arc<QueueClient>,
    /// Its URL without a signature.
    pub(crate) url: Arc<str>,
}

impl Queue {
    /// Finds the queue `name` and asks whether it is there.
    pub(crate) async fn find(name: &str, config: &Config) -> Result<Self, Fault> {
        let endpoint = config.storage(Service::Queue)?;
        let url = endpoint.at(name);
        let shown = shown(&url);
        let options = QueueClientOptions { client_options: endpoint.options, ..Default::default() };
        let client = QueueClient::new(url, endpoint.credential, Some(options))
            .map_err(|_| Fault::stop("connect", "settings", format!("{shown}: unusable URL")))?;
        let queue = Self { client: Arc::new(client), url: shown.into() };
        queue.probe().await?;
        Ok(queue)
    }

    /// Asks whether the queue is there. An identity that may only put or only get messages is not
    /// told; it learns that with its first message.
    pub(crate) async fn probe(&self) -> Result<(), Fault> {
        match self.messages().await {
            Err(refusal) if !is_not_permitted(&refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// About how many messages the queue holds; never fewer than it really does.
    pub(crate) async fn messages(&self) -> Result<u64, Refusal> {
        let answer = self.call("GetQueueMetadata", self.client.get_properties(None)).await?;
        let count = answer.approximate_messages_count().ok().flatten().unwrap_or_default();
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// When the queue took the message at its head, if one waits there.
    pub(crate) async fn oldest(&self) -> Result<Option<OffsetDateTime>, Refusal> {
        // One, unless asked for more.
        let peek = async { self.client.peek_messages(None).await?.into_model() };
        let peeked = self.call("PeekMessages", peek).await?;
        Ok(peeked.items.into_iter().flatten().find_map(|message| message.insertion_time))
    }

    /// Awaits a request to this queue within its deadline.
    pub(crate) async fn call<T>(
        &self,
        op: &'static str,
        request: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Refusal> {
        call(op, &self.url, request).await
    }
}

/// What is wrong with a queue's name.
/// <https://learn.microsoft.com/rest/api/storageservices/naming-queues-and-metadata>
pub(crate) fn name_problem(name: &str) -> Option<(&'static str, String)> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    let text = "a Storage Queue's name has 3 to 63 small letters, digits and single hyphens \
                between them";
    (!good).then(|| ("queue", text.to_owned()))
}

/// Whole seconds, as every visibility is given, rounded up.
pub(crate) fn visibility_s(by: Duration) -> i32 {
    let seconds = by.min(VISIBILITY_MAX).as_millis().div_ceil(1000);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
