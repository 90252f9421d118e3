//! A number that is missing: since when, and what proves that it has not come.

use std::time::Duration;

use conga_core::message::Position;
use conga_core::time::Micros;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::lane::passed;
use crate::store::{Result, SharedStore};

/// What is known of the number that is missing. Both clocks have to say that it is for long enough: the store's, which goes on
/// when the leader changes, and the leader's own, which does not jump.
pub(super) struct Gap {
    timeout: Duration,
    open: Option<Open>,
    /// Whether it was said that it is overdue.
    alarmed: bool,
    proofs: Vec<Proof>,
    looking: FuturesUnordered<BoxFuture<'static, (usize, Result<Position>)>>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    head: Position,
    since: Micros,
    /// Never, where that can't be told.
    overdue_at: Option<Instant>,
}

/// How far the proof of a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    None,
    /// It is waited for that all that had come to it is out.
    Passing,
    /// It is, since then: all before that position. What came out has to be read.
    Passed(Instant, Position),
    Read,
}

/// What a gap waits for.
pub(super) enum News {
    Overdue,
    Passed(usize, Position),
}

impl Gap {
    pub(super) fn new(partitions: usize, timeout: Duration) -> Self {
        Self {
            timeout,
            open: None,
            alarmed: false,
            proofs: vec![Proof::None; partitions],
            looking: FuturesUnordered::new(),
        }
    }

    /// Nothing is missing, or nobody knows.
    pub(super) fn reset(&mut self) {
        self.open = None;
        self.alarmed = false;
        self.proofs.fill(Proof::None);
        self.looking.clear();
    }

    /// The head is missing since `since`, by the base's clock.
    pub(super) fn open(&mut self, head: Position, since: Micros) {
        // The same time: those before it were given up, and what was proved holds for it too.
        if let Some(open) = self.open.as_mut().filter(|open| open.since == since) {
            open.head = head;
            return;
        }
        self.reset();
        // By the base's clock it may be longer, but a clock may jump.
        self.open = Some(Open {
            head,
            since,
            overdue_at: Instant::now().checked_add(self.timeout),
        });
    }

    pub(super) fn since(&self) -> Option<Micros> {
        self.open.map(|open| open.since)
    }

    /// The number that is missing for too long.
    pub(super) fn overdue(&self) -> Option<Position> {
        let open = self.open?;
        (Instant::now() >= open.overdue_at?).then_some(open.head)
    }

    /// Whether it is to be said for the first time.
    pub(super) fn is_alarming(&mut self) -> bool {
        !std::mem::replace(&mut self.alarmed, true)
    }

    pub(super) fn is_proved(&self, partition: usize) -> bool {
        self.proofs[partition] == Proof::Read
    }

    /// Begins a proof, if none is on its way.
    pub(super) fn doubt(&mut self, partition: usize, store: &SharedStore) {
        if self.proofs[partition] == Proof::None {
            self.proofs[partition] = Proof::Passing;
            let store = store.clone();
            self.looking
                .push(Box::pin(async move { (partition, passed(store).await) }));
        }
    }

    /// What is in hand of a partition is read anew.
    pub(super) fn lost(&mut self, partition: usize) {
        if matches!(self.proofs[partition], Proof::Passed(..) | Proof::Read) {
            self.proofs[partition] = Proof::None;
        }
    }

    /// A partition was read to its end by a call that began then.
    pub(super) fn was_read(&mut self, partition: usize, asked: Instant) {
        self.is_read(partition, |since, _| asked >= since);
    }

    /// All of a partition was read up to an output: that proves as much, however much comes after it.
    pub(super) fn was_read_to(&mut self, partition: usize, last: Position) {
        self.is_read(partition, |_, end| last.next() >= end);
    }

    fn is_read(&mut self, partition: usize, proves: impl Fn(Instant, Position) -> bool) {
        let proof = &mut self.proofs[partition];
        if matches!(*proof, Proof::Passed(since, end) if proves(since, end)) {
            *proof = Proof::Read;
        }
    }

    /// `missing` is the number that is missing as far as it can be told now: of another nothing is said, or whoever waits for this
    /// would be told so again and again. Cancel-safe.
    pub(super) async fn next(&mut self, missing: Option<Position>) -> Result<News> {
        let overdue = self.open.filter(|open| !self.alarmed && missing == Some(open.head));
        let overdue = overdue.and_then(|open| open.overdue_at);
        let is_overdue = async {
            match overdue {
                Some(moment) => sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((partition, passed)) = self.looking.next() => passed.map(|end| News::Passed(partition, end)),
            () = is_overdue => Ok(News::Overdue),
        }
    }

    /// All before `end` is out of a partition.
    pub(super) fn passed(&mut self, partition: usize, end: Position) {
        self.proofs[partition] = Proof::Passed(Instant::now(), end);
    }
}
