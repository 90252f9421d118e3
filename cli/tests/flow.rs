//! Pause, resume, drain and a rate, with real processes.

mod support;

use std::time::Instant;

use support::{Place, wait_for};

/// Waits until the status says so.
fn until(place: &Place, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    wait_for(what, || is_so(&place.json(&["status", "--json"])));
}

fn story(place: &Place) {
    assert_eq!(place.json(&["pause", "--json"])["flow"], "paused");
    let says = String::from_utf8(place.done(&["status"])).expect("text");
    assert!(says.contains("paused since") && says.contains("conga resume"), "{says}");
    place.done(&["send", "--count", "200"]);
    let service = place.service(&["run", "--handler", "sleep:300ms", "--concurrency", "20"]);
    until(place, "a processor", |status| {
        status["processors"] != serde_json::json!([])
    });
    assert_eq!(place.json(&["status", "--json"])["waiting"], 200, "it is paused");
    assert_eq!(place.json(&["resume", "--json"])["flow"], "running");
    until(place, "begun", |status| status["in_flight"].as_u64() > Some(0));
    // Nobody is there to finish what is in flight: kill -9.
    drop(service);
    let output = place.run(&["drain", "--timeout", "1ms"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in flight") && said.contains("conga resume"), "{said}");
    let before = place.json(&["status", "--json"])["waiting"].clone();
    let service = place.service(&["run", "--handler", "sleep:10ms"]);
    let drained = place.json(&["drain", "--json"]);
    assert_eq!(drained["drained"], true);
    assert_eq!(drained["flow"], "paused");
    assert_eq!((&drained["in_flight"], &drained["processed"]), (&0.into(), &0.into()));
    assert_eq!(drained["waiting"], before, "nothing new was begun");
    // 100 in a second, and not more: so long what is left takes.
    assert_eq!(place.json(&["rate", "100", "--json"])["rate_per_second"], 100.0);
    let began = Instant::now();
    place.done(&["resume"]);
    until(place, "done", |status| status["head"] == 201);
    #[allow(clippy::cast_precision_loss, reason = "few")]
    let least = (before.as_u64().expect("a number") as f64 - 21.0) / 100.0;
    assert!(
        began.elapsed().as_secs_f64() >= least,
        "{:?} for {before}",
        began.elapsed()
    );
    assert_eq!(
        place.json(&["rate", "none", "--json"])["rate_per_second"],
        serde_json::Value::Null
    );
    service.end();
    let output = place.done(&["receive", "--count", "200"]);
    let file = place.path().join("out.ndjson");
    std::fs::write(&file, output).expect("written");
    place.done(&["verify", "out.ndjson", "--count", "200"]);
}

#[test]
fn a_line_is_paused_drained_and_limited_on_sqlite() {
    story(&Place::sqlite());
}

#[test]
fn a_line_is_paused_drained_and_limited_on_redis() {
    story(&Place::redis());
}

#[test]
fn what_is_no_rate_is_refused() {
    let output = Place::sqlite().run(&["rate", "fast"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("messages per second"), "{said}");
}
