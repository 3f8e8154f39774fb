//! The file of the embedded state: how it is made, what is wrong with it and what to do about that.
//!
//! redb answers nothing more once the disk has failed it, and a disk that was full may have room
//! again: after an error the file is closed, and the next who needs it opens it anew.

use std::{
    io::ErrorKind,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use redb::{Database, DatabaseError, Error};
use tracing::subscriber::{NoSubscriber, with_default};

/// A file of state, open or to be opened again.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// None after an error.
    database: Mutex<Option<Database>>,
}

/// Why a file of state cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}: {error}", .path.display(), advice(.error))]
pub(super) struct FileError {
    path: PathBuf,
    error: Error,
}

impl FileError {
    /// Whether another process has it open.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.error, Error::DatabaseAlreadyOpen)
    }
}

impl StateFile {
    /// Opens the file, and makes it where there is none. Reads all of it: a damaged checkpoint
    /// could say that events are settled which are not.
    pub(super) fn open(path: PathBuf) -> Result<Self, FileError> {
        let opened = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            if path.try_exists()? { open(&path) } else { make(&path) }
        };
        match opened() {
            Ok(database) => Ok(Self { path, database: Mutex::new(Some(database)) }),
            Err(error) => Err(FileError { path, error }),
        }
    }

    /// What `work` makes of it. Blocks on the disk, and while somebody else works with it.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, FileError> {
        let mut place = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match place.take() {
            Some(database) => Ok(database),
            // It is not made anew: nothing would be known of what was in it.
            None => open(&self.path),
        }
        .and_then(|database| work(&database).map(|made| (made, database)));
        match done {
            Ok((made, database)) => {
                *place = Some(database);
                Ok(made)
            }
            Err(error) => Err(FileError { path: self.path.clone(), error }),
        }
    }
}

fn open(path: &Path) -> Result<Database, Error> {
    let opened = || {
        let mut database = Database::open(path)?;
        let is_whole = database.check_integrity()?;
        Ok((database, is_whole))
    };
    // After a crash redb believes what it reads before it has checked it, and panics over what
    // cannot be. To the log of panics that is no defect of ours: the error tells of it.
    let opened = || with_default(NoSubscriber::new(), opened);
    let contradiction = |_| Err(Error::Corrupted("it contradicts itself".to_owned()));
    let (database, is_whole) = catch_unwind(opened).unwrap_or_else(contradiction)?;
    if !is_whole {
        tracing::warn!(file = %path.display(), "the file of state was damaged and has been repaired");
    }
    Ok(database)
}

/// Makes the file under another name first, so that one of this name was whole once: an empty one
/// has lost what it held.
fn make(path: &Path) -> Result<Database, Error> {
    let begun = path.with_extension("begun");
    let database = match Database::create(&begun) {
        // Somebody was killed who made it; whoever makes it now has it locked.
        Err(DatabaseError::Storage(redb::StorageError::Io(error)))
            if error.kind() == ErrorKind::InvalidData =>
        {
            std::fs::remove_file(&begun)?;
            Database::create(&begun)?
        }
        made => made?,
    };
    if path.try_exists()? {
        // Another process was faster.
        return open(path);
    }
    std::fs::rename(&begun, path)?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(database)
}

/// What is wrong, and what to do about it.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::DatabaseAlreadyOpen => {
            "another process has it open; stop that one, or name another directory in `state`"
        }
        Error::UpgradeRequired(_)
        | Error::TableTypeMismatch { .. }
        | Error::TypeDefinitionChanged { .. } => OF_ANOTHER_VERSION,
        // redb has a type of its own for an older one alone.
        Error::Corrupted(text) if text.contains("file format version") => OF_ANOTHER_VERSION,
        Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::FileTooLarge | ErrorKind::QuotaExceeded => {
                "the disk is full; make room, nothing is lost meanwhile"
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "it cannot be written; let the daemon read and write it and its directory"
            }
            ErrorKind::NotFound => "it is gone; put it back, or start the daemon anew",
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => DAMAGED,
            _ => "the disk has failed; nothing is lost meanwhile",
        },
        _ => DAMAGED,
    }
}

const OF_ANOTHER_VERSION: &str = "it is of another version; run the version that wrote it, or move it away: hubs are then read \
     from where their `start` says, and what was delivered may come again";
const DAMAGED: &str = "it is damaged; put a copy back, or move it away: hubs are then read from where their `start` \
     says, which with `latest` leaves out what came meanwhile, and what was delivered may come again";
