//! Dead letters as a person meets them: one message among a thousand fails for good, what comes out byte for byte, and what can
//! be done about it.

mod support;

use serde_json::Value;
use support::letters::{DATETIMES, assert_same, normalised};
use support::{Place, parse, wait_for};

/// So many messages on each side of the one that fails.
const BESIDE: usize = 500;
/// Its position.
const AT: usize = BESIDE + 1;
/// The largest input where this one is too large.
const LARGEST: &str = "300";

/// A message that is too large there, however often it is tried.
fn large(id: &str) -> String {
    format!(r#"{{"id":"{id}","payload":"{}"}}"#, "é".repeat(200))
}

/// A message that will fail, with a thousand others around it.
fn messages() -> Vec<u8> {
    let mut lines: Vec<String> = (1..=2 * BESIDE)
        .map(|number| format!("{{\"id\":\"m{number}\",\"payload\":{{\"n\":{number}}}}}"))
        .collect();
    lines.insert(BESIDE, large("big"));
    (lines.join("\n") + "\n").into_bytes()
}

/// What has to come out, a line each.
fn expected(marked: bool, bytes: usize) -> String {
    let mut lines = String::new();
    for number in 1..=2 * BESIDE {
        let position = number + usize::from(number > BESIDE);
        if position == AT + 1 && marked {
            let reason = format!("too large: {bytes} bytes, the limit is {LARGEST}");
            lines += &format!(
                "{{\"position\":{AT},\"id\":\"@{AT}\",\"dead\":{{\"reason\":\"{reason}\",\"attempts\":1}},\"attempts\":1,{DATETIMES}}}\n"
            );
        }
        lines += &format!(
            "{{\"position\":{position},\"id\":\"m{number}\",\"payload\":{{\"n\":{number}}},\"attempts\":1,{DATETIMES}}}\n"
        );
    }
    lines
}

fn among_a_thousand(place: &Place) {
    for (line, way, marked) in [("marked", "mark", true), ("skipped", "skip", false)] {
        let of = |args: &[&'static str]| [args, &["--line", line]].concat();
        let on_line = |args: &[&'static str]| place.conga(&of(args)).output().expect("conga starts");
        let sent = place.fed(&of(&["send"]), &messages());
        assert!(sent.status.success());
        let services: Vec<_> = (0..4)
            .map(|_| {
                let args = [
                    "process",
                    "--max-size",
                    LARGEST,
                    "--handler",
                    "sleep:1ms..5ms",
                    "--concurrency",
                    "64",
                ];
                place.service(&[&of(&args)[..], &["--on-dead", way]].concat())
            })
            .collect();
        let count = (2 * BESIDE + usize::from(marked)).to_string();
        let outputs = place.done(&["receive", "--count", &count, "--line", line]);
        let dead: u64 = services
            .into_iter()
            .map(|service| service.end()["dead"].as_u64().unwrap_or(0))
            .sum();
        assert_eq!(dead, 1, "its neighbours live");

        // It is listed and shown.
        let listed = on_line(&["dead", "list", "--json"]).stdout;
        let letter = parse(&listed);
        assert_eq!((&letter["position"], &letter["attempts"]), (&AT.into(), &1.into()));
        let table = String::from_utf8(on_line(&["dead", "list"]).stdout).expect("text");
        assert!(
            table.contains("the limit is 300") && table.lines().count() == 2,
            "{table}"
        );
        let shown = place.json(&["dead", "show", &AT.to_string(), "--json", "--line", line]);
        let entry = shown["entry"].as_str().expect("text");
        assert_eq!(parse(entry.as_bytes())["id"], "big");
        assert_same(&normalised(&outputs), &expected(marked, entry.len()), way);
        let page = place.done(&["dead", "show", &AT.to_string(), "--line", line]);
        assert!(String::from_utf8_lossy(&page).contains("as it came in:\n{\n"));

        // It is sent again, once, and comes out behind all others where it is a message.
        let retried = place.json(&["dead", "retry", &AT.to_string(), "--json", "--line", line]);
        assert_eq!(retried["retried"], Value::from(vec![AT]));
        let again = place.run(&["dead", "retry", &AT.to_string(), "--line", line]);
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("retried or purged before"));
        let service = place.service(&["process", "--line", line]);
        let output = place.json(&["receive", "--count", "1", "--line", line]);
        assert_eq!(
            (&output["position"], &output["id"], &output["payload"]),
            (&(2 * BESIDE + 2).into(), &"big".into(), &"é".repeat(200).into())
        );
        service.end();
        assert_eq!(
            String::from_utf8_lossy(&on_line(&["dead", "list"]).stdout),
            "no dead letters\n"
        );
    }
}

/// All of them at once, in the order in which they died; and what is deleted.
fn all_of_them(place: &Place) {
    let fed = place.fed(
        &["send"],
        format!("{}\na\n{}\n{}\n", large("first"), large("second"), large("third")).as_bytes(),
    );
    assert!(fed.status.success());
    let small = ["process", "--max-size", LARGEST];
    let service = place.service(&small);
    place.done(&["receive", "--count", "4"]);
    assert_eq!(
        place.json(&["dead", "purge", "--older", "7d", "--json"])["purged"],
        Value::from(vec![0; 0])
    );
    assert_eq!(
        place.json(&["dead", "purge", "3", "--json"])["purged"],
        Value::from(vec![3])
    );
    // Each dies again, at its new place.
    assert_eq!(
        place.json(&["dead", "retry", "--all", "--json"])["retried"],
        Value::from(vec![1, 4])
    );
    place.done(&["receive", "--count", "2"]);
    service.end();
    let listed = String::from_utf8(place.done(&["dead", "list", "--json"])).expect("text");
    let places: Vec<_> = listed
        .lines()
        .map(|line| parse(line.as_bytes())["position"].clone())
        .collect();
    assert_eq!(places, [5, 6]);
    assert_eq!(
        String::from_utf8_lossy(&place.done(&["dead", "list", "--limit", "1"]))
            .lines()
            .count(),
        2
    );
    assert_eq!(
        place.json(&["dead", "purge", "--older", "0s", "--json"])["purged"],
        Value::from(vec![5, 6])
    );
    assert_eq!(place.json(&["status", "--json"])["dead"], 0);
    for wrong in [
        &["dead", "retry"][..],
        &["dead", "purge"],
        &["dead", "retry", "1", "--all"],
        &["dead", "purge", "--older", "7"],
    ] {
        assert_eq!(place.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(place.run(&["dead", "show", "1"]).status.code(), Some(1));
}

/// More than a store tells at once, and than are decided about in one step.
#[test]
fn more_than_a_page_of_them() {
    const COUNT: usize = 1_100;
    let place = Place::sqlite();
    let service = place.service(&["run", "--max-size", LARGEST]);
    place.fed(&["send"], (large("big") + "\n").repeat(COUNT).as_bytes());
    wait_for("all to die", || place.status()["dead"] == COUNT);
    service.end();
    let listed = String::from_utf8(place.done(&["dead", "list", "--json"])).expect("text");
    let positions = listed.lines().map(|line| parse(line.as_bytes())["position"].clone());
    assert!(positions.eq((1..=COUNT).map(Value::from)));
    let last = COUNT.to_string();
    assert_eq!(place.json(&["dead", "show", &last, "--json"])["position"], COUNT);
    let purged = place.json(&["dead", "purge", "--all", "--json"]);
    assert_eq!(purged["purged"], Value::from((1..=COUNT).collect::<Vec<_>>()));
    assert_eq!(place.status()["dead"], 0);
}

#[test]
fn who_died_first_goes_first() {
    let place = Place::sqlite();
    let fails = "while IFS= read -r line; do echo '{\"error\":\"no\"}'; done";
    std::fs::write(place.path().join("fails.sh"), fails).expect("written");
    let failing = ["run", "--handler", "exec:exec sh fails.sh", "--max-attempts", "2"];
    let _service = place.service(&[&failing[..], &["--max-size", LARGEST]].concat());
    place.fed(&["send"], format!("tried twice\n{}\n", large("big")).as_bytes());
    wait_for("both to die", || place.status()["dead"] == 2);
    let listed = String::from_utf8(place.done(&["dead", "list", "--json"])).expect("text");
    let positions = listed.lines().map(|line| parse(line.as_bytes())["position"].clone());
    assert_eq!(positions.collect::<Vec<_>>(), [2, 1]);
    let retried = place.json(&["dead", "retry", "--all", "--json"]);
    assert_eq!(retried["retried"], Value::from(vec![2, 1]), "and sent again first");
}

/// Who wants payloads alone has an empty line in its place.
#[test]
fn a_tombstone_has_no_payload() {
    let place = Place::sqlite();
    let _service = place.service(&["run", "--max-size", LARGEST]);
    place.fed(&["send"], format!("a\n{}\nb\n", large("big")).as_bytes());
    assert_eq!(place.done(&["receive", "--payload", "--count", "3"]), b"a\n\nb\n");
}

#[test]
fn one_among_a_thousand_on_sqlite() {
    among_a_thousand(&Place::sqlite());
}

#[test]
fn one_among_a_thousand_on_redis() {
    among_a_thousand(&Place::redis());
}

#[test]
fn all_of_them_on_sqlite() {
    all_of_them(&Place::sqlite());
}

#[test]
fn all_of_them_on_redis() {
    all_of_them(&Place::redis());
}
