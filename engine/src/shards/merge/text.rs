//! What an output of a partition becomes in the line.

use bytes::Bytes;
use conga_core::lease::Attempt;
use conga_core::merge::Found;
use conga_core::message::{Body, Id, Output, Position, Record, write_open};
use conga_core::partition::{Late, Piece};
use conga_core::route::{By, Router};
use conga_core::time::Micros;

use crate::store::{Result, StoreError};

/// An output of a partition, as the rules of the merge see it.
pub(super) fn found(router: Router, partition: usize, output: Bytes) -> Result<Found<Bytes>> {
    let record = Output::parse(&output)
        .map_err(|error| StoreError::Broken(format!("in the output of partition {partition}: {error}; take it out")))?
        .record;
    debug_assert_eq!(router.by(), By::Sequence);
    let home = router.partition_of_output(&record);
    let is_here = home.is_some_and(|home| home as usize == partition);
    Ok(Found {
        position: record.position,
        place: record
            .sequence
            .filter(|sequence| is_here && *sequence > 0)
            .map(Position),
        is_dead: matches!(record.body, Body::Dead { .. }),
        bytes: output.len(),
        ticket: output,
    })
}

/// It at its place in the line, without the times of its delivery in its partition.
pub(super) fn piece(place: Position, is_dead: bool, mark_dead: bool, output: &[u8]) -> Result<Piece> {
    if is_dead && !mark_dead {
        return Ok(Piece::Nothing);
    }
    let open =
        open(place, output).ok_or_else(|| StoreError::Broken(format!("the output of sequence {place} is damaged")))?;
    Ok(if is_dead {
        Piece::Tombstone(open)
    } else {
        Piece::Result(open)
    })
}

fn open(place: Position, output: &[u8]) -> Option<String> {
    let delivery = b",\"sequencing\":";
    let end = output.windows(delivery.len()).rposition(|part| part == delivery)?;
    let rest = output[..end].strip_prefix(b"{\"position\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let rest = std::str::from_utf8(&rest[digits..]).ok()?;
    Some(format!("{{\"position\":{place}{rest}"))
}

/// What is told of an output that may have come too late.
pub(super) fn late(place: Position, output: &[u8]) -> Late {
    Late {
        position: place,
        reason: format!("sequence {place} came when its place in the line was passed without it"),
        output: String::from_utf8_lossy(output).into_owned(),
    }
}

/// The tombstone of a number that did not come, missing since `since`.
pub(super) fn given_up(place: Position, since: Micros, reason: &str) -> String {
    write_open(&Record {
        position: place,
        id: Id::given(place.to_string()),
        sequence: Some(place.0),
        key: None,
        body: Body::Dead {
            reason: format!("sequence {place} {reason}"),
        },
        attempts: Attempt(0),
        created: since,
        processing: since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_gets_its_place_in_the_line_and_keeps_all_else() {
        let output = br#"{"position":4,"id":"7","sequence":7,"payload":",\"sequencing\":","processed":"p","sequencing":"a","sequenced":"b"}"#;
        let text = r#"{"position":7,"id":"7","sequence":7,"payload":",\"sequencing\":","processed":"p""#;
        assert_eq!(
            piece(Position(7), false, true, output),
            Ok(Piece::Result(text.to_owned()))
        );
        assert_eq!(
            piece(Position(7), true, true, output),
            Ok(Piece::Tombstone(text.to_owned()))
        );
        assert_eq!(piece(Position(7), true, false, output), Ok(Piece::Nothing));
        assert!(piece(Position(7), false, true, b"garbage").is_err());
    }

    #[test]
    fn what_belongs_into_another_partition_has_no_place() {
        let router = Router::new(By::Sequence, 3);
        let times = r#""attempts":1,"created":"2026-01-02T03:04:05Z","processing":"2026-01-02T03:04:05Z","processed":"2026-01-02T03:04:05Z""#;
        let of = |sequence: &str| {
            let output = format!("{{\"position\":2,\"id\":\"a\",{sequence}\"payload\":1,{times}}}");
            found(router, 1, output.into()).unwrap().place
        };
        assert_eq!(of("\"sequence\":7,"), Some(Position(7)));
        assert_eq!(of("\"sequence\":8,"), None);
        assert_eq!(of(""), None);
    }
}
