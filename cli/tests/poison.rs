//! Poison: messages that kill their processor, with a thousand others around them, and processors that are started again. In
//! each way of what stands in their place: what comes out, byte for byte; and that none of their neighbours goes with them.

mod support;

use std::fs;
use std::process::{Child, ChildStdin, Stdio};

use serde_json::Value;
use support::letters::{DATETIMES, assert_same, normalised};
use support::{Place, parse, wait_for};

/// How many messages there are, poisons and neighbours.
const COUNT: usize = 1_002;
/// Where the poisons stand.
const POISONS: [usize; 2] = [334, 335];
/// After so many crashes one is given up.
const MOST: &str = "6";

/// Ends its processor with SIGABRT at a poison, as soon as it has it; and else answers with what it got.
const HANDLER: &str = r#"
while IFS= read -r line; do
  case $line in
    *poison*) kill -ABRT $PPID; exit ;;
  esac
  sleep 0.002
  printf '%s\n' "$line"
done
"#;

fn messages() -> Vec<u8> {
    let line = |number| {
        let what = if POISONS.contains(&number) { "poison" } else { "good" };
        format!("{{\"id\":\"m{number}\",\"payload\":{{\"{what}\":{number}}}}}\n")
    };
    (1..=COUNT).map(line).collect::<String>().into_bytes()
}

/// What has to come out of a message; nothing, where it leaves nothing.
fn output(position: usize, way: &str) -> Option<String> {
    let what = match (POISONS.contains(&position), way) {
        (false, _) => format!("\"payload\":{{\"good\":{position}}}"),
        (true, "healed") => format!("\"payload\":{{\"poison\":{position}}}"),
        (true, "mark") => {
            format!("\"dead\":{{\"reason\":\"its processor died {MOST} times while it was in flight\",\"attempts\":A}}")
        }
        (true, _) => return None,
    };
    Some(format!(
        "{{\"position\":{position},\"id\":\"m{position}\",{what},\"attempts\":A,{DATETIMES}}}\n"
    ))
}

fn expected(way: &str) -> String {
    (1..=COUNT).filter_map(|position| output(position, way)).collect()
}

/// Every datetime as `T`, and every number of attempts as `A`: by how many deaths a neighbour was met is chance.
fn comparable(outputs: &[u8]) -> String {
    let text = normalised(outputs);
    let mut parts = text.split("\"attempts\":");
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        same += "\"attempts\":A";
        same += part.trim_start_matches(|char: char| char.is_ascii_digit());
    }
    same
}

/// Processors that are started again whenever they have died.
struct Watched<'a> {
    place: &'a Place,
    args: Vec<String>,
    running: Vec<(Child, ChildStdin)>,
    deaths: u32,
}

impl<'a> Watched<'a> {
    fn of(place: &'a Place, line: &str, way: &str, count: usize) -> Self {
        let args = [
            "process",
            "--line",
            line,
            "--on-dead",
            way,
            "--handler",
            "exec:exec sh poison.sh",
            "--concurrency",
            "32",
            "--workers",
            "6",
            "--max-crashes",
            MOST,
            "--json",
            "--tied",
        ];
        let mut watched = Self {
            place,
            args: args.map(str::to_owned).to_vec(),
            running: Vec::new(),
            deaths: 0,
        };
        for _ in 0..count {
            let another = watched.another();
            watched.running.push(another);
        }
        watched
    }

    fn another(&self) -> (Child, ChildStdin) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut child = self
            .place
            .conga(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("conga starts");
        let stdin = child.stdin.take().expect("standard input");
        (child, stdin)
    }

    fn look(&mut self) {
        for index in 0..self.running.len() {
            if self.running[index].0.try_wait().expect("a child").is_some() {
                self.deaths += 1;
                self.running[index] = self.another();
            }
        }
    }

    /// Ends them all: they end with their standard input. How many have died before.
    fn end(mut self) -> u32 {
        for (mut child, stdin) in std::mem::take(&mut self.running) {
            drop(stdin);
            child.wait().expect("it ends");
        }
        self.deaths
    }
}

