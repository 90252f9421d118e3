//! What the base of a merged line, or one of its partitions, does wrong.

use bytes::Bytes;
use conga::core::message::Position;
use conga::core::partition::{GiveUp, MergeRequest, Merged, Piece, ReceiveRequest};
use conga::deliver::position_of;
use conga::store::{Result, Store as _};

use super::{Flaw, Flawed};

impl Flawed {
    pub(super) async fn merge_wrongly(&self, request: &MergeRequest) -> Result<Merged> {
        let mut request = request.clone();
        let status = self.inner.status().await?;
        if self.has(Flaw::MergesUnderAnyTerm) {
            request.term = status.term;
        }
        if self.has(Flaw::ForgetsThePassed) {
            request.late.clear();
        }
        // Without waiting for what is known to be missing.
        if self.has(Flaw::GivesUpAtOnce) && request.is_missing && request.pieces.is_empty() {
            request.give_up = Some(GiveUp {
                after_us: 0,
                tombstones: vec![String::new()],
            });
        }
        let late: Vec<Bytes> = request.late.iter().map(|late| late.output.clone().into()).collect();
        let letters = status.dead;
        match self.inner.merge(&request).await? {
            Merged::Moved { head } if self.has(Flaw::MergesAtAnyHead) && request.head < head => {
                self.comes_out_again(&request.pieces).await?;
                let now = status.now;
                let missing = None;
                Ok(Merged::Advanced { now, head, missing })
            }
            Merged::Moved { head } if self.has(Flaw::MergesTwice) && request.head < head => {
                self.comes_out_again(&request.pieces).await?;
                Ok(Merged::Moved { head })
            }
            merged => {
                if self.has(Flaw::DeliversTheLate) && self.inner.status().await?.dead > letters {
                    self.again.lock().unwrap().extend(late);
                }
                Ok(merged)
            }
        }
    }

    /// What was merged is appended once more.
    async fn comes_out_again(&self, pieces: &[Piece]) -> Result<()> {
        let outputs = self.outputs().await?;
        let places = pieces.iter().filter_map(|piece| match piece {
            Piece::Result(open) | Piece::Tombstone(open) => position_of(open.as_bytes()),
            Piece::Nothing => None,
        });
        let places: Vec<Position> = places.collect();
        let due = |output: &Bytes| position_of(output).is_some_and(|at| places.contains(&at));
        self.again.lock().unwrap().extend(outputs.into_iter().filter(due));
        Ok(())
    }

    /// Whoever acknowledges some of what it has in hand lets go of all of it.
    pub(super) fn acknowledge_wrongly(&self, request: &mut ReceiveRequest) {
        let last = *self.handed_out.lock().unwrap();
        if self.has(Flaw::AcknowledgesBeyond) && request.acknowledge.is_some() && request.skip > 0 {
            request.acknowledge = request.acknowledge.max(last);
            request.skip = 0;
        }
    }

    pub(super) fn hand_out(&self, outputs: &[Bytes]) {
        let last = outputs.last().and_then(|output| position_of(output));
        let before = &mut *self.handed_out.lock().unwrap();
        *before = (*before).max(last);
    }
}
