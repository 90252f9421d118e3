//! Sequence: the sequencing service. One leads and delivers, the others stand by with the same in hand.
//!
//! The rules are [`conga_core::sequencer`]; this carries out its actions and tells it what came of them.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::partition::{Cursor, EmitRequest, Emitted, Followed, Processed, Ready};
use conga_core::sequencer::{Action, Event, Sequencer as Machine};
use conga_core::time::Micros;
use futures_util::future::BoxFuture;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lead::{Change, Elector};
use crate::persist::{answer, persist};
use crate::store::{Result, SharedStore};
use crate::wake::Topic;

/// How a sequencer works.
#[derive(Debug, Clone, Copy)]
pub struct SequencerOptions {
    /// How far from the head on it keeps what is processed. What lies beyond is read again later.
    pub window: usize,
    /// How many messages it delivers in one step.
    pub batch: usize,
}

impl Default for SequencerOptions {
    fn default() -> Self {
        Self {
            window: 10_000,
            batch: 1_000,
        }
    }
}

/// What a sequencer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequencing {
    /// Positions that it took past the head.
    pub emitted: u64,
    /// How often it was elected.
    pub reigns: u64,
    /// Emits that did not count, because it led no more or the head had moved.
    pub refused: u64,
}

/// A sequencing service.
#[derive(Debug)]
pub struct Sequencer {
    store: SharedStore,
    elector: Elector,
    options: SequencerOptions,
}

impl Sequencer {
    /// A service that delivers what is processed in `store`, under a name of its own.
    pub fn new(store: SharedStore, options: SequencerOptions) -> Self {
        let owner = OwnerId::new(format!("sequencer-{}", Uuid::now_v7().simple()));
        Self {
            elector: Elector::new(store.clone(), owner),
            store,
            options,
        }
    }

    /// Its name towards the store.
    pub fn owner(&self) -> &OwnerId {
        self.elector.owner()
    }

    /// Works until `shutdown`, then hands the leadership over.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Dropped, it is as if the process had died: its lock expires and a standby takes over.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Sequencing> {
        let mut work = Work {
            machine: Machine::new(self.options.window, self.options.batch),
            store: self.store,
            elector: self.elector,
            batch: self.options.batch.max(1),
            cursor: Cursor::default(),
            following: None,
            emitting: None,
            sequencing: Sequencing::default(),
        };
        let outcome = work.run(&shutdown).await;
        if work.elector.leads() {
            // An emit that is still on its way counts or not; the next leader reads the head.
            match timeout(Duration::from_secs(1), work.elector.resign()).await {
                Ok(Ok(())) => tracing::info!("handed over"),
                Ok(Err(error)) => tracing::debug!(%error, "could not hand over; the lock expires"),
                Err(_) => tracing::debug!("could not hand over in time; the lock expires"),
            }
        }
        outcome.map(|()| work.sequencing)
    }
}

struct Work {
    machine: Machine<Ready>,
    store: SharedStore,
    elector: Elector,
    batch: usize,
    /// How far the processed stream was read.
    cursor: Cursor,
    following: Option<BoxFuture<'static, Result<Followed>>>,
    emitting: Option<BoxFuture<'static, (u64, Result<Emitted>)>>,
    sequencing: Sequencing,
}

