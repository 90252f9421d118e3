//! Dead: the call of `dead.lua`, after a look at where the letters stand in their stream.

use std::collections::{HashMap, HashSet};

use conga_core::lease::OwnerId;
use conga_core::message::Position;
use conga_core::partition::{DeadRequest, Judged, Verdict};

use super::reply::{Items, text, unexpected};
use super::{RedisStore, script};
use crate::store::Result;
use crate::wake::Topic;

/// How many letters are looked at in one command.
const ROWS: usize = 100;

impl RedisStore {
    pub(super) async fn judge_letters(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let places = self.find_letters(&request.positions).await?;
        let keys = &self.keys;
        let mut call = script::DEAD.call(&[
            &keys.input,
            &keys.meta,
            &keys.dead,
            keys.wake(Topic::Input),
            &keys.flight,
            &keys.free,
            &keys.strikes,
            &keys.halted,
            &keys.processed,
            &keys.keyed,
            keys.wake(Topic::Processed),
        ]);
        call.arg(self.time()).arg(match request.verdict {
            Verdict::Retry => "retry",
            Verdict::Skip => "skip",
            Verdict::Mark => "mark",
            Verdict::Purge => "purge",
        });
        for position in &request.positions {
            let place = places.get(position).map_or("", String::as_str);
            call.arg(position.0).arg(place);
        }
        let (reply, node) = self.run_traced(&script::DEAD, &call).await?;
        // Even if nothing was done: an earlier one, whose answer was lost, may have done it.
        self.settle(node).await?;
        let mut reply = Items::of(reply)?;
        let mut answers = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            let answer = reply.value()?;
            answers.push(match text(answer.clone())?.as_str() {
                "done" => Judged::Done,
                "missing" => Judged::Missing,
                "early" => Judged::Early,
                "passed" => Judged::Passed,
                _ => return Err(unexpected("done, missing, early or passed", &answer)),
            });
        }
        // What the line goes on past has its turn, maybe; and so it may have had since a call whose answer was lost.
        if matches!(request.verdict, Verdict::Skip | Verdict::Mark) {
            let nobody = OwnerId::new("");
            while self.deliver_ready(&nobody).await? {}
        }
        Ok(answers)
    }

    /// Where the letters of these positions stand in the stream, by its ids. It is in the order in which they died, so it is
    /// read from its beginning until all are found.
    async fn find_letters(&self, positions: &[Position]) -> Result<HashMap<Position, String>> {
        let mut wanted: HashSet<Position> = positions.iter().copied().collect();
        let mut found = HashMap::with_capacity(wanted.len());
        let mut start = "-".to_owned();
        while !wanted.is_empty() {
            let mut range = ::redis::cmd("XRANGE");
            range.arg(&self.keys.dead).arg(&start).arg("+").arg("COUNT").arg(ROWS);
            let mut page = Items::of(self.ask(&range).await?)?;
            let is_last = page.len() < ROWS;
            while !page.is_empty() {
                let mut letter = page.items()?;
                let place = letter.text()?;
                let mut fields = letter.items()?;
                fields.value()?;
                let position = Position(fields.number()?);
                start = format!("({place}");
                if wanted.remove(&position) {
                    found.insert(position, place);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}