impl Drop for Watched<'_> {
    /// A test that failed leaves none of them.
    fn drop(&mut self) {
        for (child, _) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The positions of the dead letters, and at which of them the line is halted.
fn letters(place: &Place, line: &str) -> (Vec<usize>, Vec<usize>) {
    let listed = String::from_utf8(place.done(&["dead", "list", "--json", "--line", line])).expect("text");
    let letters: Vec<Value> = listed.lines().map(|letter| parse(letter.as_bytes())).collect();
    let at = |letter: &Value| usize::try_from(letter["position"].as_u64().expect("a position")).expect("small");
    let mut all: Vec<_> = letters.iter().map(at).collect();
    let mut halted: Vec<_> = letters
        .iter()
        .filter(|letter| letter["halted"] == true)
        .map(at)
        .collect();
    all.sort_unstable();
    halted.sort_unstable();
    (all, halted)
}

/// A line with all the messages, and the processors that work at it.
fn begin<'a>(place: &'a Place, line: &str, way: &str) -> Watched<'a> {
    fs::write(place.path().join("poison.sh"), HANDLER).expect("a file");
    let sent = place.fed(&["send", "--line", line], &messages());
    assert!(sent.status.success());
    Watched::of(place, line, way, 3)
}

fn assert_deaths(deaths: u32, what: &str) {
    let least = MOST.parse::<u32>().expect("a number");
    println!("{what}: {deaths} processors died");
    assert!(deaths >= least, "{what}: {deaths} processors died");
}

fn marked_or_skipped(place: &Place) {
    for way in ["mark", "skip"] {
        let mut watched = begin(place, way, way);
        let count = expected(way).lines().count().to_string();
        let outputs = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| place.done(&["receive", "--line", way, "--count", &count]));
            wait_for("all to come out", || {
                watched.look();
                receiver.is_finished()
            });
            receiver.join().expect("outputs")
        });
        assert_same(&comparable(&outputs), &expected(way), way);
        assert_eq!(
            letters(place, way),
            (POISONS.to_vec(), Vec::new()),
            "{way}: none goes with them"
        );
        assert_deaths(watched.end(), way);
    }
}

fn halted(place: &Place) {
    let line = "halt";
    let status = || place.json(&["status", "--json", "--line", line]);
    let mut watched = begin(place, line, "halt");
    wait_for("the line to halt, and all else to be done", || {
        watched.look();
        let status = status();
        status["halted"] == 2 && status["in_flight"] == 2 && status["waiting"] == 0
    });
    assert_deaths(watched.end(), line);
    let before = expected("halt");
    let until: String = before
        .lines()
        .take(POISONS[0] - 1)
        .map(|line| format!("{line}\n"))
        .collect();
    let count = until.lines().count().to_string();
    let mut outputs = place.done(&["receive", "--line", line, "--count", &count]);
    assert_same(&comparable(&outputs), &until, "before it");
    assert_eq!(letters(place, line), (POISONS.to_vec(), POISONS.to_vec()));
    let told = status();
    assert_eq!(told["blocker"]["state"], "halted", "{told}");
    assert_eq!(told["blocker"]["position"], POISONS[0]);
    assert_eq!(told["blocker"]["id"], format!("m{}", POISONS[0]));
    let page = String::from_utf8(place.done(&["status", "--line", line])).expect("text");
    assert!(
        page.contains("HALTED") && page.contains(&format!("conga dead retry {}", POISONS[0])),
        "{page}"
    );

    // What is not halted can't be skipped, and what is can't be purged.
    let first = POISONS[0].to_string();
    for (args, says) in [
        (&["dead", "skip", "5", "--line", line][..], "no dead letter at 5"),
        (
            &["dead", "purge", &first, "--line", line],
            "dead retry or conga dead skip",
        ),
    ] {
        let refused = place.run(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }

    // One goes on with its tombstone, and the other is tried again by a handler that has been mended.
    let second = POISONS[1].to_string();
    let marked = place.json(&["dead", "skip", &first, "--mark", "--json", "--line", line]);
    assert_eq!(marked["marked"], Value::from(vec![POISONS[0]]));
    let again = place.run(&["dead", "skip", &first, "--line", line]);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("is not halted at"),
        "{again:?}"
    );
    assert_eq!(again.status.code(), Some(1));
    let retried = place.json(&["dead", "retry", &second, "--json", "--line", line]);
    assert_eq!(retried["retried"], Value::from(vec![POISONS[1]]));
    let service = place.service(&["process", "--line", line, "--on-dead", "halt"]);
    let rest = (COUNT - POISONS[0] + 1).to_string();
    outputs.extend(place.done(&["receive", "--line", line, "--count", &rest]));
    service.end();
    let whole: String = (1..=COUNT)
        .filter_map(|position| output(position, if position == POISONS[0] { "mark" } else { "healed" }))
        .collect();
    assert_same(&comparable(&outputs), &whole, "each in its place");
    assert_eq!(letters(place, line), (vec![POISONS[0]], Vec::new()));
    assert_eq!(status()["halted"], 0);
}

