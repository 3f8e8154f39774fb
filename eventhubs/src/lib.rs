//! Event Hubs.
