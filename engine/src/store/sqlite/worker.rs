//! The thread that owns the connection: SQLite blocks, and its statements are not for sharing.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::database::Database;
use super::syncer::Syncer;
use crate::store::{Result, StoreError};

type Job = Box<dyn FnOnce(&mut Database, &Syncer) + Send>;

/// Ends its thread when it is dropped, after the job that runs.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which opens the database first.
    pub(super) async fn start(open: impl FnOnce() -> Result<Database> + Send + 'static) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, answer) = oneshot::channel();
        let run = move || match open().and_then(with_syncer) {
            Ok((mut database, syncer)) => {
                if opened.send(Ok(())).is_ok() {
                    for job in queue {
                        job(&mut database, &syncer);
                    }
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        let thread = thread::Builder::new()
            .name("conga-sqlite".to_owned())
            .spawn(run)
            .map_err(no_thread)?;
        let worker = Self {
            jobs: Some(jobs),
            thread: Some(thread),
        };
        answer.await.unwrap_or(Err(StoreError::Closed))?;
        Ok(worker)
    }

    /// Has a step done, and waits for its answer, and for the disk where the step asks for it. Dropped before its turn,
    /// the step is not done; afterwards it is.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |database, syncer| {
            if reply.is_closed() {
                return;
            }
            // What is not on the disk is nothing to build on.
            database.tend();
            let answer = database.mend(syncer).and_then(|()| step(database));
            // Where nobody waits any more, nobody wants to know.
            if database.take_unsynced() && answer.is_ok() {
                syncer.after(Box::new(move |synced| drop(reply.send(synced.and(answer)))));
            } else {
                drop(reply.send(answer));
            }
        });
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(job).map_err(|_| StoreError::Closed)?;
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("the database's thread ended".to_owned())))
    }
}

fn with_syncer(database: Database) -> Result<(Database, Syncer)> {
    let log = database.log();
    let syncer = Syncer::start(log.clone())
        .map_err(|error| StoreError::Unavailable(format!("{} can't be synced: {error}", log.display())))?;
    Ok((database, syncer))
}

fn no_thread(error: io::Error) -> StoreError {
    StoreError::Unavailable(format!("no thread for the database: {error}"))
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            drop(thread.join());
        }
    }
}
