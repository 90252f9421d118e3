//! A line of three partitions as real processes: the producer is killed in the middle of its input and run again, processors
//! are killed all the while; each line comes out once, and those of a key in their order.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;
use support::redis_cluster::RedisCluster;
use support::{Place, RedisServer, number, parse, wait_for};

const LINES: u64 = 3_000;
const KEYS: u64 = 37;
const KILLS: u64 = 8;

/// Every tenth has no key, and so goes by its turn.
fn line(number: u64) -> String {
    if number.is_multiple_of(10) {
        format!("{{\"payload\":{number}}}\n")
    } else {
        format!("{{\"key\":\"k{}\",\"payload\":{number}}}\n", number % KEYS)
    }
}

fn survive(place: &Place, order: &str) {
    let processor = [
        "process",
        "--order",
        order,
        "--partitions",
        "3",
        "--handler",
        "sleep:1ms..20ms",
    ];
    let mut processors = [place.service(&processor), place.service(&processor)];

    // Half of the input, and then the producer is gone, whatever it had on its way.
    let text: String = (1..=LINES).map(line).collect();
    let send = ["send", "--json", "--producer", "nightly"];
    let mut sender = place.send_again(&send, &text, text.len() / 2);
    for kill in 0..KILLS {
        let before = number(&place.status()["head"]);
        wait_for("some to go on", || {
            let now = place.status();
            number(&now["head"]) > before || number(&now["head"]) > LINES
        });
        // Killed, not told to end.
        let at = usize::try_from(kill % 2).expect("small");
        processors[at] = place.service(&processor);
    }
    assert!(sender.wait().expect("it ends").success());
    let again = place.json(&[&send[..], &["in.txt"]].concat());
    assert_eq!((number(&again["skipped"]), number(&again["sent"])), (LINES, 0));

    let out = place.done(&["receive", "--count", &LINES.to_string()]);
    let file = place.path().join("out.ndjson");
    std::fs::write(&file, &out).expect("written");
    let check = |file: &str| {
        let verify = ["verify", "--json", "--order", order, "--partitions", "3"];
        parse(
            &place
                .run(&[&verify[..], &["--count", &LINES.to_string(), file]].concat())
                .stdout,
        )
    };
    let verdict = check("out.ndjson");
    assert_eq!(verdict["passed"], true, "{verdict}");

    // And by what was sent, without the positions.
    let outputs: Vec<Value> = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse)
        .collect();
    let payloads: BTreeSet<u64> = outputs.iter().map(|output| number(&output["payload"])).collect();
    assert_eq!(payloads, (1..=LINES).collect());
    if order == "key" {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for output in &outputs {
            let Some(key) = output["key"].as_str() else { continue };
            let before = last.insert(key, number(&output["payload"]));
            assert!(
                before < Some(number(&output["payload"])),
                "{key}: {output} after {before:?}"
            );
        }
    }
    let now = place.status();
    let parts = now["partitions"].as_array().expect("partitions");
    assert_eq!(now["order"], format!("{order}/3"));
    assert_eq!(number(&now["head"]), LINES + 1);
    assert!(
        parts.iter().all(|part| number(&part["head"]) > LINES / 10),
        "all take part: {now}"
    );

    // What is wrong is found: a line twice, one too few.
    let mut lines: Vec<&[u8]> = out.split_inclusive(|byte| *byte == b'\n').collect();
    lines[7] = lines[8];
    std::fs::write(&file, lines.concat()).expect("written");
    let verdict = check("out.ndjson");
    assert_eq!(verdict["passed"], false, "{verdict}");
    assert!(
        number(&verdict["duplicated"]) > 0 && number(&verdict["lost"]) > 0,
        "{verdict}"
    );
}

#[test]
fn key_on_sqlite() {
    survive(&Place::sqlite(), "key");
}

#[test]
fn none_on_sqlite() {
    survive(&Place::sqlite(), "none");
}

#[test]
fn key_on_redis() {
    survive(&Place::redis(), "key");
}

#[test]
fn key_on_a_cluster_of_three_primaries() {
    let cluster = RedisCluster::start(3, Duration::from_secs(1), &[]).expect("a cluster");
    let homes: BTreeSet<usize> = (0..3)
        .map(|partition| cluster.primary_of(&format!("main.{partition}")).expect("a primary"))
        .collect();
    assert!(homes.len() > 1, "the partitions are spread");
    let place = Place {
        url: cluster.url(&[0]),
        folder: tempfile::tempdir().expect("a folder"),
        server: None::<RedisServer>,
    };
    survive(&place, "key");
}

/// Each partition is told, and dead letters are asked for of one.
#[test]
fn all_partitions_are_paused_and_drained_together() {
    let place = Place::sqlite();
    let shape = ["process", "--partitions", "3", "--order", "key"];
    let service = place.service(&[&shape[..], &["--handler", "sleep:200ms", "--concurrency", "6"]].concat());
    place.done(&["pause"]);
    let text: String = (1..=60).map(line).collect();
    std::fs::write(place.path().join("in.txt"), text).expect("written");
    place.done(&["send", "in.txt"]);
    let now = place.status();
    assert_eq!((number(&now["waiting"]), number(&now["in_flight"])), (60, 0), "{now}");
    place.done(&["resume"]);
    wait_for("some to begin", || number(&place.status()["in_flight"]) > 0);
    let drained = place.json(&["drain", "--json"]);
    assert_eq!(drained["drained"], true, "{drained}");
    let now = place.status();
    assert_eq!((number(&now["in_flight"]), number(&now["processed"])), (0, 0), "{now}");
    let waiting = number(&now["waiting"]);
    assert!(waiting > 0 && waiting < 60, "{now}");
    place.done(&["resume"]);
    place.done(&["receive", "--count", "60"]);
    drop(service);
    place.done(&["dead", "list"]);
    let refused = place.run(&["dead", "show", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2) && said.contains("--partition P"),
        "{said}"
    );
    place.done(&["dead", "list", "--partition", "2"]);
    assert_eq!(place.run(&["dead", "list", "--partition", "3"]).status.code(), Some(2));
}

#[test]
fn a_line_says_what_it_is_and_what_it_can_not_be() {
    let place = Place::sqlite();
    let refused = place.run(&["process", "--partitions", "3"]);
    assert_eq!(refused.status.code(), Some(2));
    let service = place.service(&["process", "--partitions", "3", "--order", "key"]);
    drop(service);
    for (args, told) in [
        (
            &["process", "--partitions", "4", "--order", "key"][..],
            "`key/3`, not `key/4`",
        ),
        (&["sequence"], "no sequencer is needed"),
    ] {
        let refused = place.run(args);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
    // Who says nothing takes it as it is.
    let _service = place.service(&["run"]);
    assert!(
        place
            .fed(&["send"], b"{\"key\":\"a\",\"payload\":1}\nplain\n")
            .status
            .success()
    );
    let out = String::from_utf8(place.done(&["receive", "--count", "2"])).expect("text");
    assert!(out.contains("\"id\":\"@"), "{out}");
    assert!(place.done(&["receive"]).is_empty(), "all is acknowledged");
}
