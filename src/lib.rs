//! eventferry carries events between clouds: SNS and SQS in AWS, Event Hubs and Storage Queues in
//! Azure. It is a relay, not a broker: the clouds' queues are its backlog.
//!
//! **The promise.** An event leaves its source only when every sink that accepted it, or a
//! dead-letter sink, has confirmed it. Everything else bends to this.
//!
//! The modules, in the order in which an event meets them:
//!
//! 1. [`cli`] takes commands; [`config`] reads and checks the YAML file; what it passes cannot be wrong.
//! 2. [`daemon`] starts, watches, takes up another file and drains; [`pipeline`] wires one source to
//!    its sinks.
//! 3. [`source`] receives deliveries and owns their leases and settlement.
//! 4. [`decode`] makes an [`event`] of what a [`delivery`] holds; [`metadata`] keeps what a
//!    service cannot hold natively.
//! 5. [`route`] picks the routes that accept the event.
//! 6. [`transform`] makes of it what each of them sends.
//! 7. [`dedup`] claims its key on routes that ask for it, so that it is delivered once.
//! 8. [`deliver`] batches, orders and retries around any [`sink`], and parks what cannot be
//!    delivered as a [`dead_letter`], which [`redrive`] brings back.
//!    What is too large for its sink is made smaller, or its body goes to the object store of
//!    [`claim`] and a reference in its place.
//! 9. [`settle`] joins the answers of a fan-out into one outcome per delivery and keeps leases
//!    alive; [`checkpoint`] keeps the contiguous watermark of each partition in the [`state`],
//!    by which replicas also share the partitions.
//! 10. [`cloud`] knows credentials and endpoints, [`fault`] what an error means, [`trace`] makes
//!     spans of an event's way, [`telemetry`] has the names of metrics and sends all of it to a
//!     collector, [`admin`] serves it.
//!
//! Invariants, held by types and by `tests/it/tidy.rs`:
//!
//! 1. Only `source/`, `sink/`, `cloud/` and `state/` import provider SDKs and `eventhubs`.
//! 2. Only `pipeline`, `daemon`, `main` and the listener of `admin`, one for each connection, spawn
//!    tasks; every channel and every loop is bounded.
//! 3. Only `deliver`'s retry, the keepers of leases, claims and shares, the batch linger, the pace
//!    of a redrive, the exporter of telemetry, the daemon's look at its file, its samples of the last
//!    hour, and the deadlines of `admin` and what it tells live wait on time, and all time is tokio's,
//!    so that every test can run paused.
//! 4. `decode`, `metadata`, `route` and `transform` do no I/O.
//! 5. No source is settled before every accepting sink, or the dead letter, has confirmed.
//! 6. A checkpoint is a contiguous prefix: nothing past the first unsettled event of a partition
//!    is ever written.
//! 7. A deduplication claim is committed only after delivery and released on failure; what somebody
//!    else has claimed is never settled as done.
//! 8. Another configuration is taken up as a whole or not at all, and an event meets one of them.
//! 9. No payload, secret or connection string reaches a log, a span or an error message.

/// Whether a mistake is built in, which only a test of the simulation does.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(test)]
        let planted = {
            use crate::pipeline::simulation::planted;
            planted::is(planted::Bug::$bug)
        };
        #[cfg(not(test))]
        let planted = false;
        planted
    }};
}

/// A point at which a test may end the process, as kill -9 would. Nothing in any other build.
macro_rules! failpoint {
    ($point:ident) => {{
        #[cfg(feature = "failpoints")]
        $crate::fault::point::pass($crate::fault::point::Point::$point);
    }};
}

pub mod cli;
pub mod config;
pub mod daemon;
pub mod pipeline;
pub mod source;
pub mod decode;
pub mod event;
pub mod delivery;
pub mod metadata;
pub mod route;
pub mod transform;
pub mod dedup;
pub mod deliver;
pub mod sink;
pub mod claim;
pub mod dead_letter;
pub mod redrive;
pub mod settle;
pub mod checkpoint;
pub mod state;
pub mod cloud;
pub mod fault;
pub mod trace;
pub mod telemetry;
pub mod admin;
