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
use super::{RedisStore, whole};
use crate::clock::Clock;
use crate::store::{Result, StoreError};

impl RedisStore {
    pub(super) async fn read_processed(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        let mut commands = ::redis::pipe();
        commands
            .cmd("XRANGE")
            .arg(&self.keys.processed)
            .arg(format!("({}-{}", cursor.0, cursor.1))
            .arg("+")
            .arg("COUNT")
            .arg(whole(max as u64));
        commands.cmd("HGET").arg(&self.keys.meta).arg("head");
        commands.cmd("TIME");
        let mut reply = Items::of(Value::Array(self.ask_all(&commands).await?))?;
        let mut rows = reply.items()?;
        let head = match reply.value()? {
            Value::Nil => Position::FIRST,
            head => Position(reply::number(&head)?),
        };
        let mut time = reply.items()?;
        let now = match &self.clock {
            Clock::Store => Micros(time.number::<u64>()? * 1_000_000 + time.number::<u64>()?),
            Clock::Manual(clock) => clock.now(),
        };
        let mut entries = Vec::with_capacity(rows.len());
        while !rows.is_empty() {
            entries.push(processed(rows.items()?)?);
        }
        Ok(Followed { now, head, entries })
    }
}

/// One entry of the stream: its id, and its fields as name and value.
fn processed(mut row: Items) -> Result<Processed> {
    let cursor = read_cursor(&row.text()?)?;
    let mut fields = row.items()?;
    fields.text()?;
    let position = Position(fields.number()?);
    let turn = if fields.is_empty() {
        Turn::Nothing
    } else if fields.text()? == "id" {
        Turn::Record(Id::given(fields.text()?))
    } else {
        let open = fields.text()?;
        fields.text()?;
        let died = Micros(fields.number()?);
        Turn::Tombstone { open, died }
    };
    Ok(Processed { cursor, position, turn })
}

fn read_cursor(id: &str) -> Result<Cursor> {
    let parts = id
        .split_once('-')
        .and_then(|(ms, nth)| Some(Cursor(ms.parse().ok()?, nth.parse().ok()?)));
    parts.ok_or_else(|| -> StoreError { unexpected("a stream id", &Value::SimpleString(id.to_owned())) })
}
