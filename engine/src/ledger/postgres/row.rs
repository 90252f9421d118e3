//! A record as a row, and back.

use std::time::{Duration, SystemTime};

use conga_core::lease::Attempt;
use conga_core::message::{Body, Id, Position, Record};
use conga_core::time::Micros;
use tokio_postgres::Row;

use super::result;
use crate::ledger::{LedgerError, Result};

/// PostgreSQL's text has no NUL, ours may have: it is written with this before it, and this doubled. It is of Unicode's
/// private use, so that hardly any text has it.
const ESCAPE: char = '\u{E000}';

/// Text as a column can hold it.
pub(super) fn written(text: &str) -> String {
    if !text.contains(['\0', ESCAPE]) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 3);
    for letter in text.chars() {
        match letter {
            '\0' => out.extend([ESCAPE, '0']),
            ESCAPE => out.extend([ESCAPE, ESCAPE]),
            other => out.push(other),
        }
    }
    out
}

/// The text that was written so.
pub(super) fn read(column: &str) -> String {
    if !column.contains(ESCAPE) {
        return column.to_owned();
    }
    let (mut out, mut letters) = (String::with_capacity(column.len()), column.chars());
    while let Some(letter) = letters.next() {
        out.push(match letter {
            ESCAPE => match letters.next() {
                Some('0') => '\0',
                other => other.unwrap_or(ESCAPE),
            },
            other => other,
        });
    }
    out
}

/// A row of the record: what is delivered from, and when it was recorded.
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) processed: Micros,
}

/// Reads what `look.sql` and `browse.sql` select.
pub(super) fn held(row: &Row) -> Result<Held> {
    let bad = |error: tokio_postgres::Error| {
        LedgerError::Broken(format!("a row of conga_record is not as it should be: {error}"))
    };
    let id: &str = row.try_get(0).map_err(bad)?;
    let position: i64 = row.try_get(1).map_err(bad)?;
    let attempts: i32 = row.try_get(2).map_err(bad)?;
    let sequence: Option<&str> = row.try_get(3).map_err(bad)?;
    let key: Option<&str> = row.try_get(4).map_err(bad)?;
    let json: Option<&str> = row.try_get(5).map_err(bad)?;
    let text: Option<&str> = row.try_get(6).map_err(bad)?;
    let bytes: Option<&[u8]> = row.try_get(7).map_err(bad)?;
    let datetime = |index| row.try_get(index).map(micros).map_err(bad);
    let id = read(id);
    let payload = result::payload_of(json, text, bytes)
        .ok_or_else(|| LedgerError::Broken(format!("the row of id `{id}` in conga_record holds no result")))?;
    Ok(Held {
        record: Record {
            position: Position(u64::try_from(position).unwrap_or_default()),
            id: Id::given(id),
            sequence: sequence.and_then(|digits| digits.parse().ok()),
            key: key.map(read),
            body: Body::Result(payload),
            attempts: Attempt(u32::try_from(attempts).unwrap_or_default()),
            created: datetime(8)?,
            processing: datetime(9)?,
        },
        processed: datetime(10)?,
    })
}

/// As the column type has it: microseconds, exactly.
pub(super) fn datetime(micros: Micros) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.0.min(LAST))
}

/// The end of the year 9999: no datetime that Conga writes is later.
const LAST: u64 = 253_402_207_200_000_000;

fn micros(time: SystemTime) -> Micros {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back() {
        for text in [
            "",
            "plain",
            "a\0b",
            "\0",
            "\u{E000}",
            "\u{E000}0",
            "x\u{E000}\0\u{E000}",
        ] {
            let column = written(text);
            assert!(!column.contains('\0'));
            assert_eq!(read(&column), text);
        }
        assert_ne!(written("\0"), written("\u{E000}0"));
    }

    #[test]
    fn a_datetime_comes_back_to_the_microsecond() {
        for time in [0, 1, 1_767_323_045_000_006, LAST] {
            assert_eq!(micros(datetime(Micros(time))), Micros(time));
        }
    }
}
