//! A system of record apart from the store, compared with what came out.

use std::collections::HashMap;

use conga::core::invariant::Violation;
use conga::core::message::Id;
use conga::ledger::SharedLedger;
use conga::record::LedgerRows;

use super::judge::{Came, Digest, PLACES, Verdict};

/// What the positions of outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// Those that their messages had when they were recorded.
    Own,
    /// Those of a merged line: the sequences.
    Merged,
}

/// Compares each output with its row: the same result, the same beginning; and no row without one. Of two messages with one
/// id the first is delivered, and the row may be of the other (ADR 16): so its position is the same or a later one.
/// Which attempt has come to the result is the row's to say: by another it may have been delivered.
/// In a `part` of an output rows may be without.
pub(crate) async fn compare(
    verdict: &mut Verdict,
    ledger: &SharedLedger,
    came: &[Came],
    digest: &Digest,
    places: Places,
    part: bool,
) -> anyhow::Result<()> {
    if !ledger.is_apart() {
        return Ok(());
    }
    let mut missing: HashMap<&Id, &Came> = came
        .iter()
        .filter(|came| !came.dead)
        .map(|came| (&came.id, came))
        .collect();
    // A table knows nothing of partitions.
    let place = |came: &Came| came.position.0 % PLACES;
    let mut rows = LedgerRows::new(ledger.clone());
    let mut count = 0;
    while let Some(page) = rows.next().await? {
        for row in page {
            count += 1;
            let held = digest.came(&row.json)?;
            let what = match missing.remove(&held.id) {
                None if part => continue,
                None => "the table has a row of what did not come out",
                Some(output) if output.told != held.told => "the output is not what the table holds",
                Some(output) if places == Places::Own && place(output) > place(&held) => {
                    "the table has an earlier position than came out"
                }
                Some(output) if output.attempts < held.attempts => "the table has a later attempt than came out",
                Some(_) => continue,
            };
            differs(verdict, &held, what);
        }
    }
    for output in missing.into_values() {
        differs(verdict, output, "the table has no row of what came out");
    }
    verdict.rows = Some(count);
    Ok(())
}

fn differs(verdict: &mut Verdict, came: &Came, what: &str) {
    verdict.differing += 1;
    verdict.add(&[Violation {
        invariant: "record",
        position: Some(came.position),
        id: Some(came.id.clone()),
        what: what.to_owned(),
    }]);
}