/// One process works at three partitions, and dies in all of them at once: by a poison in one of them, which takes none of the
/// slow ones in the others along.
fn in_one_of_three_partitions(place: &Place) {
    let handler = HANDLER.replace("sleep 0.002", "sleep 0.1");
    fs::write(place.path().join("poison.sh"), handler).expect("a file");
    let line = |number: usize| {
        let what = if number == 5 { "poison" } else { "good" };
        format!("{{\"id\":\"m{number}\",\"key\":\"k{number}\",\"payload\":{{\"{what}\":{number}}}}}\n")
    };
    let messages: String = (1..=30).map(line).collect();
    let more = ["--order", "key", "--partitions", "3"];
    let service = place.service(&[&["process", "--line", "parts"], &more[..]].concat());
    service.end();
    let sent = place.fed(&["send", "--line", "parts"], messages.as_bytes());
    assert!(sent.status.success());
    let mut watched = Watched::of(place, "parts", "skip", 1);
    let status = || place.json(&["status", "--json", "--line", "parts"]);
    wait_for("all to be done", || {
        watched.look();
        let status = status();
        status["waiting"] == 0 && status["in_flight"] == 0
    });
    let status = status();
    assert_eq!(
        (&status["dead"], &status["recorded"]),
        (&1.into(), &29.into()),
        "{status}"
    );
    assert_deaths(watched.end(), "three partitions");
}

