//! A line in total order over three partitions as real processes: the producer, processors and the merging leader are killed all
//! the while; each line comes out once, in the order of the sequences.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::redis_cluster::RedisCluster;
use support::{Place, RedisServer, number, parse, wait_for};

const LINES: u64 = 2_000;
const KILLS: u64 = 12;
const SHAPE: [&str; 5] = ["process", "--order", "total", "--partitions", "3"];

/// Numbers by chance, the same ones for a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn survive(place: &Place, seed: u64) {
    let mut dice = Dice(seed);
    let processor = [&SHAPE[..], &["--handler", "sleep:1ms..20ms", "--concurrency", "2"]].concat();
    let sequencer = ["sequence"];
    let mut processors = [place.service(&processor), place.service(&processor)];
    let mut sequencers = [place.service(&sequencer), place.service(&sequencer)];

    // A part of the input, and then the producer is gone, whatever it had on its way.
    let text: String = (1..=LINES)
        .map(|number| format!("{{\"payload\":{number}}}\n"))
        .collect();
    let send = ["send", "--json", "--producer", "nightly", "--first-sequence", "1"];
    let part = usize::try_from(dice.next(text.len() as u64)).expect("small");
    let mut sender = place.send_again(&send, &text, part.max(1_000));
    let mut amid = 0;
    for _ in 0..KILLS {
        let before = number(&place.status()["head"]);
        let mut head = before;
        wait_for("the line to go on", || {
            head = number(&place.status()["head"]);
            head > before + 20 || head > LINES
        });
        amid += u64::from(head <= LINES);
        // Killed, not told to end.
        let at = usize::try_from(dice.next(2)).expect("small");
        match dice.next(2) {
            0 => processors[at] = place.service(&processor),
            _ => sequencers[at] = place.service(&sequencer),
        }
    }
    println!("seed {seed}: {amid} of {KILLS} kills amid the work");
    assert!(amid >= KILLS / 3, "{amid} kills amid the work");
    assert!(sender.wait().expect("it ends").success());
    let again = place.json(&[&send[..], &["in.txt"]].concat());
    assert_eq!((number(&again["skipped"]), number(&again["sent"])), (LINES, 0));

    let out = place.done(&["receive", "--count", &LINES.to_string()]);
    std::fs::write(place.path().join("out.ndjson"), &out).expect("written");
    let verify = ["verify", "--json", "--order", "total", "--partitions", "3", "--count"];
    let verdict = parse(
        &place
            .run(&[&verify[..], &[&LINES.to_string(), "out.ndjson"]].concat())
            .stdout,
    );
    assert_eq!(verdict["passed"], true, "{verdict}");
    let outputs = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse);
    let mut count = 0;
    for (output, expected) in outputs.zip(1..) {
        let told = ["position", "sequence", "payload"].map(|field| number(&output[field]));
        assert_eq!(told, [expected; 3], "seed {seed}: {output}");
        count = expected;
    }
    assert_eq!(count, LINES);
    assert!(place.done(&["receive"]).is_empty(), "nothing comes twice");
    wait_for("all to be acknowledged in the partitions", || {
        let now = place.status();
        number(&now["processed"]) == 0
    });
    let now = place.status();
    assert_eq!(now["order"], "total/3");
    assert_eq!(
        (number(&now["head"]), number(&now["dead"]), &now["missing"]),
        (LINES + 1, 0, &Value::Null),
        "{now}"
    );
}

#[test]
fn killed_on_sqlite() {
    for seed in 1..=3 {
        survive(&Place::sqlite(), seed);
    }
}

#[test]
fn killed_on_redis() {
    for seed in 4..=6 {
        survive(&Place::redis(), seed);
    }
}

#[test]
fn killed_on_a_cluster_of_three_primaries() {
    let cluster = RedisCluster::start(3, Duration::from_secs(1), &[]).expect("a cluster");
    let mut place = Place {
        url: cluster.url(&[0]),
        folder: tempfile::tempdir().expect("a folder"),
        server: None::<RedisServer>,
    };
    survive(&place, 7);
    // Another line, elsewhere in the cluster.
    place.folder = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("conga.toml"), "line = \"another\"\n").expect("written");
    survive(&place, 8);
}

