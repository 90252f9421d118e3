//! A line of three partitions as a person meets it: its dead letters, what blocks it, its outputs, its rate.

mod support;

use std::io::BufRead as _;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Place, Service, number, parse, wait_for};

/// A processor of a line by key, in which what is larger than this is a dead letter at once.
const BY_KEY: [&str; 7] = ["process", "--order", "key", "--partitions", "3", "--max-size", "300"];

fn send(place: &Place, text: &str) {
    assert!(place.fed(&["send"], text.as_bytes()).status.success());
}

fn message(key: &str, payload: &str) -> String {
    format!("{{\"key\":\"{key}\",\"payload\":\"{payload}\"}}\n")
}

/// The answer of each line.
fn objects(text: &[u8]) -> Vec<Value> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty()).map(parse).collect()
}

/// How a command ended, and what it said.
fn ended(place: &Place, args: &[&str]) -> (Option<i32>, Value) {
    let output = place.run(args);
    (output.status.code(), parse(&output.stdout))
}

/// A key for each partition, found by what waits where: of a line that no processor works at.
fn keys(place: &Place) -> [String; 3] {
    let mut keys = [const { String::new() }; 3];
    let waiting = || {
        let status = place.status();
        [0, 1, 2].map(|partition| number(&status["partitions"][partition]["waiting"]))
    };
    let mut before = waiting();
    for key in (0..).map(|key| format!("k{key}")) {
        send(place, &message(&key, "first"));
        let now = waiting();
        let home = (0..3).find(|partition| now[*partition] > before[*partition]);
        keys[home.expect("it waits somewhere")] = key;
        before = now;
        if keys.iter().all(|key| !key.is_empty()) {
            break;
        }
    }
    keys
}

/// Of a line in total order a message's partition is its sequence modulo their number. They die one after the other.
#[test]
fn dead_letters_of_all_partitions_are_listed_as_they_died() {
    let place = Place::sqlite();
    let _service = place.service(&["process", "--order", "total", "--partitions", "3", "--max-size", "300"]);
    let large = "x".repeat(300);
    for (sequence, dead) in [5, 3, 7, 8].into_iter().zip(1..) {
        send(
            &place,
            &format!("{{\"sequence\":{sequence},\"payload\":\"{large}\"}}\n"),
        );
        wait_for("it to die", || place.status()["dead"] == dead);
    }
    let places = |args: &[&str]| -> Vec<[u64; 2]> {
        let listed = objects(&place.done(&[&["dead", "list", "--json"], args].concat()));
        let place = |letter: &Value| ["partition", "position"].map(|field| number(&letter[field]));
        listed.iter().map(place).collect()
    };
    assert_eq!(places(&[]), [[2, 1], [0, 1], [1, 1], [2, 2]]);
    assert_eq!(places(&["--limit", "2"]), [[2, 1], [0, 1]], "the oldest");
    assert_eq!(places(&["--partition", "1"]), [[1, 1]]);
    assert_eq!(places(&["--partition", "2"]), [[2, 1], [2, 2]]);
    let table = String::from_utf8(place.done(&["dead", "list"])).expect("text");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    assert_eq!(rows[0], ["partition", "position", "id"], "{table}");
    assert_eq!(
        rows[1..],
        [
            ["2", "1", "@2.1"],
            ["0", "1", "@0.1"],
            ["1", "1", "@1.1"],
            ["2", "2", "@2.2"]
        ],
        "{table}"
    );
    let shown = place.json(&["dead", "show", "1", "--partition", "0", "--json"]);
    assert_eq!(parse(shown["entry"].as_str().expect("text").as_bytes())["sequence"], 3);
    let purged = place.json(&["dead", "purge", "--all", "--partition", "2", "--json"]);
    assert_eq!(purged["purged"], Value::from(vec![1, 2]));
    assert_eq!(places(&[]), [[0, 1], [1, 1]], "those of the others stay");
}

