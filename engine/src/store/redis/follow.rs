//! Follow: three plain reads, sent together.
//!
//! No script: what passes through Lua costs several times as much, and every standby follows everything. No
//! transaction: under memory pressure (OOM) Redis refuses those whatever is in them. So another's step may come in
//! between, and the order of the reads sees to it that it does no harm: the head is never older than the entries
//! (those below it are known to be delivered), nor the time older than either.

use ::redis::Value;
use conga_core::message::{Id, Position};
use conga_core::partition::{Cursor, Followed, Processed, Turn};
use conga_core::time::Micros;

use super::reply::{self, Items, unexpected};
use super::{RedisStore, cursor, whole};
use crate::clock::Clock;
use crate::store::{Result, StoreError};

impl RedisStore {
    pub(super) async fn read_processed(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        let mut commands = ::redis::pipe();
        // From the cursor's own entry on: it may stand for more positions than were read of it.
        commands
            .cmd("XRANGE")
            .arg(&self.keys.processed)
            .arg(cursor::stream_id(cursor))
            .arg("+")
            .arg("COUNT")
            .arg(whole(max as u64).saturating_add(1));
        commands.cmd("HMGET").arg(&self.keys.meta).arg("head").arg("shape");
        commands.cmd("TIME");
        let (replies, node) = self.ask_all(&commands).await?;
        // What was read there may never have been here, nor its cursors. Whoever has none begins anyway.
        if self.witness.is_another("follow", &node) && cursor != Cursor::default() {
            return Err(StoreError::Unavailable(
                "another server answers than before, so all that waits is read anew".to_owned(),
            ));
        }
        let mut reply = Items::of(Value::Array(replies))?;
        let mut rows = reply.items()?;
        let mut meta = reply.items()?;
        let head = match meta.value()? {
            Value::Nil => Position::FIRST,
            head => Position(reply::number(&head)?),
        };
        let shape = meta.optional_text()?;
        let mut time = reply.items()?;
        let now = match &self.clock {
            Clock::Store => Micros(time.number::<u64>()? * 1_000_000 + time.number::<u64>()?),
            Clock::Manual(clock) => clock.now(),
        };
        let mut entries = Vec::with_capacity(rows.len());
        while !rows.is_empty() {
            read_run(rows.items()?, &mut entries)?;
        }
        // What of a run was delivered before stands below the head.
        entries.retain(|entry| entry.cursor > cursor && entry.position >= head);
        entries.truncate(max);
        // Where not all messages keep their order there is nothing to sequence.
        if shape.is_some_and(|shape| !shape.starts_with("total")) {
            entries.clear();
        }
        Ok(Followed { now, head, entries })
    }
}

/// One entry of the stream: its id, and its fields as name and value.
fn read_run(mut row: Items, entries: &mut Vec<Processed>) -> Result<()> {
    let id = row.text()?;
    let mut fields = row.items()?;
    fields.text()?;
    let first = Position(fields.number()?);
    let mut push = |nth: u64, turn| {
        entries.push(Processed {
            cursor: cursor::of_stream_id(&id, nth)?,
            position: first.plus(nth),
            turn,
        });
        Ok(())
    };
    if fields.is_empty() {
        return push(0, Turn::Nothing);
    }
    if fields.text()? == "ids" {
        let text = fields.text()?;
        let ids: Vec<String> =
            serde_json::from_str(&text).map_err(|_| unexpected("a JSON array of ids", &Value::SimpleString(text)))?;
        return ids.into_iter().zip(0..).try_for_each(|(id, nth)| match id.as_str() {
            "" => push(nth, Turn::Nothing),
            _ => push(nth, Turn::Record(Id::given(id))),
        });
    }
    let open = fields.text()?;
    fields.text()?;
    let died = Micros(fields.number()?);
    push(0, Turn::Tombstone { open, died })
}
