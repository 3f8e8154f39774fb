//! How a daemon that runs takes up another configuration: what differs starts anew, everything else
//! goes on untouched.

use std::{path::PathBuf, sync::Arc};

use axum::http::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Daemon, SinkPart, SourcePart, Stage,
    reload::{self, Applied, By, Prepared, Refused, Request},
    running::{Bounds, Ended},
};
use crate::{admin::audit::Change, config::difference::Difference};

impl Daemon {
    /// Makes ready what the file says now. Nothing that runs is touched.
    pub(super) fn prepare(&mut self, request: Request, file: Option<PathBuf>) {
        let Some(file) = file else {
            let _ = request.answer.send(Err(Arc::new(Refused::NoFile)));
            return;
        };
        let (plan, claims) = (self.plan.clone(), self.claims.clone());
        let context = self.context(&"reload".into());
        self.preparing.spawn(async move {
            let prepared = reload::prepare(file, plan, claims, context).await;
            (request, prepared)
        });
    }

    /// Takes up what has been made ready, and tells who asked for it. Answers whether the plan is
    /// another one now.
    pub(super) fn take_up(
        &mut self,
        request: Request,
        prepared: Result<Prepared, Refused>,
    ) -> bool {
        let by = request.by.as_str();
        let generation = |of: &str| Some(json!({ "generation": of }));
        let before = generation(&self.plan.generation);
        let answer = prepared.map(|prepared| self.swap(prepared)).map_err(Arc::new);
        // The API records what it is asked for itself. What does not answer is tried again by itself.
        let is_unusable =
            matches!(&answer, Err(refused) if matches!(**refused, Refused::Unusable(_)));
        if request.by != By::Admin && !(is_unusable && request.by == By::Change) {
            let (status, after) = match &answer {
                Ok(applied) => (StatusCode::OK, generation(&applied.generation)),
                Err(refused) => (refused.status(), None),
            };
            self.audit.reloaded(request.by, status, Change { before, after }, &self.metrics);
        }
        match &answer {
            Ok(Applied { generation, difference }) => {
                self.metrics.configured(&self.plan);
                self.metrics.reloaded(if difference.is_empty() { "unchanged" } else { "applied" });
                let changes: Vec<_> = difference.changes.iter().map(ToString::to_string).collect();
                let restarted: Vec<&str> = difference.restarted.iter().map(|it| &**it).collect();
                tracing::info!(
                    by, %generation, changes = changes.join("; "), restarted = restarted.join(", "),
                    "configuration applied"
                );
            }
            Err(refused) => {
                self.metrics.reloaded(refused.class());
                let (class, why) = (refused.class(), refused.to_string());
                tracing::error!(by, class, why, "configuration refused, nothing has changed");
            }
        }
        let is_another = answer.is_ok();
        // Who asked may have left.
        let _ = request.answer.send(answer);
        is_another
    }

    pub(super) fn swap(&mut self, prepared: Prepared) -> Applied {
        let Prepared { plan, difference, mut sinks, claims } = prepared;
        let plan = Arc::new(plan);
        let stays = |name: &str| !difference.new_sinks.contains(name);
        let mut unconnected = Vec::new();
        for name in difference.new_sinks.difference(&difference.new_connections) {
            match self.outlets.connection(name) {
                Some(sink) => sinks.push((name.clone(), sink)),
                None => unconnected.push(name),
            }
        }
        self.outlets.replan(plan.clone(), claims.clone(), stays);
        (self.plan, self.claims) = (plan, claims);
        self.tell_audit();
        let known = |name: &str| self.plan.sinks.iter().any(|sink| *sink.name == *name);
        self.sinks.retain(|name, part| {
            let stays = stays(name) && known(name);
            if !known(name) {
                self.metrics.forget_sink(name);
            }
            if let Some(task) = part.connecting.as_ref().filter(|_| !stays) {
                task.abort();
            }
            stays
        });
        for (name, sink) in sinks {
            tracing::info!(sink = %name, "sink connected");
            let (number, health) = (self.number(), watch::Sender::new(None));
            if let Some(index) = self.place(&name) {
                self.outlets.expect(index, &health);
                self.outlets.arrived(index, sink);
            }
            self.sinks.insert(name, SinkPart::new(number, None, health));
        }
        for name in unconnected {
            if let Some(index) = self.place(name) {
                self.connect_sink(index);
            }
        }
        self.start_anew(&difference);
        self.watch_health();
        Applied { generation: self.plan.generation.clone(), difference: Arc::new(difference) }
    }

    /// Ends the pipelines that are not as they shall be. The next turn of the daemon starts those
    /// that have ended.
    fn start_anew(&mut self, difference: &Difference) {
        let bounds = Bounds::within(self.plan.grace);
        let plan = self.plan.clone();
        let known = |name: &str| plan.sources.iter().any(|source| *source.name == *name);
        self.sources.retain(|name, part| {
            let is_known = known(name);
            if !is_known || difference.restarted.contains(name) {
                part.end(bounds);
                // What it was to begin with in an earlier change may not have begun yet.
                part.is_new |= difference.new_sources.contains(name);
            }
            is_known || matches!(part.stage, Stage::Ending)
        });
        for source in &self.plan.sources {
            self.sources.entry(source.name.clone()).or_insert_with(SourcePart::new);
        }
    }

    /// A pipeline has ended.
    pub(super) fn ended(&mut self, ended: &Ended) {
        let Ended { source, in_time } = ended;
        tracing::info!(%source, in_time, "pipeline ended");
        match self.rewinds.remove(source) {
            Some(rewinding) => self.go_back(source.clone(), rewinding),
            None => self.start_again(source),
        }
    }

    /// Nothing of a source runs: it starts anew, if it is still in the plan.
    pub(super) fn start_again(&mut self, source: &Arc<str>) {
        if self.plan.sources.iter().all(|known| known.name != *source) {
            self.sources.remove(source);
            self.metrics.forget(source);
            self.tell_overrides();
        } else if let Some(part) = self.sources.get_mut(source) {
            part.stage = Stage::Waiting;
            part.health.send_replace(Some("connecting".to_owned()));
        }
    }
}

impl SourcePart {
    pub(super) fn end(&mut self, bounds: Bounds) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Waiting) {
            Stage::Running(end) => {
                end.begin(bounds);
                self.health.send_replace(Some("ending, to start anew".to_owned()));
                Stage::Ending
            }
            Stage::Connecting(_, task) => {
                task.abort();
                Stage::Waiting
            }
            stage => stage,
        };
    }
}
