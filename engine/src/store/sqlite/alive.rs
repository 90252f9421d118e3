//! Who is alive: a file for each owner, locked by its process as long as that lives (law 7).
//!
//! The kernel drops the lock with the process, however it ends. So whoever can take an owner's lock knows that the owner
//! is gone, long before its lease or its leader's lock expires. A process that hangs keeps its files; for that there is
//! the expiry. A wrong guess would be harmless: leases and terms decide what counts.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conga_core::lease::OwnerId;

/// Looking costs a few system calls for each owner, so not every claim does.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A file that could not be made is tried again so often.
const SHOW_EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Alive {
    folder: PathBuf,
    /// What the names of this line's files begin with.
    prefix: String,
    /// The locks of this process; none for an owner whose file can't be made: then its expiry has to do.
    held: HashMap<OwnerId, Option<File>>,
    /// When one could not be made.
    refused: Option<Instant>,
    looked: Option<Instant>,
    swept: Instant,
}

impl Alive {
    pub(super) fn beside(database: &Path, line: i64) -> Self {
        let mut folder = OsString::from(database);
        folder.push("-alive");
        Self {
            folder: folder.into(),
            prefix: format!("{line}."),
            held: HashMap::new(),
            refused: None,
            looked: None,
            swept: Instant::now(),
        }
    }

    /// Now and then removes what the dead have left, but for those who are still known: it is by their files that they
    /// are found to be dead.
    pub(super) fn sweep(&mut self, known: &[OwnerId]) {
        if self.swept.elapsed() < SWEEP_EVERY {
            return;
        }
        self.swept = Instant::now();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix(&self.prefix))
                .map(OwnerId::new);
            if owner.is_some_and(|owner| !known.contains(&owner) && self.is_gone(&owner)) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// Shows that `owner` is alive, until it leaves or this process ends.
    pub(super) fn show(&mut self, owner: &OwnerId) {
        let waits = self.refused.is_some_and(|refused| refused.elapsed() < SHOW_EVERY);
        match self.held.get(owner) {
            Some(Some(_)) => return,
            Some(None) if waits => return,
            _ => {}
        }
        let file = match self.path(owner).map(|path| self.lock(&path)).transpose() {
            Ok(file) => file,
            Err(error) => {
                tracing::debug!(%owner, %error, "can't show that this process is alive; it expires if it dies");
                self.refused = Some(Instant::now());
                None
            }
        };
        self.held.insert(owner.clone(), file);
    }

    /// Takes back what was shown for `owner`.
    pub(super) fn leave(&mut self, owner: &OwnerId) {
        if let (Some(Some(_)), Some(path)) = (self.held.remove(owner), self.path(owner)) {
            // What stays is found to be nobody's, and removed, by the next who looks.
            drop(fs::remove_file(path));
        }
    }

    /// Whether it is time to look again who is gone.
    pub(super) fn may_look(&mut self) -> bool {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        if due {
            self.looked = Some(Instant::now());
        }
        due
    }

    /// Whether `owner`'s process is gone. Not known, and so no, for one that never showed itself.
    pub(super) fn is_gone(&self, owner: &OwnerId) -> bool {
        let Some(path) = self.path(owner).filter(|_| !self.held.contains_key(owner)) else {
            return false;
        };
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else {
            return false;
        };
        match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        }
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// The file of an owner whose name can be one.
    fn path(&self, owner: &OwnerId) -> Option<PathBuf> {
        let name = owner.as_str();
        let fits = name.len() <= 100
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fits.then(|| self.folder.join(format!("{}{name}", self.prefix)))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        for owner in self.held.keys().cloned().collect::<Vec<_>>() {
            self.leave(&owner);
        }
        // Only the last one finds it empty.
        drop(fs::remove_dir(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_gone_when_its_lock_is_free_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("conga.db");
        let (mut here, there) = (Alive::beside(&database, 1), Alive::beside(&database, 1));
        let owner = OwnerId::new("a");
        assert!(!there.is_gone(&owner), "never seen");
        here.show(&owner);
        assert!(!there.is_gone(&owner));
        assert!(!here.is_gone(&owner));
        // As a process dies: its files are closed, and stay.
        here.held.clear();
        assert!(there.is_gone(&owner));
        assert!(there.is_gone(&owner), "whoever asks");
        here.show(&owner);
        here.leave(&owner);
        assert!(!there.is_gone(&owner), "it left");
        assert!(!there.is_gone(&OwnerId::new("../a")));
    }

    #[test]
    fn one_that_could_not_be_shown_is_shown_later() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("conga.db");
        let (mut here, there) = (Alive::beside(&database, 1), Alive::beside(&database, 1));
        let owner = OwnerId::new("a");
        fs::write(folder.path().join("conga.db-alive"), "in its place").unwrap();
        here.show(&owner);
        fs::remove_file(folder.path().join("conga.db-alive")).unwrap();
        here.show(&owner);
        assert!(!there.folder.exists(), "it is not time yet");
        here.refused = Instant::now().checked_sub(SHOW_EVERY);
        here.show(&owner);
        here.held.clear();
        assert!(there.is_gone(&owner));
    }

    #[test]
    fn what_the_dead_have_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("conga.db");
        let files = || fs::read_dir(folder.path().join("conga.db-alive")).unwrap().count();
        let (mut here, mut there) = (Alive::beside(&database, 1), Alive::beside(&database, 1));
        for owner in ["alive", "dead", "known"] {
            here.show(&OwnerId::new(owner));
        }
        here.held.retain(|owner, _| owner.as_str() == "alive");
        let known = [OwnerId::new("known")];
        there.sweep(&known);
        assert_eq!(files(), 3, "it is not time yet");
        let mut other_line = Alive::beside(&database, 2);
        other_line.swept = Instant::now().checked_sub(SWEEP_EVERY).unwrap();
        other_line.sweep(&[]);
        assert_eq!(files(), 3, "it is not its line");
        there.swept = Instant::now().checked_sub(SWEEP_EVERY).unwrap();
        there.sweep(&known);
        assert_eq!(files(), 2);
        assert!(there.is_gone(&known[0]), "it can still be found to be dead");
        there.swept = Instant::now().checked_sub(SWEEP_EVERY).unwrap();
        there.sweep(&[]);
        assert_eq!(files(), 1);
        drop((here, there, other_line));
        assert!(!folder.path().join("conga.db-alive").exists(), "nothing is left behind");
    }
}
