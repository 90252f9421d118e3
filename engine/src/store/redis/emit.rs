//! Emit: the call of `emit.lua`.

use conga_core::message::Position;
use conga_core::partition::{EmitRequest, Emitted, Turn};
use conga_core::term::Term;

use super::reply::Items;
use super::{RedisStore, cursor, script};
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn deliver(&self, request: &EmitRequest) -> Result<Emitted> {
        let keys = &self.keys;
        let mut call = script::EMIT.call(&[
            &keys.meta,
            &keys.processed,
            &keys.record,
            &keys.output,
            &keys.input,
            keys.wake(Topic::Output),
            keys.wake(Topic::Window),
            &keys.kept,
        ]);
        let cursors = || request.entries.iter().map(|ready| ready.processed.cursor);
        call.arg(self.time())
            .arg(request.term.0)
            .arg(request.head.0)
            .arg(u8::from(is_dense(request)))
            .arg(cursor::stream_id(cursors().min().unwrap_or_default()))
            .arg(cursor::stream_id(cursors().max().unwrap_or_default()));
        for ready in &request.entries {
            call.arg(cursor::stream_id(ready.processed.cursor))
                .arg(ready.sequencing.to_string());
            match &ready.processed.turn {
                Turn::Record(id) => call.arg("R").arg(id.as_str()).arg(""),
                Turn::Tombstone { open, died } => call.arg("T").arg(open).arg(died.0),
                Turn::Nothing => call.arg("N").arg("").arg(""),
            };
        }
        let mut reply = Items::of(self.run(&script::EMIT, &call).await?)?;
        Ok(match reply.text()?.as_str() {
            "advanced" => Emitted::Advanced {
                head: Position(reply.number()?),
            },
            "fenced" => Emitted::Fenced {
                term: Term(reply.number()?),
            },
            _ => Emitted::Moved {
                head: Position(reply.number()?),
            },
        })
    }
}

fn is_dense(request: &EmitRequest) -> bool {
    let positions = request.entries.iter().map(|ready| ready.processed.position);
    positions
        .zip(0..)
        .all(|(position, nth)| position == request.head.plus(nth))
}
