//! What SQLite reports, told apart by what the caller can do.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// The error of a step that was rolled back, or that only read.
pub(super) fn fault(path: &Path, error: &Error) -> StoreError {
    let name = path.display();
    match error.sqlite_error_code() {
        _ if is_locked(error) => StoreError::Unavailable(format!(
            "{name} is locked by another process ({error}); once that lets go of it, all goes on by itself"
        )),
        Some(ErrorCode::DiskFull) => full(path),
        Some(ErrorCode::SystemIoFailure) if is_full(error) => full(path),
        Some(ErrorCode::SystemIoFailure) => StoreError::Unavailable(format!(
            "the disk of {name} fails ({error}); see whether it has space and is healthy; once it works, all goes on \
             by itself"
        )),
        Some(ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted | ErrorCode::SchemaChanged) => {
            StoreError::Unavailable(format!("{name}: {error}"))
        }
        Some(ErrorCode::NotADatabase) => not_a_database(path),
        Some(ErrorCode::DatabaseCorrupt) => damaged(path, &error.to_string()),
        Some(ErrorCode::CannotOpen) => cannot_open(path, error),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied) => {
            read_only(path, &error.to_string())
        }
        _ => StoreError::Broken(format!(
            "{name} holds something unexpected ({error}); it was left as it is"
        )),
    }
}

/// The error of a COMMIT. Where the disk failed in the middle of it, it may count after a restart or not.
pub(super) fn fault_of_commit(path: &Path, error: &Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => StoreError::Unknown(format!(
            "the disk of {} failed in the middle of a step ({error}); see whether it has space and is healthy; once it \
             works, all goes on by itself",
            path.display()
        )),
        _ => fault(path, error),
    }
}

/// Whether somebody else has the file locked.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    )
}

/// Whether it is for want of space on the disk. The file that all processes map into their memory has an error of its
/// own for that.
fn is_full(error: &Error) -> bool {
    match error.sqlite_error() {
        Some(error) => error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE,
        None => false,
    }
}

/// Whether space could help: with a quota, or a limit on the size of a file, SQLite only knows that it can't write.
pub(super) fn wants_room(error: &Error) -> bool {
    is_full(error)
        || error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_WRITE)
}

/// What is said of a log that could not be synced: what was committed is seen, and may be gone after a power cut.
pub(super) fn not_synced(log: &Path, error: &io::Error) -> String {
    format!(
        "{} could not be synced to the disk ({error}); see whether the disk has space and is healthy; once it works, \
         all goes on by itself",
        log.display()
    )
}

pub(super) fn damaged(path: &Path, how: &str) -> StoreError {
    let name = path.display();
    StoreError::Broken(format!(
        "{name} is damaged ({how}); stop every process of the line, then restore it from a backup or save what can be \
         saved with `sqlite3 {name} .recover`"
    ))
}

pub(super) fn read_only(path: &Path, why: &str) -> StoreError {
    StoreError::Broken(format!(
        "{} can't be written ({why}); give this user write permission on the file and its directory, or choose another \
         file with --store sqlite:PATH",
        path.display()
    ))
}

fn full(path: &Path) -> StoreError {
    StoreError::Unavailable(format!(
        "the disk of {} is full; free some space there, and all goes on by itself",
        path.display()
    ))
}

/// SQLite does not say why it can't make or open a file, so one is made beside it to see. Never is one of SQLite's own
/// files opened here: closing it would drop the locks of all this process's connections.
fn cannot_open(path: &Path, error: &Error) -> StoreError {
    let mut probe = OsString::from(path);
    probe.push(format!("-probe-{}", std::process::id()));
    let probed = File::create(&probe);
    drop(fs::remove_file(&probe));
    let name = path.display();
    match probed {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => full(path),
        Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => StoreError::Unavailable(format!(
            "{name} can't be opened: {error}; raise the limit (`ulimit -n`), or let other programs close theirs"
        )),
        _ => StoreError::Broken(format!(
            "{name} can't be opened ({error}); see that its directory exists and that this user may write there, or \
             choose another file with --store sqlite:PATH"
        )),
    }
}

/// Too many files are open in this process, in the system. The same numbers on all of them.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

fn not_a_database(path: &Path) -> StoreError {
    StoreError::Broken(format!(
        "{} is not an SQLite database; choose another file with --store sqlite:PATH; it was left untouched",
        path.display()
    ))
}
