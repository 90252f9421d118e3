//! The thread that syncs the write-ahead log, for everybody who waits for the disk by then.
//!
//! SQLite itself would sync within the commit, with the lock held that all processes share: then each step of each
//! process waits for the syncs of all. Here a commit only writes; the lock is free at once, others see the step and
//! go on, and the answer waits for the sync. While one sync runs the next ones gather, so that any number of steps
//! shares one. The log is written in its order: what a sync has put on the disk includes all that it builds on.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::store::{Result, StoreError};

/// What to do when the disk has it, or could not take it.
type Then = Box<dyn FnOnce(Result<()>) + Send>;

/// Ends its thread when it is dropped, after what waits is synced.
#[derive(Debug)]
pub(super) struct Syncer {
    /// `None` only while it is dropped.
    waiting: Option<mpsc::Sender<Then>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread for the log at `path`.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (waiting, queue) = mpsc::channel::<Then>();
        let run = move || {
            let mut log = None;
            for first in &queue {
                let together: Vec<Then> = std::iter::once(first).chain(queue.try_iter()).collect();
                let synced = sync(&path, &mut log).map_err(|error| {
                    // Opened anew next time: after a failed sync the old one could say that all is well.
                    log = None;
                    StoreError::Unknown(format!("{} could not be synced: {error}", path.display()))
                });
                for then in together {
                    then(synced.clone());
                }
            }
        };
        let thread = thread::Builder::new().name("conga-sync".to_owned()).spawn(run)?;
        Ok(Self {
            waiting: Some(waiting),
            thread: Some(thread),
        })
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

/// Syncs the log. SQLite takes its locks on other files, so opening and closing this one disturbs none.
fn sync(path: &PathBuf, log: &mut Option<File>) -> io::Result<()> {
    let file = match log {
        Some(file) => file,
        None => match File::open(path) {
            Ok(file) => log.insert(file),
            // Without a log everything is in the database, where SQLite syncs it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        },
    };
    file.sync_data()
}
