//! The one test binary: the contract suite, the connectors against their emulators, the pipeline,
//! configuration, crashes.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod clouds;
mod contract;
mod deliver;
mod event_hubs;
mod memory;
mod rig;
mod sqs;
