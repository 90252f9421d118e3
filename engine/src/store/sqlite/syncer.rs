//! The thread that syncs the write-ahead log, for everybody who waits for the disk by then.
//!
//! SQLite itself would sync within the commit, with the lock held that all processes share: then each step of each
//! process waits for the syncs of all. Here a commit only writes; the lock is free at once, others see the step and
//! go on, and the answer waits for the sync. While one sync runs the next ones gather, so that any number of steps
//! shares one. The log is written in its order: what a sync has put on the disk includes all that it builds on.
//!
//! A sync that fails leaves the log in doubt: the system may count as written what never got to the disk, and the next
//! sync would say that all is well. So no sync counts from then on until the whole log was written again, and synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::fault::not_synced;
use crate::store::{Result, StoreError};

/// What to do when the disk has it, or could not take it.
type Then = Box<dyn FnOnce(Result<()>) + Send>;

/// Ends its thread when it is dropped, after what waits is synced.
#[derive(Debug)]
pub(super) struct Syncer {
    /// `None` only while it is dropped.
    waiting: Option<mpsc::Sender<Then>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    /// Something may be missing on the disk that a sync would not bring there.
    in_doubt: Arc<AtomicBool>,
}

impl Syncer {
    /// Starts the thread for the log at `path`, which must be there: it is as long as the database is open.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        // Opened now and for good. The system tells each descriptor once of what it could not write since that was
        // opened; one that is opened later would not hear of it.
        let log = File::open(&path)?;
        // The log may be new: what is in it is on the disk only if its name is there too.
        sync_folder(&path)?;
        let (waiting, queue) = mpsc::channel::<Then>();
        let in_doubt = Arc::new(AtomicBool::new(false));
        let (name, doubt) = (path.clone(), Arc::clone(&in_doubt));
        let run = move || {
            for first in &queue {
                let together: Vec<Then> = std::iter::once(first).chain(queue.try_iter()).collect();
                let synced = if doubt.load(Ordering::SeqCst) {
                    Err(StoreError::Unknown(format!("{} is in doubt", name.display())))
                } else {
                    log.sync_data().map_err(|error| {
                        doubt.store(true, Ordering::SeqCst);
                        StoreError::Unknown(not_synced(&name, &error))
                    })
                };
                for then in together {
                    then(synced.clone());
                }
            }
        };
        let thread = thread::Builder::new().name("conga-sync".to_owned()).spawn(run)?;
        Ok(Self {
            waiting: Some(waiting),
            thread: Some(thread),
            path,
            in_doubt,
        })
    }

    /// Whether a sync has failed, so that the log has to be written again.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Writes the log again as it is, and syncs it. Only for one who holds the lock for writing: then nobody else
    /// writes to it, and those who read it find the same bytes all the while.
    /// Answers what is wrong if it can't.
    pub(super) fn write_again(&self) -> std::result::Result<(), String> {
        write_again(&self.path).map_err(|error| not_synced(&self.path, &error))?;
        self.in_doubt.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Does `then` when everything that is committed by now is on the disk.
    pub(super) fn after(&self, then: Then) {
        let refused = match &self.waiting {
            Some(waiting) => waiting.send(then).err().map(|refused| refused.0),
            None => Some(then),
        };
        if let Some(then) = refused {
            then(Err(StoreError::Unknown("the thread that syncs has ended".to_owned())));
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.waiting = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            drop(thread.join());
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    match File::open(folder)?.sync_all() {
        // There are filesystems that know no such thing.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// SQLite takes its locks on other files, so opening and closing this one disturbs none.
fn write_again(path: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        log.seek(SeekFrom::Start(at))?;
        let length = log.read(&mut bytes)?;
        if length == 0 {
            return log.sync_data();
        }
        log.seek(SeekFrom::Start(at))?;
        log.write_all(&bytes[..length])?;
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn synced(syncer: &Syncer) -> Result<()> {
        let (tell, told) = mpsc::channel();
        syncer.after(Box::new(move |synced| tell.send(synced).unwrap()));
        told.recv().unwrap()
    }

    #[test]
    fn after_a_failure_no_sync_counts_until_all_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (log, real) = (folder.path().join("log"), folder.path().join("real"));
        // A device that can't be synced, in the place of a disk that fails.
        symlink("/dev/null", &log).unwrap();
        let syncer = Syncer::start(log.clone()).unwrap();
        assert!(!syncer.is_in_doubt());
        assert!(matches!(synced(&syncer), Err(StoreError::Unknown(why)) if why.contains("could not be synced")));
        assert!(syncer.is_in_doubt());
        assert!(syncer.write_again().is_err(), "it still fails");
        assert!(matches!(synced(&syncer), Err(StoreError::Unknown(why)) if why.contains("in doubt")));
        let bytes = b"0123456789".repeat(300_000);
        std::fs::write(&real, &bytes).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&real)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        std::fs::remove_file(&log).unwrap();
        symlink(&real, &log).unwrap();
        syncer.write_again().unwrap();
        assert!(!syncer.is_in_doubt());
        assert_eq!(std::fs::read(&real).unwrap(), bytes);
        assert!(
            std::fs::metadata(&real).unwrap().modified().unwrap() > long_ago,
            "it was written"
        );
    }

    #[test]
    fn a_log_that_is_not_there_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Syncer::start(folder.path().join("log")).is_err());
    }
}
