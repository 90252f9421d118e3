//! Sequence: the sequencing service. One leads and delivers, the others stand by with the same in hand.
//!
//! The rules are [`conga_core::sequencer`]; this carries out its actions and tells it what came of them.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::message::Position;
use conga_core::partition::{Cursor, EmitRequest, Emitted, Followed, Ready};
use conga_core::sequencer::{Action, Event, Sequencer as Machine};
use conga_core::term::Role;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::lead::{Change, Elector};
use crate::pace::Pace;
use crate::persist::{answer, persist};
use crate::random::Random;
use crate::store::{Result, SharedStore};
use crate::wake::{Listener, Topic};

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
    random: Random,
}

impl Sequencer {
    /// A service that delivers what is processed in `store`, under a name of its own.
    pub fn new(store: SharedStore, options: SequencerOptions) -> Self {
        let random = Random::default();
        let owner = OwnerId::new(random.name("sequencer"));
        Self {
            elector: Elector::new(store.clone(), Role::Leader, owner),
            store,
            options,
            random,
        }
    }

    /// The same, with its name and its jitter drawn from `random`.
    pub fn with_random(self, random: Random) -> Self {
        let owner = OwnerId::new(random.name("sequencer"));
        Self {
            elector: Elector::new(self.store.clone(), Role::Leader, owner),
            random,
            ..self
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
            pause: None,
            refusals: 0,
            sequencing: Sequencing::default(),
            random: self.random,
        };
        let outcome = work.run(&shutdown).await;
        // Not only as a leader: a call for the leadership that is on its way may still win it.
        match timeout(GOODBYE, work.elector.resign()).await {
            Ok(Ok(())) => tracing::debug!("handed over"),
            Ok(Err(error)) => tracing::debug!(%error, "could not hand over; the lock expires"),
            Err(_) => tracing::debug!("could not hand over in time; the lock expires"),
        }
        outcome.map(|()| work.sequencing)
    }
}

/// How long a sequencer that ends waits for the store.
const GOODBYE: Duration = Duration::from_secs(1);
/// After an emit that was refused again the next one waits so long, times the number of refusals, up to the limit.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// An emit that is on its way, from a position on.
type Emitting = BoxFuture<'static, (Position, Result<Emitted>)>;
/// A read that is on its way: the head as it was known when it began, and whether the store was away meanwhile.
type Following = BoxFuture<'static, (Position, bool, Result<Followed>)>;

struct Work {
    machine: Machine<Ready>,
    store: SharedStore,
    elector: Elector,
    batch: usize,
    /// How far the processed stream was read.
    cursor: Cursor,
    following: Option<Following>,
    emitting: Option<Emitting>,
    /// Nothing is read, and so nothing emitted, before then.
    pause: Option<Instant>,
    /// How many emits in a row did not count.
    refusals: u32,
    sequencing: Sequencing,
    random: Random,
}

