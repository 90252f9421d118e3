//! A producer and a line in which no more may wait: it waits for room or is refused, and nothing is lost or doubled.

mod support;

use std::io::Write as _;
use std::process::{Child, Stdio};

use support::{Place, scripts, wait_for};

fn lines(count: u64) -> String {
    (1..=count).map(|number| format!("line {number}\n")).collect()
}

fn waiting(place: &Place) -> u64 {
    place.json(&["status", "--json"])["waiting"].as_u64().expect("a number")
}

fn start(place: &Place, args: &[&str]) -> Child {
    let mut command = place.conga(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("conga starts")
}

/// A producer waits, is killed and run again, waits on, and ends when processors take what it has sent.
fn story(place: &Place) {
    std::fs::write(place.path().join("lines"), lines(200)).expect("written");
    let send = ["send", "lines", "--producer", "p", "--max-waiting", "10"];
    let mut producer = start(place, &send);
    wait_for("a full line", || waiting(place) == 10);
    assert!(producer.try_wait().expect("asked").is_none(), "it waits");
    // By kill -9.
    producer.kill().expect("killed");
    producer.wait().expect("ended");
    let mut producer = start(place, &send);
    // One that need not wait does not make the other's messages more.
    let refused = place.run(&["send", "lines", "--max-waiting", "10", "--if-full", "refuse"]);
    assert_eq!(refused.status.code(), Some(3));
    assert_eq!(waiting(place), 10);
    assert!(producer.try_wait().expect("asked").is_none(), "it waits");
    let service = place.service(&["run", "--handler", "sleep:1ms", "--concurrency", "4"]);
    assert!(producer.wait().expect("it ends").success());
    // A generated load waits as well.
    place.done(&["send", "--count", "50", "--max-waiting", "5"]);
    let outputs = place.done(&["receive", "--count", "250", "--payload"]);
    service.end();
    let outputs = String::from_utf8(outputs).expect("text");
    let (sent, generated): (Vec<_>, Vec<_>) = outputs.lines().partition(|line| line.starts_with("line "));
    assert_eq!(sent.join("\n") + "\n", lines(200));
    let numbers = generated
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned());
    assert!(numbers.eq((1..=50).map(|number| number.to_string())), "{generated:?}");
    let status = place.json(&["status", "--json"]);
    assert_eq!(
        (&status["head"], &status["output"]),
        (&251.into(), &0.into()),
        "{status}"
    );
}

#[test]
fn a_producer_waits_for_room_on_sqlite() {
    story(&Place::sqlite());
}

#[test]
fn a_producer_waits_for_room_on_redis() {
    story(&Place::redis());
}

/// Who waits for room waits for no store that is away.
#[test]
fn who_waits_for_room_gives_up_with_its_store() {
    let mut place = Place::redis();
    place.done(&["send", "--count", "5"]);
    let mut producer = place
        .conga(&["send", "--max-waiting", "5"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let mut lines = producer.stdin.take().expect("a pipe");
    lines.write_all(b"one\n").expect("written");
    let server = place.server.as_mut().expect("a server");
    let port = server.port();
    // More than it takes to begin, and a look every 100 ms at the latest.
    let before = scripts(port);
    wait_for("it to wait", || scripts(port) > before + 30);
    assert!(producer.try_wait().expect("a child").is_none());
    server.kill().expect("killed");
    wait_for("it to give up", || producer.try_wait().expect("a child").is_some());
    assert_eq!(producer.wait().expect("ended").code(), Some(1));
}

#[test]
fn a_full_line_refuses_as_a_whole_and_says_so() {
    for place in [Place::sqlite(), Place::redis()] {
        place.done(&["send", "--count", "5"]);
        let send = |most: &str, count| {
            let args = ["send", "--max-waiting", most, "--if-full", "refuse"];
            place.fed(&args, lines(count).as_bytes())
        };
        let refused = send("7", 3);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(
            said.contains("the line is full: 5 messages wait to be processed, and no more than 7 may"),
            "{said}"
        );
        assert_eq!(waiting(&place), 5, "none of them");
        assert!(send("8", 3).status.success());
        assert_eq!(waiting(&place), 8);
        assert_eq!(send("8", 1).status.code(), Some(3));
        // Who sets no limit has none.
        place.done(&["send", "--count", "5"]);
        assert_eq!(waiting(&place), 13);
    }
}

#[test]
fn what_means_nothing_is_wrong_usage() {
    let place = Place::sqlite();
    for args in [&["send", "--max-waiting", "0"][..], &["send", "--if-full", "refuse"]] {
        assert_eq!(place.run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn each_partition_has_the_limit_for_itself() {
    let place = Place::sqlite();
    let processor = ["process", "--order", "none", "--partitions", "2"];
    place.service(&processor).end();
    let send = ["send", "--producer", "p", "--max-waiting", "5"];
    // 15 in each of them: 5 fit, and the next do not.
    let refused = place.fed(&[&send[..], &["--if-full", "refuse"]].concat(), lines(30).as_bytes());
    assert_eq!(refused.status.code(), Some(3));
    assert_eq!(waiting(&place), 10);
    let service = place.service(&processor);
    // Run again from the beginning, it sends the rest.
    assert!(place.fed(&send, lines(30).as_bytes()).status.success());
    let outputs = place.done(&["receive", "--count", "30", "--payload"]);
    assert_eq!(service.end()["done"], 30);
    let mut outputs: Vec<_> = std::str::from_utf8(&outputs).expect("text").lines().collect();
    outputs.sort_unstable();
    let sent = lines(30);
    let mut sent: Vec<_> = sent.lines().collect();
    sent.sort_unstable();
    assert_eq!(outputs, sent);
}
