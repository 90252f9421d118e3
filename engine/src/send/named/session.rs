//! A process's turn at a producer's name, and what may still be on its way in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga_core::partition::{KEPT_US, Numbered, Sent, Session};
use tokio::time::{Instant, timeout};

use super::{NamedProducer, Tail};
use crate::persist::persist;
use crate::store::{Result, StoreError};

/// So long after it has answered a line still knows a producer's name, by whatever clock.
pub(super) const KNOWN: Duration = Duration::from_micros(KEPT_US / 7 * 6);

/// A session, and what was sent up to now under the producer's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) session: Session,
    /// The last number that is in the line, and its mark.
    pub(super) last: u64,
    pub(super) mark: u64,
}

/// The highest number that an attempt of this session without an answer may still bring in. What is above the last number
/// that is in the line is in doubt: sent again as it was it does no harm, but nothing else may be said of it, nor less be
/// sent, before another session keeps that attempt out.
#[derive(Debug, Default)]
pub(super) struct Doubt(AtomicU64);

impl Doubt {
    pub(super) fn highest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, highest: u64) {
        self.0.store(highest, Ordering::Relaxed);
    }
}

impl NamedProducer {
    /// Opens a session, if there is none, and is told what there is. From then on nothing counts that an earlier one still
    /// has on its way.
    pub(super) async fn ask(&mut self) -> Result<Open> {
        if self.is_replaced {
            return Err(self.another());
        }
        if let Some(open) = self.open {
            if Instant::now() < self.known_until {
                return Ok(open);
            }
            self.settle(open).await?;
        }
        if let Some(open) = self.open {
            return Ok(open);
        }
        let (mut number, process) = match self.before {
            Some(before) => (before.number.saturating_add(1), before.process),
            None => (1, self.random.draw()),
        };
        self.doubt.set(0);
        let asked = Instant::now();
        let open = loop {
            match self.begin(Session { number, process }).await? {
                Ok(open) => break open,
                // It knows nothing yet of those who were there before it.
                Err(latest) if self.before.is_none() => number = latest.number.saturating_add(1),
                Err(_) => return Err(self.replaced()),
            }
        };
        (self.open, self.before) = (Some(open), Some(open.session));
        self.known_until = asked + KNOWN;
        Ok(open)
    }

    /// Goes on in another session, so that nothing comes in any more that is in doubt, and takes note of what has come in.
    ///
    /// # Cancellation
    /// Safe: it is in doubt until there is an answer.
    pub(super) async fn settle(&mut self, open: Open) -> Result<()> {
        let session = Session {
            number: open.session.number.saturating_add(1),
            ..open.session
        };
        (self.open, self.before) = (Some(Open { session, ..open }), Some(session));
        let asked = Instant::now();
        let Ok(there) = self.begin(session).await? else {
            return Err(self.replaced());
        };
        let (was_known, was_in_doubt) = (asked < self.known_until, self.is_in_doubt());
        self.known_until = asked + KNOWN;
        self.doubt.set(0);
        if !was_known && there.last == 0 && open.last > 0 {
            // It was forgotten, and what was sent under it is not lost: it begins anew.
            self.tail = Tail::default();
            if !was_in_doubt {
                self.open = Some(there);
                return Ok(());
            }
        }
        if there.last < open.last {
            return self.lost(there.last + 1);
        }
        self.found(there.last, Some(there.mark))
    }

    /// Opens a session; or which is the latest, if this one is not.
    async fn begin(&self, session: Session) -> Result<std::result::Result<Open, Session>> {
        let (last, mark) = match self.ask_store(&[], &self.numbered(session, 1, 0)).await? {
            Sent::Accepted { last, mark } => (last, mark),
            // Neither is for a send of nothing.
            Sent::Missing { from } => (from.saturating_sub(1), 0),
            Sent::Full { last, .. } => (last, 0),
            Sent::Replaced { session } => return Ok(Err(session)),
        };
        Ok(Ok(Open { session, last, mark }))
    }

    pub(super) fn numbered(&self, session: Session, first: u64, mark: u64) -> Numbered {
        Numbered {
            producer: self.name.clone(),
            session,
            first,
            mark,
            max_waiting: self.most.map(|(most, _)| most).filter(|_| self.again == 0),
        }
    }

    /// Goes on until there is an answer, or patience is over.
    pub(super) async fn ask_store(&self, entries: &[Bytes], numbered: &Numbered) -> Result<Sent> {
        let end = match entries.len() as u64 {
            0 => 0,
            count => numbered.first.saturating_add(count - 1),
        };
        let mut trouble = None;
        let ask = || async {
            let doubted = self.doubt.highest();
            // If this is dropped, it stays so.
            self.doubt.set(doubted.max(end));
            let sent = self.store.send(entries, Some(numbered)).await;
            if !matches!(sent, Err(StoreError::Unknown(_))) {
                self.doubt.set(doubted);
            }
            sent
        };
        let asked = persist("send", &self.random, ask, |error| trouble = Some(error.clone()));
        let Some(patience) = self.patience else {
            return asked.await;
        };
        if let Ok(sent) = timeout(patience, asked).await {
            return sent;
        }
        let why = match trouble {
            Some(StoreError::Unknown(why) | StoreError::Unavailable(why)) => why,
            Some(error) => error.to_string(),
            None => "there was no answer".to_owned(),
        };
        Err(if self.is_in_doubt() {
            StoreError::Unknown(why)
        } else {
            StoreError::Unavailable(why)
        })
    }

    /// Whether something that is not in the line may still come in.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.open.is_some_and(|open| self.doubt.highest() > open.last)
    }

    /// Another process is there for good.
    pub(super) fn replaced(&mut self) -> StoreError {
        self.is_replaced = true;
        self.another()
    }

    pub(super) fn another(&self) -> StoreError {
        StoreError::Broken(format!(
            "another process sends under the name `{}`, so this one must not go on: what it was given last is not in the line, \
             unless an attempt without an answer was done before; give each process a name of its own",
            self.name
        ))
    }
}