/// One partition is halted, while a message is processed in each of the others.
fn halted(place: &Place) -> (Service, [String; 3]) {
    place.service(&BY_KEY).end();
    let keys = keys(place);
    let halting = [&BY_KEY[..], &["--on-dead", "halt"]].concat();
    let service = place.service(&halting);
    wait_for("what was there to be done", || {
        let status = place.status();
        number(&status["waiting"]) + number(&status["in_flight"]) == 0
    });
    service.end();
    place.done(&["receive"]);
    let service = place.service(&[&halting[..], &["--handler", "sleep:1h"]].concat());
    let texts = ["slow", "slow", &"x".repeat(300)];
    let text: String = keys.iter().zip(texts).map(|(key, text)| message(key, text)).collect();
    send(place, &text);
    wait_for("one to halt and two to be in flight", || {
        let status = place.status();
        status["halted"] == 1 && status["in_flight"] == 3
    });
    (service, keys)
}

#[test]
fn what_blocks_a_partition_is_told_and_decided() {
    let place = Place::sqlite();
    let (_service, _) = halted(&place);
    let status = place.status();
    let part = |status: &Value, partition: usize, field: &str| status["partitions"][partition][field].clone();
    let heads = [0, 1, 2].map(|partition| part(&status, partition, "head"));
    let at = heads[2].to_string();
    let blocker = &status["blocker"];
    assert_eq!(
        [&blocker["state"], &blocker["partition"], &blocker["position"]],
        [&Value::from("halted"), &2.into(), &heads[2]],
        "who waits for a person goes before who works: {status}"
    );
    assert_eq!(status["processors"].as_array().map(Vec::len), Some(1), "{status}");
    let states = [0, 1, 2].map(|partition| part(&status, partition, "blocker")["state"].clone());
    assert_eq!(states, ["leased", "leased", "halted"], "{status}");
    let names = [0, 1, 2].map(|partition| part(&status, partition, "line"));
    assert_eq!(names, ["main.0", "main.1", "main.2"]);
    let page = String::from_utf8(place.done(&["status"])).expect("text");
    for (partition, halted) in [0, 0, 1].into_iter().enumerate() {
        let head = &heads[partition];
        let told = format!(
            "  main.{partition}: waiting 0  in flight 1  processed 0  output 0  dead {halted}  halted {halted}  head {head}\n"
        );
        assert!(page.contains(&told), "{told} in {page}");
    }
    assert!(page.contains("\n  order       key/3\n"), "{page}");

    // A drain says the same.
    let drain = place.run(&["drain", "--timeout", "1ms"]);
    let said = String::from_utf8_lossy(&drain.stderr).into_owned();
    assert_eq!(drain.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("conga dead skip {at} --partition 2 --mark")),
        "{said}"
    );
    place.done(&["resume"]);

    let table = String::from_utf8(place.done(&["dead", "list"])).expect("text");
    assert!(table.contains("HALTED: too large"), "{table}");
    let shown = String::from_utf8(place.done(&["dead", "show", &at, "--partition", "2"])).expect("text");
    assert!(shown.contains("\nhalted   the line waits here"), "{shown}");
    let none: Value = Vec::<u64>::new().into();
    let it = Value::from(vec![heads[2].clone()]);
    // What is named has to be done, and of all that there are some have to wait.
    let (code, early) = ended(&place, &["dead", "purge", &at, "--partition", "2", "--json"]);
    assert_eq!((code, &early["early"], &early["not_halted"]), (Some(1), &it, &none));
    let (code, early) = ended(&place, &["dead", "purge", "--all", "--partition", "2", "--json"]);
    assert_eq!((code, &early["early"], &early["purged"]), (Some(0), &it, &none));
    let skip = ["dead", "skip", &at, "--partition", "2", "--json"];
    assert_eq!(place.json(&skip)["skipped"], it);
    let (code, again) = ended(&place, &skip);
    assert_eq!((code, &again["not_halted"], &again["early"]), (Some(1), &it, &none));

    let status = place.status();
    let blocker = &status["blocker"];
    assert_eq!(
        [&blocker["state"], &blocker["partition"], &blocker["attempt"]],
        [&Value::from("leased"), &0.into(), &1.into()],
        "{status}"
    );
    assert_eq!(status["output"], 0, "nothing stands in its place");
}

