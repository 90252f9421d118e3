//! `conga status` of a line of one partition: what is to be tried again and when, and how fast it goes.

mod support;

use std::io::BufRead as _;

use support::{Place, number, parse, wait_for};

/// A handler that fails, for what would control a terminal.
const FAILS: &str = r#"while IFS= read -r line; do printf '{"error":"no\\u001b[31m\\nway"}\n'; done"#;

#[test]
fn what_is_to_be_tried_again_is_told_with_its_time_and_then_its_reason() {
    let place = Place::sqlite();
    std::fs::write(place.path().join("fails.sh"), FAILS).expect("written");
    let failing = ["run", "--handler", "exec:exec sh fails.sh", "--max-attempts"];
    let service = place.service(&[&failing[..], &["9"]].concat());
    place.fed(&["send"], b"x\n");
    let mut status = place.status();
    wait_for("it to be delayed for long", || {
        status = place.status();
        status["blocker"]["state"] == "delayed"
            && status["blocker"]["due"].as_str() > status["now"].as_str()
            && place.status()["blocker"]["state"] == "delayed"
    });
    let page = || String::from_utf8(place.done(&["status"])).expect("text");
    wait_for("the page to tell how long", || {
        let page = page();
        let told = page.split_once("head 1: failed, to be tried again in ");
        told.is_some_and(|(_, time)| {
            time.split_once(" ms")
                .is_some_and(|(time, _)| time.parse::<f64>().is_ok_and(|time| time > 100.0))
        })
    });
    assert!(number(&service.end()["retried"]) > 0);

    // Another processor has it give up at once.
    let service = place.service(&[&failing[..], &["2"]].concat());
    wait_for("it to die", || place.status()["dead"] == 1);
    service.end();
    place.fed(&["send"], b"y\n");
    let service = place.service(&[&failing[..], &["2"]].concat());
    wait_for("another to die", || place.status()["dead"] == 2);
    service.end();
    let listed = String::from_utf8(place.done(&["dead", "list", "--json"])).expect("text");
    let letter = parse(listed.lines().last().expect("two").as_bytes());
    assert_eq!((&letter["position"], &letter["attempts"]), (&2.into(), &2.into()));
    let table = String::from_utf8(place.done(&["dead", "list"])).expect("text");
    assert_eq!((table.lines().count(), table.contains('\u{1b}')), (3, false), "{table}");
    let page = page();
    assert!(page.contains("head 3: nothing to do"), "{page}");
}

#[test]
fn a_watch_tells_what_goes_on_between_two_looks() {
    let place = Place::sqlite();
    place.done(&["send", "--count", "5"]);
    let (mut watch, printed) = place.printing(&["status", "--watch", "--json"]);
    let mut looks = printed.lines();
    let mut look = || parse(looks.next().expect("a look").expect("a line").as_bytes());
    assert!(look()["claimed_per_second"].is_null(), "there is no look before it");
    let _service = place.service(&["process", "--handler", "sleep:1h"]);
    let claimed = (0..20).map(|_| look()).find(|look| look["claimed_per_second"] != 0.0);
    watch.kill().expect("killed");
    watch.wait().expect("gone");
    let claimed = claimed.expect("claims");
    let rate = |of: &str| claimed[of].as_f64().expect("a rate");
    // Looks are a second apart, or more on a busy machine.
    assert!((0.1..=5.5).contains(&rate("claimed_per_second")), "{claimed}");
    assert!(rate("delivered_per_second").abs() < 1e-9, "{claimed}");
}
