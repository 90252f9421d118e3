//! Browse: HSCAN over the system of record, XRANGE over the dead letters.

use std::collections::HashSet;

use bytes::Bytes;
use conga_core::lease::Attempt;
use conga_core::message::{Id, Position};
use conga_core::partition::{Page, Row, Shelf, write_dead_letter};
use conga_core::time::Micros;

use super::RedisStore;
use super::reply::Items;
use crate::store::Result;

/// About how many rows a page has. HSCAN may give more or fewer.
const ROWS: usize = 100;

impl RedisStore {
    pub(super) async fn read_page(&self, what: Shelf, from: Option<&str>) -> Result<Page> {
        match what {
            Shelf::Record => self.records(from.unwrap_or("0")).await,
            Shelf::Dead => self.dead_letters(from).await,
        }
    }

    async fn records(&self, from: &str) -> Result<Page> {
        let mut scan = ::redis::cmd("HSCAN");
        scan.arg(&self.keys.record).arg(from).arg("COUNT").arg(ROWS);
        let mut reply = Items::of(self.ask(&scan).await?)?;
        let next = reply.text()?;
        let mut fields = reply.items()?;
        let mut rows = Vec::with_capacity(fields.len() / 2);
        while !fields.is_empty() {
            rows.push(Row {
                id: Id::given(fields.text()?),
                json: fields.bytes()?,
            });
        }
        Ok(Page {
            rows,
            next: (next != "0").then_some(next),
        })
    }

    async fn dead_letters(&self, from: Option<&str>) -> Result<Page> {
        let start = from.map_or_else(|| "-".to_owned(), |last| format!("({last}"));
        let mut range = ::redis::cmd("XRANGE");
        range.arg(&self.keys.dead).arg(start).arg("+").arg("COUNT").arg(ROWS);
        let mut reply = Items::of(self.ask(&range).await?)?;
        let halted = self.halted().await?;
        let mut rows = Vec::with_capacity(reply.len());
        let mut last = None;
        while !reply.is_empty() {
            let mut entry = reply.items()?;
            last = Some(entry.text()?);
            rows.push(dead_letter(entry.items()?, &halted)?);
        }
        let next = last.filter(|_| rows.len() == ROWS);
        Ok(Page { rows, next })
    }

    /// The positions at which the line is halted: the window at most.
    async fn halted(&self) -> Result<HashSet<Position>> {
        let mut keys = ::redis::cmd("HKEYS");
        keys.arg(&self.keys.halted);
        let mut reply = Items::of(self.ask(&keys).await?)?;
        let mut halted = HashSet::with_capacity(reply.len());
        while !reply.is_empty() {
            halted.insert(Position(reply.number()?));
        }
        Ok(halted)
    }
}

/// The fields as `complete.lua` writes them, each after its name.
fn dead_letter(mut fields: Items, halted: &HashSet<Position>) -> Result<Row> {
    fields.value()?;
    let position = Position(fields.number()?);
    fields.value()?;
    let id = Id::given(fields.text()?);
    fields.value()?;
    let reason = fields.text()?;
    fields.value()?;
    let attempts = Attempt(fields.number()?);
    fields.value()?;
    let died = Micros(fields.number()?);
    fields.value()?;
    let entry: Bytes = fields.bytes()?;
    let text = write_dead_letter(
        position,
        &id,
        &reason,
        attempts,
        died,
        &entry,
        halted.contains(&position),
    );
    Ok(Row { id, json: text.into() })
}