/// The first partitions have nothing to do, and are paused at once.
#[test]
fn a_drain_waits_for_every_partition() {
    let place = Place::sqlite();
    place.service(&BY_KEY).end();
    let [.., last] = keys(&place);
    let service = place.service(&BY_KEY);
    wait_for("what was there to be done", || {
        let status = place.status();
        number(&status["waiting"]) + number(&status["in_flight"]) == 0
    });
    service.end();
    let _service = place.service(&[&BY_KEY[..], &["--handler", "sleep:1h"]].concat());
    send(&place, &message(&last, "slow"));
    wait_for("it to be begun with", || place.status()["in_flight"] == 1);
    let drain = place.run(&["drain", "--timeout", "1ms", "--json"]);
    let said = String::from_utf8_lossy(&drain.stderr).into_owned();
    assert_eq!(drain.status.code(), Some(1), "{said}");
    assert!(said.contains("not drained in time: 1 in flight"), "{said}");
    assert_eq!(parse(&drain.stdout)["drained"], false);
    let status = place.status();
    let flows = [0, 1, 2].map(|partition| status["partitions"][partition]["control"]["flow"].clone());
    assert_eq!(flows, ["paused", "paused", "draining"], "{status}");
}

#[test]
fn the_outputs_of_all_partitions_are_received() {
    const MESSAGES: usize = 4_000;
    let place = Place::sqlite();
    let service = place.service(&BY_KEY);
    let payloads: Vec<String> = (0..MESSAGES).map(|number| format!("payload {number}")).collect();
    // Most go to one partition: more than are received in one step.
    let text: String = payloads
        .iter()
        .enumerate()
        .map(|(number, payload)| message(&format!("k{}", if number % 10 == 0 { number } else { 1 }), payload))
        .collect();
    send(&place, &text);
    wait_for("all to be done", || place.status()["output"] == MESSAGES);
    let lines = |args: &[&str]| -> Vec<String> {
        let text = String::from_utf8(place.done(args)).expect("text");
        text.lines().map(str::to_owned).collect()
    };
    let mut got = lines(&["receive", "--payload", "--count", "7"]);
    assert_eq!(got.len(), 7, "not one more");
    assert_eq!(place.status()["output"], MESSAGES - 7, "and the others stay");
    got.extend(lines(&["receive", "--payload"]));
    got.sort_unstable();
    let mut sent = payloads;
    sent.sort_unstable();
    assert!(got == sent, "{} came out", got.len());
    assert!(lines(&["receive"]).is_empty(), "all are acknowledged");
    service.end();
}

