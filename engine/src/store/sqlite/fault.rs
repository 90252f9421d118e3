//! What SQLite reports, told apart by what the caller can do.

use std::path::Path;

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

/// The error of a step that was rolled back, or that only read.
pub(super) fn fault(path: &Path, error: &Error) -> StoreError {
    let name = path.display();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged,
        ) => StoreError::Unavailable(format!("{name}: {error}")),
        Some(ErrorCode::NotADatabase) => not_a_database(path),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Broken(format!(
            "{name} is damaged ({error}); stop every process of the line, then restore it from a backup or save what \
             can be saved with `sqlite3 {name} .recover`"
        )),
        Some(ErrorCode::CannotOpen) => StoreError::Broken(format!(
            "{name} can't be opened ({error}); see that its directory exists and that this user may write there, or \
             choose another file with --store sqlite:PATH"
        )),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Broken(format!(
                "{name} can't be written ({error}); give this user write permission on the file and its directory, or \
                 choose another file with --store sqlite:PATH"
            ))
        }
        _ => StoreError::Broken(format!(
            "{name} holds something unexpected ({error}); it was left as it is"
        )),
    }
}

/// The error of a COMMIT. Where the disk failed in the middle of it, it may count after a restart or not.
pub(super) fn fault_of_commit(path: &Path, error: &Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => StoreError::Unknown(format!("{}: {error}", path.display())),
        _ => fault(path, error),
    }
}

fn not_a_database(path: &Path) -> StoreError {
    StoreError::Broken(format!(
        "{} is not an SQLite database; choose another file with --store sqlite:PATH; it was left untouched",
        path.display()
    ))
}
