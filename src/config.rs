//! The YAML file: layers, references to secrets, and everything that can be wrong with it.

pub mod secret;
pub mod units;
/// stub
#[derive(Debug, Clone)]
pub struct Plan {
    pub state: StateConfig,
    pub clouds: crate::cloud::Clouds,
    pub admin: Option<std::net::SocketAddr>,
    pub grace: units::Span,
    pub sources: Vec<SourcePlan>,
    pub sinks: Vec<SinkPlan>,
    pub routes: Vec<RoutePlan>,
    pub dead_letter: Option<usize>,
    pub unmatched: Unmatched,
}
#[derive(Debug, Clone)]
pub struct SourcePlan {
    pub name: std::sync::Arc<str>,
    pub config: crate::source::SourceConfig,
}
#[derive(Debug, Clone)]
pub struct SinkPlan {
    pub name: std::sync::Arc<str>,
    pub config: crate::sink::SinkConfig,
}
#[derive(Debug, Clone)]
pub struct RoutePlan {
    pub name: std::sync::Arc<str>,
    pub from: Vec<usize>,
    pub when: crate::route::When,
    pub to: Vec<usize>,
    pub dead_letter: Option<usize>,
    pub retry: crate::deliver::Retry,
}
#[derive(Debug, Clone)]
pub enum StateConfig {
    Memory,
    Embedded(Embedded),
}
#[derive(Debug, Clone)]
pub struct Embedded {
    pub path: std::path::PathBuf,
}
#[derive(Debug, Clone, Copy)]
pub enum Unmatched {
    Drop,
    DeadLetter,
}
