//! The one test binary: the contract suite, the connectors against their emulators, the pipeline,
//! configuration, crashes.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[cfg(feature = "redis")]
mod acceptance;
mod admin;
mod blob_state;
mod canary;
#[cfg(feature = "redis")]
mod checkpoints;
mod claim;
mod clouds;
mod config;
mod contract;
mod counted;
mod crash;
mod daemon;
mod dedup;
mod dead_letters;
mod deliver;
mod end_to_end;
mod event_hubs;
mod examples;
mod explain;
mod figures;
mod fixture;
mod flow;
mod hostile;
mod kill_points;
mod memory;
mod network;
mod otlp;
mod pairs;
mod pausing;
mod parking;
mod place;
mod redrive;
#[cfg(feature = "redis")]
mod redis;
mod rig;
mod routing;
#[cfg(feature = "redis")]
mod scale_out;
#[cfg(feature = "redis")]
mod sharing;
#[cfg(feature = "redis")]
mod soak;
mod sqs;
mod sqs_batch;
mod sqs_faults;
mod sqs_outage;
mod state_faults;
mod storage_queue;
mod strategies;
mod tidy;
mod way;
mod world;
