//! Deadlines and patience.

use std::time::Duration;

/// How a [`Client`](super::Client) behaves in time. The defaults suit the cloud.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names this client in the service's logs, and is the AMQP container id. Made up by default.
    pub id: String,
    /// For TCP, TLS and the AMQP open together.
    pub connect_timeout: Duration,
    /// For one request: a token, an attach, a question about a hub or a partition.
    pub call_timeout: Duration,
    /// AMQP idle time-out: a peer that sends nothing, not even an empty frame, for this long is
    /// dead, and the connection is closed. Half of it is told to the peer.
    pub idle_timeout: Duration,
    /// A receiver that got nothing for this long asks the service whether there is something. If
    /// there is, and it still does not come, the link is made anew.
    pub quiet_check: Duration,
    /// The wait before reconnecting.
    pub backoff: Backoff,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            id: format!("eventhubs-{}", uuid::Uuid::new_v4().simple()),
            connect_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            quiet_check: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// A wait that doubles with each failure up to a maximum, with full jitter on its upper half.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never more than this.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row: nothing after none.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let full = self.first.saturating_mul(1 << doublings.min(16)).min(self.max);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_maximum() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        assert_eq!(backoff.delay(0), Duration::ZERO);
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (5, 1000), (u32::MAX, 1000)] {
            let full = Duration::from_millis(full);
            let delay = backoff.delay(failures);
            assert!(delay <= full && delay >= full / 2, "{failures}: {delay:?}");
        }
    }
}
