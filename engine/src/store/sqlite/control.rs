//! Control: what is asked of all processors at once. The row is the line's own, which every claim reads.

use conga_core::partition::{Bucket, Control, ControlRequest, Flow, Rate};
use rusqlite::params;

use super::convert::int;
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn control(database: &mut Database, request: &ControlRequest) -> Result<Control> {
    let control = database.write(Commit::Synced, |step| {
        step.tell_time()?;
        let line = step.load()?;
        match *request {
            ControlRequest::Flow(flow) => set_flow(step, &line.control, flow)?,
            ControlRequest::Settle if line.control.flow == Flow::Draining && line.head == line.next => {
                set_flow(step, &line.control, Flow::Paused)?;
            }
            ControlRequest::Rate(rate) if rate != line.control.rate => {
                step.prepare(sql!("control.sql", "rate"))?
                    .execute(params![step.line, rate.map(|rate| int(rate.interval_ns()))])?;
                let bucket = rate.map_or_else(Bucket::default, |rate| Bucket::new(rate, step.now));
                save_bucket(step, bucket)?;
            }
            ControlRequest::Settle | ControlRequest::Rate(_) => {}
        }
        Ok(step.load()?.control)
    })?;
    database.wake(Topic::Input);
    Ok(control)
}

fn set_flow(step: &Step<'_>, control: &Control, flow: Flow) -> rusqlite::Result<()> {
    if control.flow == flow {
        return Ok(());
    }
    step.prepare(sql!("control.sql", "flow"))?
        .execute(params![step.line, flow.name(), int(step.now.0)])
        .map(drop)
}

pub(super) fn save_bucket(step: &Step<'_>, bucket: Bucket) -> rusqlite::Result<()> {
    step.prepare(sql!("control.sql", "bucket"))?
        .execute(params![step.line, int(bucket.credit_ns), int(bucket.at.0)])
        .map(drop)
}

/// What the columns of a line's row say, from `first` on: flow, since, rate.
pub(super) fn control_at(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Control> {
    let rate: Option<i64> = row.get(first + 2)?;
    Ok(Control {
        // What a later version may have written here stops this one, which is the safe side.
        flow: Flow::of_name(row.get_ref(first)?.as_str()?).unwrap_or(Flow::Paused),
        since: super::convert::micros_at(row, first + 1)?,
        rate: rate.and_then(|interval| Rate::every_ns(super::convert::uint(interval))),
    })
}
