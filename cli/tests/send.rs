//! `conga send`: what a line of the input says of itself is what its message has; and what it says when it can't go on.

mod support;

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use support::{Place, parse, wait_for};

#[test]
fn what_a_line_says_of_itself_stays() {
    let place = Place::sqlite();
    let _service = place.service(&["run"]);
    let line = |id: &str, sequence: &str| {
        format!("{{\"id\":\"{id}\",{sequence}\"key\":\"k\",\"created\":\"2026-01-02T03:04:05Z\",\"payload\":[1]}}\n")
    };
    for (args, line, id, sequence) in [
        (&["send"][..], line("a", "\"sequence\":41,"), "a", Value::from(41)),
        (&["send", "--first-sequence", "42"], line("b", ""), "b", 42.into()),
    ] {
        assert!(place.fed(args, line.as_bytes()).status.success());
        let output = parse(&place.done(&["receive", "--count", "1"]));
        for (field, value) in [
            ("id", id.into()),
            ("sequence", sequence),
            ("key", "k".into()),
            ("created", "2026-01-02T03:04:05.000000Z".into()),
            ("payload", Value::from(vec![1])),
        ] {
            assert_eq!(output[field], value, "{field} of {output}");
        }
    }
}

/// A store that is away for longer than it is waited for: how far it came is told, and it can be run again.
#[test]
fn who_gives_up_says_how_far_it_came() {
    let place = Place::sqlite();
    place.done(&["status"]);
    let named = ["send", "--producer", "nightly"];
    let mut producer = place
        .conga(&named)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let mut lines = producer.stdin.take().expect("a pipe");
    lines.write_all(b"1\n2\n").expect("written");
    wait_for("its lines", || place.status()["waiting"] == 2);
    let lock = rusqlite::Connection::open(place.path().join("conga.db")).expect("a store");
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    lines.write_all(b"3\n").expect("written");
    drop(lines);
    let output = producer.wait_with_output().expect("it ends");
    lock.execute_batch("ROLLBACK").expect("unlocked");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(
            "after 2 lines were sent, the next 1 and all after them were not sent; run the same command again to go on"
        ),
        "{said}"
    );
    let again = place.fed(&named, b"1\n2\n3\n");
    assert!(String::from_utf8_lossy(&again.stderr).contains("2 lines had been sent"));
    assert_eq!(place.status()["waiting"], 3);
}
