//! Cursors: a place in the stream of the processed, and within the run of positions that an entry of it stands for.

use ::redis::Value;
use conga_core::partition::Cursor;

use super::reply::unexpected;
use crate::store::Result;

/// A cursor's second number has the stream's above, and how manieth of its run it is below.
const BITS: u32 = 20;

/// The id of the entry in which the cursor is.
pub(super) fn stream_id(cursor: Cursor) -> String {
    format!("{}-{}", cursor.0, cursor.1 >> BITS)
}

/// The nth of an entry, from 0 on.
pub(super) fn of_stream_id(id: &str, nth: u64) -> Result<Cursor> {
    let cursor = id.split_once('-').and_then(|(ms, seq)| {
        let seq: u64 = seq.parse().ok().filter(|seq| *seq < 1 << (64 - BITS))?;
        Some(Cursor(ms.parse().ok()?, (seq << BITS) + nth))
    });
    cursor.ok_or_else(|| unexpected("a stream id", &Value::SimpleString(id.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_grow_within_an_entry_and_from_one_to_the_next() {
        let at = |id, nth| of_stream_id(id, nth).expect("a cursor");
        assert!(at("5-1", 0) < at("5-1", 999) && at("5-1", 999) < at("5-2", 0) && at("5-2", 7) < at("6-0", 0));
        assert_eq!(stream_id(at("5-17", 999)), "5-17");
        assert!(of_stream_id("5", 0).is_err() && of_stream_id("5-99999999999999", 0).is_err());
    }
}