#[test]
fn who_receives_a_partition_keeps_others_out_and_says_if_it_got_too_few() {
    let place = Place::sqlite();
    let _service = place.service(&BY_KEY);
    assert!(place.status()["consumer"].is_null());
    send(&place, &message("a", "one"));
    let (mut active, mut printed) = place.printing(&["receive", "--count", "2"]);
    let mut line = String::new();
    printed.read_line(&mut line).expect("an output");
    assert_eq!(parse(line.as_bytes())["payload"], "one");
    wait_for("a consumer in each", || {
        let status = place.status();
        (0..3).all(|partition| !status["partitions"][partition]["consumer"].is_null())
    });
    assert!(!place.status()["consumer"].is_null());
    let other = place.run(&["receive"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(said.contains("receives a partition of this line"), "{said}");
    kill_process(Pid::from_child(&active), Signal::TERM).expect("told");
    assert_eq!(active.wait().expect("it ends").code(), Some(1), "one of two");
    assert!(place.done(&["receive"]).is_empty(), "that one is acknowledged");
}

#[test]
fn a_rate_is_that_of_all_partitions_together() {
    let place = Place::sqlite();
    place.service(&BY_KEY).end();
    let rate = |value: &Value| value["rate_per_second"].clone();
    assert_eq!(rate(&place.json(&["rate", "90", "--json"])), 90.0);
    let status = place.status();
    assert_eq!(rate(&status["control"]), 90.0, "{status}");
    for partition in 0..3 {
        assert_eq!(rate(&status["partitions"][partition]["control"]), 30.0, "{status}");
    }
    let page = String::from_utf8(place.done(&["rate", "none"])).expect("text");
    assert_eq!(page, "line main: running\n");
    let paused = place.json(&["pause", "--json"]);
    let status = place.status();
    assert_eq!(status["control"]["flow"], "paused");
    assert!(paused["since"].is_string() && status["control"]["since"].is_string());
    for partition in 0..3 {
        assert_eq!(status["partitions"][partition]["control"]["flow"], "paused", "{status}");
    }
}

/// What waits in the partitions to be merged is processed, and what is merged is the line's.
#[test]
fn a_merged_line_is_told_as_one() {
    let place = Place::sqlite();
    let shape = ["process", "--order", "total", "--partitions", "3"];
    let service = place.service(&[&shape[..], &["--keep-output", "100"]].concat());
    place.fed(&["send", "--first-sequence", "1"], b"a\nb\nc\nd\ne\n");
    let counts = || {
        let status = place.status();
        ["processed", "output", "head", "recorded"].map(|field| number(&status[field]))
    };
    wait_for("all to be processed", || counts() == [5, 0, 1, 5]);
    let status = place.status();
    assert!(status["leader"].is_null() && status["consumer"].is_null(), "{status}");
    let oldest = |status: &Value, of: &str| status["keep"][of]["oldest"].as_str().map(str::to_owned);
    let in_parts = (0..3).filter_map(|partition| oldest(&status["partitions"][partition], "records"));
    assert_eq!(oldest(&status, "records"), in_parts.min(), "the oldest of all");
    assert_eq!(oldest(&status, "output"), None);

    let sequencer = place.service(&["sequence", "--keep-output", "7"]);
    wait_for("all to be merged", || counts() == [0, 5, 6, 5]);
    wait_for("the sequencer to tell what stays", || {
        place.status()["keep"]["output"]["count"] == 7
    });
    let status = place.status();
    assert!(status["leader"].is_string() && number(&status["term"]) == 1, "{status}");
    assert!(status["consumer"].is_null(), "who merges is not who receives: {status}");
    assert!(oldest(&status, "output").is_some(), "{status}");
    assert_eq!(place.done(&["receive", "--payload"]), b"a\nb\nc\nd\ne\n");
    drop((service, sequencer));
}

#[test]
fn who_merges_keeps_tombstones_out_if_told_to() {
    for (way, expected) in [("mark", "1\n\n3\n"), ("skip", "1\n3\n")] {
        let place = Place::sqlite();
        let fails = "while IFS= read -r line; do case $line in *bad*) echo '{\"error\":\"no\",\"permanent\":true}';; *) echo \"$line\";; esac; done";
        std::fs::write(place.path().join("fails.sh"), fails).expect("written");
        let run = [
            "run",
            "--order",
            "total",
            "--partitions",
            "3",
            "--handler",
            "exec:exec sh fails.sh",
        ];
        let _service = place.service(&[&run[..], &["--on-dead", way]].concat());
        place.fed(&["send", "--first-sequence", "1"], b"1\nbad\n3\n");
        wait_for("all to be out", || place.status()["head"] == 4);
        let got = place.done(&["receive", "--payload"]);
        assert_eq!(String::from_utf8_lossy(&got), expected, "{way}");
    }
}

/// A line that is in partitions stays so, whoever says no more than its order.
#[test]
fn who_says_the_order_alone_takes_the_partitions_as_they_are() {
    let place = Place::sqlite();
    place.service(&BY_KEY).end();
    place.service(&["process", "--order", "key"]).end();
    assert_eq!(place.status()["order"], "key/3");
}
