//! Pause, resume, drain and a rate, with real processes.

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use support::{Place, RedisServer, scripts, wait_for};

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
    until(place, "nobody there", |status| {
        status["processors"] == serde_json::json!([])
    });
    let output = place.run(&["drain", "--timeout", "1ms"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no processor is there (start one"), "{said}");
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

#[test]
fn a_processor_tells_each_change_once() {
    let place = Place::sqlite();
    let log = place.path().join("log");
    let mut service = place.conga(&["run", "--tied", "--handler", "sleep:10ms"]);
    let file = File::create(&log).expect("a file");
    let mut service = (service.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file))
        .spawn()
        .expect("conga starts");
    let told = |what: &str| {
        let said = std::fs::read_to_string(&log).expect("the log");
        said.matches(what).count()
    };
    for round in 1..=2 {
        place.done(&["pause"]);
        wait_for("the pause to be told", || told("the line is paused") == round);
        place.done(&["send", "--count", "10"]);
        place.done(&["resume"]);
        wait_for("the resume to be told", || told("the line goes on") == round);
        until(&place, "all of them", |status| status["waiting"] == 0);
    }
    drop(service.stdin.take());
    assert!(service.wait().expect("it ends").success());
    assert_eq!((told("the line is paused"), told("the line goes on")), (2, 2));
}

#[test]
fn a_drain_that_is_interrupted_leaves_the_line_draining() {
    for place in [Place::sqlite(), Place::redis()] {
        place.done(&["send", "--count", "3"]);
        let service = place.service(&["run", "--handler", "sleep:1500ms", "--concurrency", "1"]);
        until(&place, "begun", |status| status["in_flight"].as_u64() > Some(0));
        let drain = (place.conga(&["drain"]).stdin(Stdio::null()).stdout(Stdio::null()))
            .stderr(Stdio::piped())
            .spawn()
            .expect("conga starts");
        until(&place, "a drain", |status| status["control"]["flow"] == "draining");
        kill_process(Pid::from_child(&drain), Signal::INT).expect("there");
        let ended = drain.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.contains("stays draining") && said.contains("conga resume"),
            "{said}"
        );
        assert_eq!(place.json(&["status", "--json"])["control"]["flow"], "draining");
        place.done(&["resume"]);
        place.done(&["receive", "--count", "3"]);
        assert_eq!(service.end()["done"], 3);
    }
}

#[test]
fn a_line_stays_paused_when_its_server_is_killed_and_started_again() {
    let server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]).expect("a Redis server");
    let mut place = Place {
        url: server.url(),
        folder: tempfile::tempdir().expect("a folder"),
        server: Some(server),
    };
    let service = place.service(&["run", "--handler", "echo"]);
    let paused = place.json(&["pause", "--json"]);
    place.done(&["send", "--count", "20"]);
    let server = place.server.as_mut().expect("a server");
    server.kill().expect("killed");
    server.start_again().expect("it starts again");
    // The processor is there again, and has asked for messages many times.
    let port = server.port();
    wait_for("the processor", || scripts(port) > 20);
    let status = place.json(&["status", "--json"]);
    assert_ne!(status["processors"], serde_json::json!([]));
    assert_eq!((&status["waiting"], &status["in_flight"]), (&20.into(), &0.into()));
    assert_eq!(status["control"]["flow"], "paused");
    assert_eq!(status["control"]["since"], paused["since"]);
    place.done(&["resume"]);
    place.done(&["receive", "--count", "20"]);
    assert_eq!(service.end()["done"], 20);
}

#[test]
fn a_line_is_controlled_while_its_server_has_no_memory() {
    let place = Place::redis();
    let port = place.server.as_ref().expect("a server").port();
    let limit = |bytes| support::redis_ask::ask(port, &["CONFIG", "SET", "maxmemory", bytes]).expect("set");
    place.done(&["send", "--count", "5"]);
    limit("1");
    let refused = support::redis_ask::ask(port, &["SET", "anything", "new"]);
    assert!(refused.is_err(), "there is no memory");
    assert_eq!(place.json(&["pause", "--json"])["flow"], "paused");
    assert_eq!(place.json(&["rate", "10", "--json"])["rate_per_second"], 10.0);
    assert_eq!(
        place.json(&["rate", "none", "--json"])["rate_per_second"],
        serde_json::Value::Null
    );
    assert_eq!(place.json(&["resume", "--json"])["flow"], "running");
    assert_eq!(place.json(&["drain", "--json"])["drained"], true);
    limit("0");
    assert_eq!(place.json(&["status", "--json"])["control"]["flow"], "paused");
    place.done(&["resume"]);
    let service = place.service(&["run", "--handler", "echo"]);
    place.done(&["receive", "--count", "5"]);
    assert_eq!(service.end()["done"], 5);
}

/// A drain of a line that is halted says where and what to do about it, and ends when somebody has decided.
#[test]
fn a_drain_says_where_the_line_is_halted() {
    const FAILS: &str = "while IFS= read -r line; do printf '{\"error\":\"no\",\"permanent\":true}\\n'; done\n";
    for place in [Place::sqlite(), Place::redis()] {
        std::fs::write(place.path().join("fails.sh"), FAILS).expect("written");
        let service = place.service(&["run", "--on-dead", "halt", "--handler", "exec:exec sh fails.sh"]);
        place.fed(&["send"], b"a\nb\n");
        until(&place, "the line to halt", |status| status["halted"] == 2);
        let output = place.run(&["drain", "--timeout", "1ms"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in [
            "decides about position 1: HALTED",
            "failed for good: no",
            "conga dead retry 1",
            "conga dead skip 1",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        // It says so while it waits, too.
        let mut drain = (place
            .conga(&["drain", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null()))
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
        let lines = BufReader::new(drain.stderr.take().expect("standard error")).lines();
        let mut advice = lines.map_while(Result::ok).filter(|line| line.contains("dead skip"));
        assert!(advice.next().is_some_and(|line| line.contains("dead skip 1 ")));
        place.done(&["dead", "skip", "1"]);
        assert!(advice.any(|line| line.contains("dead skip 2 ")));
        place.done(&["dead", "skip", "2"]);
        // To its end, so that it can say what it likes.
        assert_eq!(advice.filter(|line| line.contains("dead skip 3")).count(), 0);
        assert!(drain.wait().expect("it ends").success());
        service.end();
    }
}