/// A line whose partitions are merged halts where one of them does, and what is decided there is that message's, in its place.
fn halted_in_a_merged_line(place: &Place) {
    const COUNT: u64 = 120;
    // Each in a partition of its own, and in it at 17 and 14.
    const POISONS: [u64; 2] = [50, 40];
    fs::write(place.path().join("poison.sh"), HANDLER).expect("a file");
    let message = |number: u64| {
        let what = if POISONS.contains(&number) { "poison" } else { "good" };
        format!("{{\"sequence\":{number},\"payload\":{{\"{what}\":{number}}}}}\n")
    };
    let messages: String = (1..=COUNT).map(message).collect();
    let line = ["--line", "merged"];
    let with = |args: &[&'static str]| [args, &line[..]].concat();
    let shape = with(&["process", "--order", "total", "--partitions", "3"]);
    let service = place.service(&shape);
    service.end();
    assert!(place.fed(&with(&["send"]), messages.as_bytes()).status.success());
    let sequencer = place.service(&with(&["sequence", "--gap-timeout", "100ms", "--on-gap", "tombstone"]));
    let mut watched = Watched::of(place, "merged", "halt", 2);
    let status = || place.json(&with(&["status", "--json"]));
    wait_for("the line to halt, and all else to be done", || {
        watched.look();
        let status = status();
        status["halted"] == 2 && status["in_flight"] == 2 && status["waiting"] == 0
    });
    assert_deaths(watched.end(), "merged");
    wait_for("all before it to be out", || status()["head"] == 40);
    let told = status();
    let blocker = &told["blocker"];
    assert_eq!(
        [
            &blocker["state"],
            &blocker["id"],
            &blocker["partition"],
            &blocker["position"]
        ],
        [&Value::from("halted"), &"40".into(), &1.into(), &14.into()],
        "{told}"
    );
    assert!(told["missing"].is_null(), "it is not missing, but halted at: {told}");
    let page = String::from_utf8(place.done(&with(&["status"]))).expect("text");
    assert!(page.contains("conga dead skip 14 --partition 1 --mark"), "{page}");
    let listed = String::from_utf8(place.done(&with(&["dead", "list", "--json"]))).expect("text");
    let mut places: Vec<_> = listed
        .lines()
        .map(|letter| {
            let letter = parse(letter.as_bytes());
            assert_eq!(letter["halted"], true);
            (letter["partition"].as_u64(), letter["position"].as_u64())
        })
        .collect();
    places.sort_unstable();
    assert_eq!(places, [(Some(1), Some(14)), (Some(2), Some(17))]);
    for wrong in [
        &["dead", "skip", "14", "--partition", "1"][..],
        &["dead", "skip", "14", "--mark"],
    ] {
        let refused = place.run(&with(wrong));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains("--mark"), "{said}");
    }

    place.done(&with(&["dead", "skip", "14", "--partition", "1", "--mark"]));
    wait_for("the line to halt at the next", || status()["head"] == 50);
    place.done(&with(&["dead", "retry", "17", "--partition", "2"]));
    let processor = place.service(&with(&["process", "--on-dead", "halt"]));
    let outputs = place.done(&with(&["receive", "--count", "120"]));
    drop((processor, sequencer));
    let outputs: Vec<Value> = outputs
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse)
        .collect();
    assert_eq!(outputs.len(), 120);
    for (output, number) in outputs.iter().zip(1..) {
        assert_eq!(
            [&output["position"], &output["sequence"]],
            [&Value::from(number); 2],
            "{output}"
        );
        match number {
            40 => assert!(
                output["dead"]["reason"]
                    .as_str()
                    .is_some_and(|why| why.contains("died")),
                "{output}"
            ),
            50 => assert_eq!(output["payload"]["poison"], 50, "{output}"),
            _ => assert_eq!(output["payload"]["good"], number, "{output}"),
        }
    }
    assert_eq!((&status()["halted"], &status()["dead"]), (&0.into(), &1.into()));
}

#[test]
fn halted_in_a_merged_line_on_sqlite() {
    halted_in_a_merged_line(&Place::sqlite());
}

#[test]
fn halted_in_a_merged_line_on_redis() {
    halted_in_a_merged_line(&Place::redis());
}

#[test]
fn in_one_of_three_partitions_on_sqlite() {
    in_one_of_three_partitions(&Place::sqlite());
}

#[test]
fn in_one_of_three_partitions_on_redis() {
    in_one_of_three_partitions(&Place::redis());
}

#[test]
fn marked_or_skipped_on_sqlite() {
    marked_or_skipped(&Place::sqlite());
}

#[test]
fn marked_or_skipped_on_redis() {
    marked_or_skipped(&Place::redis());
}

#[test]
fn halted_on_sqlite() {
    halted(&Place::sqlite());
}

#[test]
fn halted_on_redis() {
    halted(&Place::redis());
}

#[test]
fn what_can_not_be_halted_or_is_no_number_of_crashes_is_refused() {
    let place = Place::sqlite();
    for wrong in [
        &["process", "--order", "none", "--on-dead", "halt"][..],
        &["process", "--max-crashes", "3"],
        &["dead", "skip"],
    ] {
        assert_eq!(place.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let service = place.service(&["process", "--order", "none", "--line", "unordered"]);
    service.end();
    let refused = place.run(&["process", "--line", "unordered", "--on-dead", "halt"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("without order"),
        "{refused:?}"
    );
}
