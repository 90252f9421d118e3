//! Outputs, as they are read and as they are merged.

use bytes::Bytes;
use conga_core::lease::Attempt;
use conga_core::merge::Found;
use conga_core::message::{Body, Id, Output, Payload, Position, Record, write_open};
use conga_core::time::Micros;

pub(crate) fn found(output: Bytes) -> Found<Bytes> {
    let read = Output::parse(&output).expect("an output").record;
    Found {
        position: read.position,
        place: read.sequence.map(Position),
        is_dead: matches!(read.body, Body::Dead { .. }),
        bytes: 1,
        ticket: output,
    }
}

pub(crate) fn open(position: Position) -> String {
    let record = Record {
        position,
        id: Id::given(position.to_string()),
        sequence: Some(position.0),
        key: None,
        body: Body::Result(Payload::string("x")),
        attempts: Attempt(1),
        created: Micros(1),
        processing: Micros(1),
    };
    write_open(&record)
}

pub(crate) fn processed(position: Position) -> String {
    let mut text = open(position);
    text.push_str(",\"processed\":\"1970-01-01T00:00:00.000001Z\"");
    text
}
