//! Merge: the call of `merge.lua`.

use conga_core::message::Position;
use conga_core::partition::{GIVE_UP_MOST, MergeRequest, Merged, PASSED_MOST, Piece};
use conga_core::term::Term;
use conga_core::time::Micros;

use super::reply::{Items, unexpected};
use super::{RedisStore, script, whole};
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn merge_outputs(&self, request: &MergeRequest) -> Result<Merged> {
        let keys = &self.keys;
        let mut call = script::MERGE.call(&[
            &keys.meta,
            &keys.output,
            &keys.dead,
            &keys.passed,
            keys.wake(Topic::Output),
        ]);
        let give_up = request.give_up.as_ref();
        call.arg(self.time())
            .arg(request.term.0)
            .arg(request.head.0)
            .arg(u8::from(request.is_missing))
            .arg(request.late.len())
            .arg(request.pieces.len())
            .arg(whole(give_up.map_or(u64::MAX, |give_up| give_up.after_us)))
            .arg(PASSED_MOST)
            .arg(GIVE_UP_MOST);
        for late in &request.late {
            call.arg(late.position.0).arg(&late.reason).arg(&late.output);
        }
        for piece in &request.pieces {
            match piece {
                Piece::Result(open) => call.arg("R").arg(open),
                Piece::Tombstone(open) => call.arg("T").arg(open),
                Piece::Nothing => call.arg("N").arg(""),
            };
        }
        for tombstone in give_up.iter().flat_map(|give_up| &give_up.tombstones) {
            call.arg(tombstone);
        }
        let (reply, node) = self.run_traced(&script::MERGE, &call).await?;
        let mut answer = Items::of(reply)?;
        let said = answer.value()?;
        Ok(match super::reply::text(said.clone())?.as_str() {
            "fenced" => Merged::Fenced {
                term: Term(answer.number()?),
            },
            "moved" => {
                // Here too: what is past it is let go of, and it may be where it is by a merge without an answer.
                self.settle(node).await?;
                Merged::Moved {
                    head: Position(answer.number()?),
                }
            }
            "advanced" => {
                // Where replicas are waited for, they have to have it before the partitions let go of it.
                self.settle(node).await?;
                Merged::Advanced {
                    head: Position(answer.number()?),
                    now: Micros(answer.number()?),
                    missing: if answer.is_empty() {
                        None
                    } else {
                        Some(Micros(answer.number()?))
                    },
                }
            }
            _ => return Err(unexpected("advanced, fenced or moved", &said)),
        })
    }
}