impl Work {
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut processed = self.store.wakes().listen(&[Topic::Processed]);
        let mut lock = self.store.wakes().listen(&[Topic::Lock]);
        let mut asking: Option<BoxFuture<'static, _>> = None;
        // Whether there may be something to read.
        let mut curious = true;
        loop {
            if self.following.is_none() && curious {
                self.following = Some(Box::pin(self.follow()));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.settle().await,
                () = sleep_until(self.elector.due()), if asking.is_none() => {
                    if self.elector.leads() && !self.elector.may_emit() {
                        let change = self.elector.depose("could not renew the lock in time");
                        self.change(change);
                    }
                    asking = Some(Box::pin(self.elector.ask()));
                }
                (asked, campaign) = answer(&mut asking) => {
                    let change = self.elector.heard(asked, campaign)?;
                    // A new leader reads what its predecessor left, at once.
                    curious |= matches!(change, Some(Change::Elected(_)));
                    self.change(change);
                }
                (count, emitted) = answer(&mut self.emitting) => curious |= self.emitted(count, emitted)?,
                followed = answer(&mut self.following) => {
                    let followed = followed?;
                    curious = followed.entries.len() >= self.batch;
                    curious |= self.read(followed);
                }
                () = processed.heard(), if !curious => curious = true,
                () = lock.hinted(), if !self.elector.leads() => self.elector.hurry(),
            }
        }
    }

    /// Ends the emit that is on its way, so that it is not left to chance.
    async fn settle(&mut self) -> Result<()> {
        if self.emitting.is_some()
            && let Ok((count, emitted)) = timeout(Duration::from_secs(1), answer(&mut self.emitting)).await
        {
            self.emitted(count, emitted)?;
        }
        Ok(())
    }

    fn follow(&self) -> impl Future<Output = Result<Followed>> + use<> {
        let (store, cursor, batch) = (self.store.clone(), self.cursor, self.batch);
        async move { persist("follow", || store.follow(cursor, batch), |_| ()).await }
    }

    fn change(&mut self, change: Option<Change>) {
        let event = match change {
            Some(Change::Elected(term)) => {
                self.sequencing.reigns += 1;
                Event::Elected { term }
            }
            Some(Change::Deposed) => Event::Deposed,
            None => return,
        };
        self.step(event);
    }

    /// Takes what was read. True if the stream has to be read again from its beginning.
    fn read(&mut self, followed: Followed) -> bool {
        let Followed { now, head, entries } = followed;
        let mut again = self.step(Event::Head { head });
        for processed in entries {
            self.cursor = self.cursor.max(processed.cursor);
            again |= self.keep(processed, now);
        }
        again
    }

    fn keep(&mut self, processed: Processed, now: Micros) -> bool {
        self.step(Event::Processed {
            position: processed.position,
            ticket: Ready {
                processed,
                sequencing: now,
            },
        })
    }

    /// Takes the answer to an emit. True if the stream has to be read.
    fn emitted(&mut self, count: u64, emitted: Result<Emitted>) -> Result<bool> {
        match emitted {
            Ok(Emitted::Advanced { head }) => {
                self.sequencing.emitted += count;
                Ok(self.step(Event::Emitted { head }))
            }
            Ok(Emitted::Moved { head }) => {
                self.sequencing.refused += 1;
                self.reload();
                self.step(Event::Head { head });
                Ok(true)
            }
            Ok(Emitted::Fenced { term }) => {
                self.sequencing.refused += 1;
                tracing::info!(%term, "an emit was fenced off");
                let change = self.elector.depose("another term has begun");
                self.change(change);
                self.reload();
                Ok(true)
            }
            // Nobody knows whether it counted. What is read next tells.
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "an emit has no answer; reading anew");
                self.reload();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets all, to read it anew.
    fn reload(&mut self) {
        self.rewind();
        self.machine.step(Event::Reload);
    }

    /// Reads the stream from its beginning. What is being read from the old place would skip what lies before it.
    fn rewind(&mut self) {
        self.cursor = Cursor::default();
        self.following = None;
    }

    /// Hands an event to the rules and does what they say. True if the stream has to be read again.
    fn step(&mut self, event: Event<Ready>) -> bool {
        match self.machine.step(event) {
            Action::Wait => false,
            Action::Follow => {
                self.rewind();
                true
            }
            Action::Emit { term, head, count } => {
                let request = EmitRequest {
                    term,
                    head,
                    entries: self.machine.ready(count).cloned().collect(),
                };
                let store = self.store.clone();
                self.emitting = Some(Box::pin(async move { (count as u64, store.emit(&request).await) }));
                false
            }
        }
    }
}
