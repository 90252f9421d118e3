//! Between the core's types and SQLite's.

use bytes::Bytes;
use conga_core::lease::Attempt;
use conga_core::message::{Body, Entry, Id, Payload, Position, Record};
use conga_core::partition::Strikes;
use conga_core::shape::{BadShape, Shape};
use conga_core::time::Micros;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Type, Value, ValueRef};
use rusqlite::{Row, ToSql};

/// SQLite's integers have a sign. What is larger than they are is the largest of them: a deadline or a delay of
/// 290,000 years, or a position that does not exist.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back. What is stored is never negative.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A column that holds a `u64`.
pub(super) fn uint_at(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(uint)
}

pub(super) fn position_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Position> {
    uint_at(row, column).map(Position)
}

pub(super) fn micros_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Micros> {
    uint_at(row, column).map(Micros)
}

pub(super) fn attempt_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Attempt> {
    row.get(column).map(Attempt)
}

/// Strikes, from two columns.
pub(super) fn strikes_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Strikes> {
    Ok(Strikes {
        excused: row.get(column)?,
        crashes: row.get(column + 1)?,
    })
}

/// What the line is, where that was set.
pub(super) fn shape_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Shape>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error: BadShape| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// An entry from its size and, unless it is larger than the limit, its body.
pub(super) fn entry_at(row: &Row<'_>, size: usize, body: usize) -> rusqlite::Result<Entry> {
    let body: Option<Vec<u8>> = row.get(body)?;
    Ok(match body {
        Some(body) => Entry::Whole(body.into()),
        None => Entry::Oversize {
            bytes: uint_at(row, size)?,
        },
    })
}

/// A producer's number: an integer for people to sort by; from 2^63 on the text of it.
pub(super) fn sequence(number: Option<u64>) -> Value {
    match number {
        None => Value::Null,
        Some(number) => i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
    }
}

struct Sequence(Option<u64>);

impl FromSql for Sequence {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Null => Ok(Self(None)),
            ValueRef::Integer(number) => Ok(Self(Some(uint(number)))),
            _ => match value.as_str()?.parse() {
                Ok(number) => Ok(Self(Some(number))),
                Err(error) => Err(FromSqlError::other(error)),
            },
        }
    }
}

/// A result's columns: `dead` and `payload`. Bytes that are no text go in as they are, not as their base64.
pub(super) fn body(body: &Body) -> (Option<&str>, Box<dyn ToSql + '_>) {
    match body {
        Body::Dead { reason } => (Some(reason), Box::new(rusqlite::types::Null)),
        Body::Result(payload) if payload.is_base64() => (None, Box::new(payload.to_bytes().to_vec())),
        Body::Result(payload) => (None, Box::new(payload.text())),
    }
}

/// The columns of a row of `record`, as `emit.sql` and `browse.sql` list them.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) number: i64,
    pub(super) record: Record,
    pub(super) processed: Micros,
    /// When the leader took it up, and when it was delivered.
    pub(super) delivered: Option<(Micros, Micros)>,
}

impl Stored {
    /// How many columns it takes.
    pub(super) const COLUMNS: usize = 13;

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let sequencing: Option<i64> = row.get(9)?;
        let sequenced: Option<i64> = row.get(10)?;
        let reason: Option<String> = row.get(11)?;
        let body = match reason {
            Some(reason) => Body::Dead { reason },
            None => Body::Result(payload_at(row, 12)?),
        };
        Ok(Self {
            number: row.get(0)?,
            record: Record {
                id: Id::given(row.get::<_, String>(1)?),
                position: position_at(row, 2)?,
                sequence: row.get::<_, Sequence>(3)?.0,
                key: row.get(4)?,
                attempts: attempt_at(row, 5)?,
                created: micros_at(row, 6)?,
                processing: micros_at(row, 7)?,
                body,
            },
            processed: micros_at(row, 8)?,
            delivered: sequencing
                .zip(sequenced)
                .map(|(sequencing, sequenced)| (Micros(uint(sequencing)), Micros(uint(sequenced)))),
        })
    }
}

fn payload_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Payload> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(Payload::bytes(bytes)),
        value => Payload::json(&Bytes::copy_from_slice(value.as_str()?.as_bytes()))
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))),
    }
}