#[test]
fn a_number_that_is_missing_is_told_of_and_given_up_where_that_is_asked_for() {
    for place in [Place::sqlite(), Place::redis()] {
        let _processor = place.service(&SHAPE);
        let holding = place.service(&["sequence", "--gap-timeout", "100ms"]);
        let send = |text: &str| assert!(place.fed(&["send"], text.as_bytes()).status.success());
        send("{\"sequence\":1,\"payload\":\"a\"}\n{\"sequence\":3,\"payload\":\"c\"}\n");
        wait_for("the alarm", || {
            number_or_none(&place.status()["missing"]["age_ms"]) > 300.0
        });
        let now = place.status();
        assert_eq!(
            (number(&now["missing"]["sequence"]), number(&now["head"])),
            (2, 2),
            "{now}"
        );
        let said = String::from_utf8(place.done(&["status"])).expect("text");
        assert!(said.contains("sequence 2 is missing for"), "{said}");
        drop(holding);

        let _giving_up = place.service(&["sequence", "--gap-timeout", "100ms", "--on-gap", "tombstone"]);
        let out = String::from_utf8(place.done(&["receive", "--count", "3"])).expect("text");
        let outputs: Vec<Value> = out.lines().map(|line| parse(line.as_bytes())).collect();
        assert_eq!(
            outputs[1]["dead"]["reason"], "sequence 2 did not come within 100ms",
            "{out}"
        );
        assert_eq!(
            (&outputs[0]["payload"], &outputs[2]["payload"]),
            (&"a".into(), &"c".into())
        );
        send("{\"sequence\":2,\"payload\":\"b\"}\n{\"sequence\":4,\"payload\":\"d\"}\n");
        let last = place.json(&["receive", "--count", "1"]);
        assert_eq!(last["payload"], "d");
        wait_for("it to be buried", || number(&place.status()["dead"]) == 1);
        let letters = String::from_utf8(place.done(&["dead", "list", "--json"])).expect("text");
        assert!(letters.contains("sequence 2 came when its place"), "{letters}");
        let refused = place.run(&["dead", "retry", "2"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        place.done(&["dead", "purge", "2"]);
        assert_eq!(number(&place.status()["dead"]), 0);
    }
}

fn number_or_none(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

#[test]
fn what_has_no_place_in_the_order_is_not_sent() {
    let place = Place::sqlite();
    let _service = place.service(&["run", "--order", "total", "--partitions", "3"]);
    for (args, input, told) in [
        (&["send"][..], "plain\n", "--first-sequence"),
        (&["send"], "{\"sequence\":0,\"payload\":1}\n", "from 1 to"),
        (
            &["send"],
            "{\"sequence\":4,\"id\":\"x\",\"payload\":1}\n",
            "leave out the `id`",
        ),
        (&["send", "--count", "3"], "", "give --first-sequence"),
        (
            &["send", "--first-sequence", "2"],
            "{\"sequence\":3,\"payload\":1}\n",
            "has the sequence 3",
        ),
        (
            &["send", "--first-sequence", "2"],
            "{\"sequence\":-3,\"payload\":1}\n",
            "can't be read",
        ),
    ] {
        let refused = place.fed(args, input.as_bytes());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
    assert!(
        place
            .fed(&["send", "--first-sequence", "1"], b"one\ntwo\n")
            .status
            .success()
    );
    let out = place.done(&["receive", "--count", "2", "--payload"]);
    assert_eq!(out, b"one\ntwo\n");
}

/// Generated messages are numbered from where they are told to be; else it is wrong usage, which says what to do.
#[test]
fn generated_messages_have_sequences() {
    for place in [Place::sqlite(), Place::redis()] {
        let processor = place.service(&[&SHAPE[..], &["--handler", "echo"]].concat());
        let sequencer = place.service(&["sequence"]);
        let refused = place.run(&["send", "--count", "5"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(
            said.contains("give --first-sequence N too, 1 if nothing was sent before"),
            "{said}"
        );
        let beyond = place.run(&["send", "--count", "5", "--first-sequence", &u64::MAX.to_string()]);
        assert_eq!(beyond.status.code(), Some(2));
        let send =
            |count: &str, first: &str| place.json(&["send", "--json", "--count", count, "--first-sequence", first]);
        assert_eq!(number(&send("7", "1")["sent"]), 7);
        // What was sent before counts once; and what is held back by the limit goes on.
        assert_eq!(number(&send("20", "1")["sent"]), 20);
        let limited = ["send", "--count", "10", "--first-sequence", "21", "--max-waiting", "2"];
        place.done(&limited);
        let out = place.done(&["receive", "--count", "30"]);
        let outputs: Vec<_> = out
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(parse)
            .collect();
        for (output, expected) in outputs.iter().zip(1..) {
            assert_eq!(
                ["position", "sequence"].map(|field| number(&output[field])),
                [expected; 2],
                "{output}"
            );
        }
        assert_eq!(outputs.len(), 30);
        assert_eq!(number(&place.status()["head"]), 31);
        processor.end();
        sequencer.end();
    }
}

/// Who merges may be there before it was said what there is to merge.
#[test]
fn a_sequencer_that_comes_first_merges_too() {
    for first in ["sequence", "run"] {
        let place = Place::sqlite();
        let early = place.service(&[first]);
        let processor = place.service(&[&SHAPE[..], &["--handler", "echo"]].concat());
        let text: String = (1..=30).map(|number| format!("{{\"payload\":{number}}}\n")).collect();
        assert!(
            place
                .fed(&["send", "--first-sequence", "1"], text.as_bytes())
                .status
                .success()
        );
        place.done(&["receive", "--count", "30"]);
        processor.end();
        early.end();
    }
}
