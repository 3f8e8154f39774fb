//! Who may want the file to be read again: a signal, somebody at the admin API, or a change of the
//! file itself.
//!
//! Changes are found by reading the file now and then, not by events of the file system:
//! Kubernetes swaps a link to the folder of a ConfigMap, and network file systems have no events.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::reload::{Answer, By, Refused, Request};
use crate::{
    config::{self, Reload, plan::Plan},
    transform::validate::Files,
};

/// A changed file that could not be taken up because something did not answer is tried again after
/// this long.
const AGAIN: Duration = Duration::from_secs(30);
/// Nothing is due: far enough to be no deadline.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// The file that a daemon was started with.
#[derive(Debug)]
pub struct File {
    /// Its path.
    pub path: PathBuf,
    /// Comes in when somebody has sent SIGHUP.
    pub hangup: Signal,
}

/// Everybody who may want the file to be read again.
pub(super) struct Triggers {
    file: Option<File>,
    requests: mpsc::Receiver<Request>,
    every: Option<Duration>,
    /// When to look at the file.
    due: Instant,
    /// What was tried last, whatever became of it.
    tried: Looks,
    /// What it looked like the last time, if that is something else: it may be in the middle of
    /// being written.
    seen: Option<Looks>,
    /// When to try the same once more.
    again: Option<Instant>,
    /// Told what became of the last change.
    answer: Option<oneshot::Receiver<Answer>>,
}

/// What a configuration looks like: the generation of its file, and the files that were read for
/// it. Those that are not there are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Looks {
    generation: Arc<str>,
    files: Files,
}

impl Looks {
    fn of(plan: &Plan) -> Self {
        Self { generation: plan.generation.clone(), files: plan.files() }
    }
}

impl Triggers {
    /// Those of a daemon that runs this plan.
    pub(super) fn new(
        file: Option<File>,
        requests: mpsc::Receiver<Request>,
        running: &Plan,
    ) -> Self {
        let (due, tried) = (Instant::now(), Looks::of(running));
        let (every, seen, again, answer) = (None, None, None, None);
        let mut triggers = Self { file, requests, every, due, tried, seen, again, answer };
        triggers.applied(running);
        triggers
    }

    /// Takes note of what runs from now on.
    pub(super) fn applied(&mut self, running: &Plan) {
        self.every = match running.reload {
            Reload::OnRequest => None,
            Reload::Watch(every) => Some(*every),
        };
        self.due = Instant::now() + self.every.unwrap_or(NEVER);
        self.tried = Looks::of(running);
        (self.seen, self.again) = (None, None);
    }

    /// Where the file is, if the daemon was started with one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.path.clone())
    }

    /// The next request. Cancel-safe.
    pub(super) async fn next(&mut self) -> Request {
        loop {
            let Self { file, requests, due, .. } = self;
            tokio::select! {
                () = hangup(file) => return request(By::Signal).0,
                Some(request) = requests.recv() => return request,
                () = sleep_until(*due) => {}
            }
            let looks = self.looks().await;
            self.due = Instant::now() + self.every.unwrap_or(NEVER);
            if self.every.is_some() && self.has_changed(looks) {
                let (request, answer) = request(By::Change);
                self.answer = Some(answer);
                return request;
            }
        }
    }

    /// Whether what is there is to be tried. What has not been tried before has to stand there for
    /// two looks.
    fn has_changed(&mut self, looks: Option<Looks>) -> bool {
        self.hear();
        // What runs goes on where the file is gone.
        let Some(looks) = looks.filter(|looks| *looks != self.tried) else {
            self.seen = None;
            return self.again.take_if(|at| *at <= Instant::now()).is_some();
        };
        if self.seen.as_ref() != Some(&looks) {
            self.seen = Some(looks);
            return false;
        }
        self.tried = looks;
        (self.seen, self.again) = (None, None);
        true
    }

    /// Takes note of what became of the last change.
    fn hear(&mut self) {
        let Some(Ok(answer)) = self.answer.as_mut().map(oneshot::Receiver::try_recv) else {
            return;
        };
        self.answer = None;
        // What is not there now may be soon.
        if answer.is_err_and(|refused| matches!(*refused, Refused::Unusable(_))) {
            self.again = Some(Instant::now() + AGAIN);
        }
    }

    /// What is there now, if the file can be read.
    async fn looks(&self) -> Option<Looks> {
        let text = tokio::fs::read_to_string(&self.file.as_ref()?.path).await.ok()?;
        let mut files = Files::new();
        for path in self.tried.files.keys() {
            if let Ok(held) = tokio::fs::read(path).await {
                files.insert(path.clone(), Sha256::digest(held).into());
            }
        }
        Some(Looks { generation: config::generation(&text, &files), files })
    }
}

async fn hangup(file: &mut Option<File>) {
    if let Some(file) = file
        && file.hangup.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

fn request(by: By) -> (Request, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Request { by, answer }, answered)
}

#[cfg(test)]
mod tests;
