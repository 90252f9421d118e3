//! A partition as the merging leader sees it: its place as the active consumer there, and one call at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::Position;
use conga_core::partition::{ReceiveRequest, Received};
use conga_core::term::Reign;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::hand::Question;
use crate::deliver::seat::Seat;
use crate::fits::Portions;
use crate::pace::Pace;
use crate::store::{Result, SharedStore};
use crate::wake::{Listener, Topic};

/// After a call that had no answer.
const PAUSE: Duration = Duration::from_millis(20);

/// How a partition is asked. Whoever holds it may ask.
#[derive(Debug)]
pub(super) struct Lane {
    store: SharedStore,
    seat: Seat,
    hints: Listener,
    pace: Pace,
    /// Told when there may be something to do without a hint.
    nudge: Arc<Notify>,
    /// How much is asked for at once.
    pub(super) portions: Portions,
    /// Under which reign it was last asked.
    reign: Option<Reign>,
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Heard {
    /// There may be something to read.
    Hint,
    /// What comes after what is in hand; what was to be acknowledged is.
    Outputs {
        outputs: Vec<Bytes>,
        /// When it was asked for.
        asked: Instant,
    },
    /// What is in hand may not be what stands there.
    Lost,
    /// It was told to end.
    Stopped,
}

impl Lane {
    pub(super) fn new(store: SharedStore, owner: OwnerId, nudge: Arc<Notify>) -> Self {
        Self {
            // Who leads at the base reads here: whom it follows can merge nothing any more.
            seat: Seat::take(store.clone(), owner),
            hints: store.wakes().listen(&[Topic::Output]),
            pace: Pace::new(),
            nudge,
            portions: Portions::new(),
            reign: None,
            store,
        }
    }

    /// Returns when there may be something to read. Cancel-safe.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> Heard {
        let wait = async {
            tokio::select! {
                biased;
                () = self.hints.heard() => {}
                () = self.nudge.notified() => {}
            }
            sleep_until(self.pace.due()).await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Heard::Stopped,
            () = wait => Heard::Hint,
        }
    }

    /// Acknowledges, and reads what comes next.
    pub(super) async fn read(&mut self, question: Question, stop: &CancellationToken) -> Result<Heard> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Heard::Stopped),
            heard = self.ask(question) => heard,
        }
    }

    async fn ask(&mut self, question: Question) -> Result<Heard> {
        let reign = self.seat.reign().await?;
        if self.reign.as_ref() != Some(&reign) {
            self.reign = Some(reign);
            return Ok(Heard::Lost);
        }
        let asked = Instant::now();
        self.pace.asked();
        let request = ReceiveRequest {
            reign: Some(reign.clone()),
            acknowledge: question.acknowledge,
            skip: question.skip,
            max: question.max,
        };
        match self.store.receive(&request).await {
            Ok(Received::Outputs(outputs)) => {
                self.pace.answered(!outputs.is_empty());
                self.portions.came(&outputs);
                Ok(Heard::Outputs { outputs, asked })
            }
            Ok(Received::Fenced { .. }) => {
                self.seat.lost(&reign).await;
                self.reign = None;
                Ok(Heard::Lost)
            }
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "a partition does not answer");
                self.portions.failed(&error);
                // It may be another server by then.
                sleep(PAUSE).await;
                Ok(Heard::Lost)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets another be the active consumer.
    pub(super) async fn leave(self) {
        self.seat.leave().await;
    }
}

/// Returns when all that had come to the partition at the time of the call is out, with the position up to which that is; never
/// while it is away. One that comes back older has less than had come; then it is all that there is.
pub(super) async fn passed(store: SharedStore) -> Result<Position> {
    let mut end = Position(u64::MAX);
    loop {
        match store.status().await {
            Ok(status) => {
                end = end.min(status.next.plus(status.waiting));
                if status.head >= end {
                    return Ok(end);
                }
            }
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
        sleep(crate::wake::FALLBACK).await;
    }
}
