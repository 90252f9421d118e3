//! What is kept comes back byte for byte, whatever the database thinks of it.

use bytes::Bytes;
use conga::core::lease::Attempt;
use conga::core::message::{Payload, Record};
use conga::core::time::Micros;
use conga::ledger::Kept;

use crate::desk::{Desk, Work, result, text};

/// Records these, and requires that another who has the same ids is told of each of them, as it was.
async fn come_back(desk: &impl Desk, results: Vec<Record>) {
    let work = Work::at(desk, results.len()).await;
    work.end(&results).await;
    let mut rows = work.rows().await;
    rows.sort_by_key(|row| row.position);
    assert_eq!(rows, results);
    assert_eq!(work.outputs().await, results);
    if work.ledger.is_apart() {
        let others: Vec<Record> = results
            .iter()
            .map(|result| text(result.position.0, result.id.as_str(), "another"))
            .collect();
        let kept = work.ledger.record(&others).await.unwrap();
        let expected: Vec<Kept> = results.into_iter().map(Kept::Other).collect();
        assert_eq!(kept, expected);
    }
}

/// The same, and once more among so many others that a database takes them in another way.
async fn come_back_in_any_batch(desk: &impl Desk, results: Vec<Record>) {
    let next = results.len() as u64 + 1;
    let others = (next..next + 100).map(|number| text(number, &format!("other {number}"), "y"));
    let crowded = results.iter().cloned().chain(others).collect();
    come_back(desk, results).await;
    come_back(desk, crowded).await;
}

pub(crate) async fn payloads_come_back_byte_for_byte(desk: &impl Desk) {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let long = format!("{}.5", "9".repeat(140_000));
    let json = [
        "null",
        "true",
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1.50",
        "1e5",
        "1E+5",
        "1e400",
        "1e-400",
        "1e200000",
        &long,
        "\"\"",
        "\"a\"",
        "\"\\u0000\"",
        "\"\\u00e9\"",
        "\"é\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\/\"",
        "\"\\b\\f\\n\\r\\t\"",
        "\"\\u001f\"",
        "\"\u{7f}\u{2028}\"",
        "[]",
        "[ ]",
        "[1,2]",
        "[1, 2]",
        "{}",
        "{\"a\":1,\"a\":2}",
        "{\"b\":1,\"a\":2}",
        "{\"aa\":1,\"b\":2}",
        "{\"b\":2,\"aa\":1}",
        "{\"\":1}",
        "{\"a b\" : \" : \"}",
        "{\"\\u0000\":1}",
        "{\n\t\"a\": [\r\n]}",
        "\"a \\\" b\"",
        "{\"a\\\\\":\"\\\\\"}",
        "[\"x  y\",{\"z\":\", \"}]",
        &deep,
    ];
    let mut payloads: Vec<Payload> = json
        .iter()
        .map(|text| Payload::json(&Bytes::from((*text).to_owned())).unwrap())
        .collect();
    payloads.extend([&b"\xff"[..], b"\x00\xff\x00", &[0x80; 300]].map(Payload::bytes));
    let results = payloads
        .into_iter()
        .zip(1..)
        .map(|(payload, number)| result(number, &format!("p{number}"), payload));
    come_back_in_any_batch(desk, results.collect()).await;
}

pub(crate) async fn ids_and_keys_of_all_kinds(desk: &impl Desk) {
    let long = "x".repeat(512);
    let odd = [
        "1",
        "01",
        "@1-x",
        " ",
        "a b",
        "'; DROP TABLE conga_record; --",
        "\"",
        "\\",
        "\n",
        "\0",
        "a\0b",
        "\u{E000}0",
        "\u{E000}",
        "é",
        "e\u{301}",
        "É",
        "{1,2}",
        "NULL",
        "🙂",
        &long,
        "A",
        "a",
    ];
    let results = odd.iter().zip(1..).map(|(id, number)| Record {
        key: Some((*id).to_owned()),
        ..text(number, id, "x")
    });
    come_back_in_any_batch(desk, results.collect()).await;
}

pub(crate) async fn numbers_and_datetimes_at_their_ends(desk: &impl Desk) {
    let last = Micros(253_402_207_199_999_999);
    let results = [(0, Micros(0)), (u64::MAX, last), (i64::MAX as u64 + 1, Micros(999_999))];
    let results = results.into_iter().zip(1..).map(|((sequence, time), number)| Record {
        sequence: Some(sequence),
        created: time,
        processing: time,
        attempts: Attempt(1),
        ..text(number, &sequence.to_string(), "x")
    });
    come_back_in_any_batch(desk, results.collect()).await;
}

pub(crate) async fn a_megabyte(desk: &impl Desk) {
    let text = |letter: &str| Payload::string(&letter.repeat(1 << 20));
    let json = format!("{{\"b\":\"{}\",\"a\":1}}", "y".repeat(1 << 20));
    let results = vec![
        result(1, "a", text("x")),
        result(2, "b", Payload::json(&Bytes::from(json)).unwrap()),
        result(3, "c", Payload::bytes(&vec![0xff; 1 << 20])),
    ];
    come_back_in_any_batch(desk, results).await;
}
