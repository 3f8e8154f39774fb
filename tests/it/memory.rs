//! The in-memory connectors pass the contract, so that tests built on them mean something.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use eventferry::{
    sink::{Sink, memory::MemorySink},
    source::{
        Source,
        memory::{Config, Queue},
    },
    state::StateStore,
};

use crate::{fixture::Fixture, rig};

struct Memory(Queue, &'static str);

fn memory(kind: &'static str) -> Memory {
    let config = serde_json::json!({ "queue": kind, "kind": kind, "visibility": "3s" });
    Memory(Queue::new(&serde_json::from_value::<Config>(config).unwrap()), kind)
}

#[async_trait]
impl Fixture for Memory {
    async fn source(&self, store: &Arc<dyn StateStore>) -> Source {
        self.0.source(&rig::context("memory", store)).await.unwrap()
    }
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(MemorySink::new(self.0.clone()))
    }
    fn visibility(&self) -> Option<Duration> {
        (self.1 != "log").then_some(Duration::from_secs(3))
    }
    fn body_max(&self) -> usize {
        1 << 20
    }
    fn ordered(&self) -> bool {
        self.1 != "standard"
    }
    async fn left(&self, store: &Arc<dyn StateStore>) -> usize {
        if self.1 != "log" {
            return self.0.len();
        }
        let backlog = self.source(store).await.settle.backlog().await.unwrap();
        backlog.iter().map(|partition| usize::try_from(partition.events).unwrap()).sum()
    }
}

mod standard {
    async fn fixture() -> super::Memory {
        super::memory("standard")
    }
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, returns_after_the_delay,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        extends_long_leases, stops_extending_when_settled, survives_reconnect, drains_on_stop,
        loses_nothing_when_killed, settles_nothing_while_the_sink_is_down,
        parks_poison_and_lets_its_neighbours_pass,
    );
}

mod fifo {
    async fn fixture() -> super::Memory {
        super::memory("fifo")
    }
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, redelivers_after_a_dropped_delivery,
        settles_out_of_order, survives_partial_batch_failure, extends_long_leases,
        stops_extending_when_settled, keeps_order_per_key, drains_on_stop, loses_nothing_when_killed,
        settles_nothing_while_the_sink_is_down, parks_poison_and_lets_its_neighbours_pass,
    );
}

mod log {
    async fn fixture() -> super::Memory {
        super::memory("log")
    }
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, returns_after_the_delay,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        holds_the_checkpoint_at_a_gap, holds_the_checkpoint_at_a_failed_event, keeps_order_per_key, drains_on_stop, loses_nothing_when_killed,
        settles_nothing_while_the_sink_is_down, parks_poison_and_lets_its_neighbours_pass,
    );
}