impl Work {
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut processed = self.store.wakes().listen(&[Topic::Processed]);
        let mut lock = self.store.wakes().listen(&[Topic::Lock]);
        let mut asking: Option<BoxFuture<'static, _>> = None;
        // Whether there may be something to read.
        let mut curious = true;
        let mut pace = Pace::new();
        loop {
            let wants = self.following.is_none() && curious && self.pause.is_none();
            if wants && pace.is_due() {
                pace.asked();
                self.following = Some(Box::pin(self.follow()));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.settle().await,
                () = self.elector.outlived() => {
                    let change = self.elector.depose("could not renew the lock in time");
                    self.change(change);
                }
                () = sleep_until(self.elector.ask_at()), if asking.is_none() => {
                    asking = Some(Box::pin(self.elector.ask()));
                }
                (asked, campaign) = answer(&mut asking) => {
                    let change = self.elector.heard(asked, campaign)?;
                    curious |= matches!(change, Some(Change::Elected(_)));
                    self.change(change);
                }
                (from, emitted) = answer(&mut self.emitting) => curious |= self.emitted(from, emitted)?,
                (head, troubled, followed) = answer(&mut self.following) => {
                    let followed = followed?;
                    curious = followed.entries.len() >= self.batch;
                    pace.answered(!followed.entries.is_empty());
                    if curious {
                        pace.hurry();
                    }
                    curious |= self.read(head, troubled, followed);
                }
                () = until(self.pause), if self.pause.is_some() => self.pause = None,
                () = sleep_until(pace.due()), if wants && !pace.is_due() => {}
                () = news(&mut processed, self.elector.leads()), if !curious => curious = true,
                () = lock.hinted(), if !self.elector.leads() => self.elector.hurry(),
            }
        }
    }

    /// Ends the emit that is on its way, so that it is not left to chance.
    async fn settle(&mut self) -> Result<()> {
        if self.emitting.is_some()
            && let Ok((from, emitted)) = timeout(GOODBYE, answer(&mut self.emitting)).await
        {
            self.emitted(from, emitted)?;
        }
        Ok(())
    }

    fn follow(&self) -> impl Future<Output = (Position, bool, Result<Followed>)> + use<> {
        let (store, cursor, batch, head) = (self.store.clone(), self.cursor, self.batch, self.machine.head());
        let random = self.random.clone();
        async move {
            let mut troubled = false;
            let followed = persist("follow", &random, || store.follow(cursor, batch), |_| troubled = true).await;
            (head, troubled, followed)
        }
    }

    fn change(&mut self, change: Option<Change>) {
        let event = match change {
            Some(Change::Elected(term)) => {
                self.sequencing.reigns += 1;
                // What is in hand goes out at once; what this one has missed, for whatever reason, is read again.
                self.rewind();
                Event::Elected { term }
            }
            Some(Change::Deposed) => Event::Deposed,
            None => return,
        };
        self.step(event);
    }

    /// Takes what was read by a call that began when the head was at `known`. True if there is more to read.
    fn read(&mut self, known: Position, troubled: bool, followed: Followed) -> bool {
        let Followed { now, head, entries } = followed;
        if head < known {
            tracing::warn!(%head, %known, "the store has come back older than it was; reading anew");
            self.reload();
            return true;
        }
        // Before anything else: a step may set it back.
        self.cursor = entries.iter().map(|entry| entry.cursor).fold(self.cursor, Cursor::max);
        let mut again = self.step(Event::Head { head });
        for processed in entries {
            again |= self.step(Event::Processed {
                position: processed.position,
                ticket: Ready {
                    processed,
                    sequencing: now,
                },
            });
        }
        if troubled {
            // It may be another server by now, with cursors of its own.
            self.rewind();
        }
        again || troubled
    }

    /// Takes the answer to an emit. True if the stream has to be read.
    fn emitted(&mut self, from: Position, emitted: Result<Emitted>) -> Result<bool> {
        match emitted {
            Ok(Emitted::Advanced { head }) => {
                self.refusals = 0;
                self.sequencing.emitted += head.past(from);
                Ok(self.step(Event::Emitted { head }))
            }
            Ok(Emitted::Moved { head }) => {
                tracing::debug!(%from, %head, "an emit came too late, or is not what waits there; reading anew");
                self.refused();
                Ok(true)
            }
            Ok(Emitted::Fenced { term }) => {
                tracing::info!(%term, "an emit was fenced off");
                let change = self.elector.depose("another term has begun");
                self.change(change);
                self.refused();
                Ok(true)
            }
            // Nobody knows whether it counted. What is read next tells.
            Err(error) if error.is_passing() => {
                if self.refusals == 0 {
                    tracing::warn!(%error, "an emit has no answer; reading anew, and trying again until there is one");
                }
                self.refused();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads anew after an emit that did not count. The first time at once, then with growing pauses.
    fn refused(&mut self) {
        self.sequencing.refused += 1;
        self.pause = (self.refusals > 0).then(|| Instant::now() + (PAUSE * self.refusals).min(LONGEST_PAUSE));
        self.refusals = self.refusals.saturating_add(1);
        self.reload();
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
                self.emitting = Some(Box::pin(async move { (head, store.emit(&request).await) }));
                false
            }
        }
    }
}

/// Returns when there may be something to read. A standby is warm enough if it looks now and then: it reads what it
/// lacks when it is elected.
async fn news(processed: &mut Listener, leads: bool) {
    if leads {
        processed.heard().await;
    } else {
        processed.looked().await;
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
