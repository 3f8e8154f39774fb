//! The object store of claim checks: puts bodies, gets them back, and says what its errors mean.

use std::{
    collections::HashMap,
    path::Path as FilePath,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, path::Path as ObjectPath,
};
use tokio::time::{Instant, timeout};

use super::Reference;
use crate::fault::Fault;

/// No request may take longer: 64 MiB at 20 Mbit/s.
const CALL_MAX: Duration = Duration::from_secs(30);
/// A body that was stored so recently need not be stored again: several sinks want it, or its
/// event is sent again. Far less than the least age at which lifecycle rules delete.
const FRESH: Duration = Duration::from_secs(300);
/// How many of them are remembered.
const FRESH_MAX: usize = 10_000;

/// An object store and the place in it that is ours.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Option<String>,
    /// The URL that all references into it begin with.
    root: String,
    /// When each body was stored last, by its hash.
    fresh: Mutex<HashMap<String, Instant>>,
}

/// Why a body cannot be had.
#[derive(Debug)]
pub enum Missed {
    /// It is not there, is another one, or is not ours to fetch; that will not change.
    Lost(&'static str),
    /// The store does not answer now.
    Away(Fault),
}

impl Store {
    /// The objects below `prefix`, whose URLs begin with `root`.
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, root: &str, prefix: Option<&str>) -> Self {
        let root = match prefix {
            Some(prefix) => format!("{root}/{prefix}"),
            None => root.to_owned(),
        };
        Self { objects, prefix: prefix.map(str::to_owned), root, fresh: Mutex::default() }
    }

    /// A directory, which is made where it is not there.
    pub(crate) async fn directory(path: &FilePath) -> Result<Self, Fault> {
        let unusable = |error: std::io::Error| {
            let text = format!("{}: {error}", path.display());
            Fault::stop("open directory", "settings", text)
        };
        tokio::fs::create_dir_all(path).await.map_err(unusable)?;
        let path = tokio::fs::canonicalize(path).await.map_err(unusable)?;
        let root = file_url(&path);
        // What is confirmed must be on the disk: its event leaves its source for it.
        let opened = LocalFileSystem::new_with_prefix(&path).map(|files| files.with_fsync(true));
        let files = opened.map_err(|error| fault("open directory", &root, &error))?;
        Ok(Self::new(Arc::new(files), &root, None))
    }

    /// The URL that all references into it begin with.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Stores the body that `reference` is to. Storing it again changes nothing but its age.
    ///
    /// # Errors
    /// The store has not confirmed it.
    pub async fn put(&self, reference: &Reference, body: &Bytes) -> Result<(), Fault> {
        const OP: &str = "store body";
        if self.is_fresh(&reference.sha256) {
            return Ok(());
        }
        let path = self.path(reference);
        match timeout(CALL_MAX, self.objects.put(&path, body.clone().into())).await {
            Ok(Ok(_)) => self.note_fresh(&reference.sha256),
            Ok(Err(error)) => return Err(fault(OP, &self.root, &error)),
            Err(_) => return Err(self.no_answer(OP)),
        }
        Ok(())
    }

    /// The body that `reference` is to.
    ///
    /// # Errors
    /// There is no such body in this store, or the store does not answer.
    pub async fn get(&self, reference: &Reference) -> Result<Bytes, Missed> {
        const OP: &str = "fetch body";
        if let Some(why) = reference.refused_by(&self.root) {
            return Err(Missed::Lost(why));
        }
        let path = self.path(reference);
        let fetch = async {
            let object = self.objects.get(&path).await?;
            // Nothing is read of an object that is larger than was promised.
            if usize::try_from(object.meta.size) != Ok(reference.bytes) {
                return Ok(None);
            }
            object.bytes().await.map(Some)
        };
        match timeout(CALL_MAX, fetch).await {
            Ok(Ok(Some(body))) if reference.is_to(&body) => Ok(body),
            Ok(Ok(_)) => Err(Missed::Lost("the object that it refers to holds another body")),
            Ok(Err(Error::NotFound { .. })) => {
                Err(Missed::Lost("the object that it refers to is gone"))
            }
            Ok(Err(error)) => Err(Missed::Away(fault(OP, &self.root, &error))),
            Err(_) => Err(Missed::Away(self.no_answer(OP))),
        }
    }

    fn path(&self, reference: &Reference) -> ObjectPath {
        match &self.prefix {
            Some(prefix) => ObjectPath::from(format!("{prefix}/{}", reference.name())),
            None => ObjectPath::from(reference.name()),
        }
    }

    fn no_answer(&self, op: &'static str) -> Fault {
        let text = format!("{}: no answer within {} s", self.root, CALL_MAX.as_secs());
        Fault::busy(op, "timeout", text)
    }

    fn is_fresh(&self, sha256: &str) -> bool {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.get(sha256).is_some_and(|stored| stored.elapsed() < FRESH)
    }

    fn note_fresh(&self, sha256: &str) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() >= FRESH_MAX {
            fresh.retain(|_, stored| stored.elapsed() < FRESH);
        }
        // Whatever does not find room is stored again, which costs a request.
        if fresh.len() < FRESH_MAX {
            fresh.insert(sha256.to_owned(), Instant::now());
        }
    }
}

/// What a failed request means. Its text is made here: those of the clients hold whole answers.
fn fault(op: &'static str, root: &str, error: &Error) -> Fault {
    let (class, what) = match error {
        Error::NotFound { .. } => {
            ("missing", "is not there; create it, or mend its name, region or account".to_owned())
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ("refused", "access denied; check the credentials and what they are allowed".to_owned())
        }
        _ => match on_disk(error) {
            Some(error) => ("directory", error.to_string()),
            None => {
                let text = format!("{root}: {}", root_cause(error));
                return Fault::busy(op, "unavailable", text);
            }
        },
    };
    Fault::stop(op, class, format!("{root}: {what}"))
}

/// The system's own error, where only somebody's hand can mend it.
fn on_disk(error: &Error) -> Option<&std::io::Error> {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            let lasting = [NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem];
            return lasting.contains(&io.kind()).then_some(io);
        }
        next = cause.source();
    }
    None
}

/// The end of an error's chain, without URLs, which may be signed, and without what else a server
/// has to say.
fn root_cause(error: &Error) -> String {
    const LONGEST: usize = 120;
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    let text = text.split(['<', '\n']).next().unwrap_or_default();
    let text = text.trim_end_matches([' ', ':']);
    match text.contains("://") || text.is_empty() {
        true => "the connection failed".to_owned(),
        false => text.chars().take(LONGEST).collect(),
    }
}

/// A path as a URL.
fn file_url(path: &FilePath) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match plain(*byte) {
            true => url.push(char::from(*byte)),
            false => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}
