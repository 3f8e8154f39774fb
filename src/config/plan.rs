//! What the file comes to once it is checked: every name resolved, every bound kept. The pipeline
//! works from this alone and finds nothing wrong in it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    cloud::Clouds,
    event::Event,
    route::{self, Retry, When, pattern::fields::Wanted},
    sink::SinkConfig,
    source::SourceConfig,
};

/// A configuration without anything wrong in it. Built by [`super::read`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where checkpoints are kept.
    pub state: State,
    /// Defaults per cloud.
    pub clouds: Clouds,
    /// Where the HTTP listener for health and metrics is, if there is one.
    pub admin: Option<SocketAddr>,
    /// How long a stop may take to finish what is open.
    pub grace: Duration,
    /// Sources, in the order of their names. Routes refer to them by index.
    pub sources: Vec<SourcePlan>,
    /// Sinks, in the order of their names. Routes refer to them by index.
    pub sinks: Vec<SinkPlan>,
    /// Routes, in the order of the file.
    pub routes: Vec<RoutePlan>,
    /// The sink for events that no route takes or that cannot be decoded.
    pub dead_letter: Option<usize>,
    /// What becomes of an event that no route takes.
    pub unmatched: Unmatched,
}

/// A source and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePlan {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Exactly one kind is given in it.
    pub config: SourceConfig,
}

/// A sink and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkPlan {
    /// Its name in the file.
    pub name: Arc<str>,
    /// How to build it.
    pub config: SinkConfig,
}

/// A way from sources to sinks.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutePlan {
    /// Its name in the file; unique.
    pub name: Arc<str>,
    /// Sources it reads: indices into [`Plan::sources`]; at least one, none twice.
    pub from: Vec<usize>,
    /// Which of their events it takes.
    pub when: When,
    /// Sinks that must all confirm an event: indices into [`Plan::sinks`]; at least one, none
    /// twice.
    pub to: Vec<usize>,
    /// The sink for what cannot be delivered, never one of `to`. Without one such events are
    /// returned to their source, again and again.
    pub dead_letter: Option<usize>,
    /// How often delivery is tried.
    pub retry: Retry,
}

impl RoutePlan {
    /// Whether this route takes an event that came from one of its sources.
    #[must_use]
    pub fn accepts(&self, event: &Event) -> bool {
        let mut wanted = Wanted::default();
        self.when.want(&mut wanted);
        self.when.accepts(&route::fields(event, &wanted, OffsetDateTime::now_utc()))
    }
}

/// Where checkpoints are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// In this process: a restart reads every partition from its start position again.
    Memory,
    /// In a file on this machine's disk, for one replica.
    Embedded {
        /// Directory of the file; made if it is not there.
        path: PathBuf,
    },
    /// In Azure Blob Storage, in the layout that all Azure SDKs share, for many replicas.
    #[cfg(feature = "azure")]
    Blob(crate::state::blob::Config),
}

impl Default for State {
    fn default() -> Self {
        Self::Embedded { path: "./data".into() }
    }
}

/// What becomes of an event that no route takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It goes to the file's `dead_letter` sink.
    #[default]
    DeadLetter,
    /// It is settled and counted as filtered.
    Drop,
}
