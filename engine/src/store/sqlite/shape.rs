//! Shape: what the line is, told once.

use conga_core::message::Position;
use conga_core::shape::Shape;
use rusqlite::params;

use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;

pub(super) fn shape(database: &mut Database, wanted: Option<Shape>) -> Result<Option<Shape>> {
    let (kept, settled) = database.read(|step| look(step, wanted))?;
    if kept == settled || wanted.is_none() {
        return Ok(settled);
    }
    database.write(Commit::Synced, |step| {
        let (kept, settled) = look(step, wanted)?;
        if kept != settled {
            let text = settled.map(|shape| shape.to_string());
            step.prepare(sql!("shape.sql", "set"))?
                .execute(params![step.line, text])?;
        }
        Ok(settled)
    })
}

/// What is kept, and what the wish makes of it.
fn look(step: &Step<'_>, wanted: Option<Shape>) -> rusqlite::Result<(Option<Shape>, Option<Shape>)> {
    let line = step.load()?;
    let has_claimed = line.next > Position::FIRST;
    let settled = Shape::settle(line.shape, wanted, has_claimed, line.last >= line.head);
    Ok((line.shape, settled))
}
