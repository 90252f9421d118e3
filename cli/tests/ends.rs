//! Both ends of a line can be killed: a producer in the middle of its input, and run again; a consumer in the middle of
//! its output, with another standing by.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{Place, wait_for};

const LINES: u64 = 60_000;
const KILLS: u64 = 20;

fn line(number: u64) -> String {
    format!("line {number}, without any id")
}

/// Evenly distributed and the same in each run. Source: `SplitMix64`, G. Steele, D. Lea, C. Flood, 2014.
fn draw(seed: u64, limit: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

/// Counts what is in the input, so fast that whoever fills it can be killed in the middle of that.
enum Probe {
    Sqlite(rusqlite::Connection),
    Redis(BufReader<TcpStream>),
}

impl Probe {
    fn of(place: &Place) -> Self {
        match &place.server {
            Some(server) => Self::Redis(BufReader::new(
                TcpStream::connect(("127.0.0.1", server.port())).expect("a connection"),
            )),
            None => Self::Sqlite(rusqlite::Connection::open(place.path().join("conga.db")).expect("a store")),
        }
    }

    fn count(&mut self) -> u64 {
        match self {
            Self::Sqlite(store) => store
                .query_row("SELECT last FROM line", [], |row| row.get::<_, i64>(0))
                .expect("a number")
                .unsigned_abs(),
            Self::Redis(server) => {
                server.get_mut().write_all(b"LLEN {main}:in\r\n").expect("asked");
                let mut line = String::new();
                server.read_line(&mut line).expect("a reply");
                line.trim_start_matches(':').trim_end().parse().expect("a number")
            }
        }
    }
}

fn waiting(place: &Place) -> u64 {
    place.json(&["status", "--json"])["waiting"].as_u64().expect("a number")
}

/// `conga send` is killed by SIGKILL in the middle of a file, again and again, and run again with the same file, sometimes
/// through a pipe, so that its batches are others.
fn a_producer_is_killed(place: &Place) {
    let file = place.path().join("in.txt");
    let text: String = (1..=LINES).map(|number| line(number) + "\n").collect();
    std::fs::write(&file, &text).expect("written");
    let named = ["send", "--json", "--producer", "nightly load"];
    place.done(&["status"]);
    let mut probe = Probe::of(place);
    let mut there = 0;
    let mut killed = 0;
    for kill in 1..=KILLS {
        let by_pipe = kill % 3 == 0;
        let mut command = place.conga(&named);
        if by_pipe {
            command.stdin(Stdio::piped());
        } else {
            command.arg("in.txt").stdin(Stdio::null());
        }
        let mut child = command.stdout(Stdio::null()).spawn().expect("conga starts");
        let pipe = child.stdin.take();
        std::thread::scope(|scope| {
            if let Some(mut pipe) = pipe {
                // It ends with its reader.
                let text = text.as_bytes();
                scope.spawn(move || drop(pipe.write_all(text)));
            }
            let enough = there + 1 + draw(kill, 1_000);
            wait_for("some of it", || probe.count() >= enough);
            killed += u64::from(child.try_wait().expect("a child").is_none());
            child.kill().expect("killed");
            child.wait().expect("gone");
        });
        let now = probe.count();
        assert!(now > there && now < LINES, "{now} after {there}: not in its middle");
        there = now;
    }
    assert_eq!(killed, KILLS, "some had ended before");
    let last = place.json(&[&named[..], &["in.txt"]].concat());
    assert_eq!(
        (last["skipped"].as_u64(), last["sent"].as_u64()),
        (Some(there), Some(LINES - there))
    );
    let again = place.json(&[&named[..], &["in.txt"]].concat());
    assert_eq!(
        (again["skipped"].as_u64(), again["sent"].as_u64()),
        (Some(LINES), Some(0))
    );
    println!("{KILLS} kills, the last after {there} of {LINES} lines");
    assert_eq!(place.json(&["status", "--json"])["producers"], 1);

    let _service = place.service(&["run"]);
    let got = place.done(&["receive", "--count", &LINES.to_string(), "--payload"]);
    assert!(got == text.as_bytes(), "not all there once and in order");
}

#[test]
fn a_producer_is_killed_on_sqlite() {
    a_producer_is_killed(&Place::sqlite());
}

#[test]
fn a_producer_is_killed_on_redis() {
    a_producer_is_killed(&Place::redis());
}

#[test]
fn another_input_under_the_same_name_is_refused() {
    let place = Place::sqlite();
    let send = |input: &str| place.fed(&["send", "--producer", "a"], input.as_bytes());
    assert!(send("1\n2\n3\n").status.success());
    for other in ["1\n2\n4\n5\n", "1\n2\n", "", "12\n3\n"] {
        let output = send(other);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("does not begin with the same") && said.contains("3 lines"),
            "{said}"
        );
    }
    assert_eq!(waiting(&place), 3);
    let output = send("1\n2\n3\n4");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("3 lines had been sent") && said.contains("sent 1 message"),
        "{said}"
    );
    // Who gives no name sends anew.
    assert!(place.fed(&["send"], b"1\n2\n").status.success());
    assert_eq!(waiting(&place), 6);
}

/// Of two that live at once under one name the later one has it, and the earlier one says so.
#[test]
fn who_was_replaced_says_so() {
    let place = Place::sqlite();
    place.done(&["status"]);
    let named = ["send", "--producer", "a"];
    let mut earlier = place
        .conga(&named)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let mut lines = earlier.stdin.take().expect("a pipe");
    lines.write_all(b"1\n2\n").expect("written");
    wait_for("its lines", || waiting(&place) == 2);
    assert!(place.fed(&named, b"1\n2\n3\n").status.success());
    lines.write_all(b"4\n").expect("written");
    let output = earlier.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another process sends under the name `a`"), "{said}");
    assert_eq!(waiting(&place), 3);
}

/// A `conga receive --follow` that writes into a file of its own.
struct Receiver {
    child: Child,
    path: PathBuf,
    reader: BufReader<File>,
    rest: Vec<u8>,
    /// The positions that it has written down, as far as they were looked at.
    got: Vec<u64>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Receiver {
    fn start(place: &Place, number: u64) -> Self {
        let path = place.path().join(format!("out-{number}.ndjson"));
        let file = File::create(&path).expect("a file");
        let child = place
            .conga(&["receive", "--follow"])
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .expect("conga starts");
        Self {
            child,
            reader: BufReader::new(File::open(&path).expect("a file")),
            path,
            rest: Vec::new(),
            got: Vec::new(),
        }
    }

    /// Reads on; whether there was a whole line more.
    fn look(&mut self) -> bool {
        self.reader.read_to_end(&mut self.rest).expect("read");
        let before = self.got.len();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let output = support::parse(&line);
            self.got.push(output["position"].as_u64().expect("a position"));
        }
        self.got.len() > before
    }
}

/// Two receivers follow a line, and the active one is killed by SIGKILL again and again; another comes in its place.
fn the_active_consumer_is_killed(place: &Place) {
    const MESSAGES: u64 = 15_000;
    let _service = place.service(&["run"]);
    let mut send = place
        .conga(&["send", "--count", &MESSAGES.to_string(), "--rate", "1500"])
        .stdin(Stdio::null())
        .spawn()
        .expect("conga starts");
    let mut receivers = vec![Receiver::start(place, 0), Receiver::start(place, 1)];
    let mut gone: Vec<Receiver> = Vec::new();
    let mut stalls = Vec::new();
    for kill in 1..=KILLS {
        let mut active = 0;
        wait_for("an output", || {
            let grown = receivers.iter_mut().position(Receiver::look);
            active = grown.unwrap_or(active);
            grown.is_some()
        });
        // So much is acknowledged, or more.
        let status = place.json(&["status", "--json"]);
        let number = |name: &str| status[name].as_u64().expect("a number");
        let acknowledged = number("head") - 1 - number("output");
        let mut killed = receivers.remove(active);
        killed.child.kill().expect("killed");
        let at = Instant::now();
        killed.child.wait().expect("gone");
        killed.look();
        let heir = &mut receivers[0];
        assert!(
            heir.got.is_empty(),
            "it has written although it stood by: {}",
            heir.path.display()
        );
        wait_for("the other's first output", || heir.look());
        stalls.push(at.elapsed());
        assert!(
            heir.got[0] > acknowledged,
            "{} was acknowledged and came again, as all up to {acknowledged}",
            heir.got[0]
        );
        let next = killed.got.last().map_or(1, |last| last + 1);
        assert!(heir.got[0] <= next, "{} came after {next}", heir.got[0]);
        gone.push(killed);
        receivers.push(Receiver::start(place, kill + 1));
    }
    assert!(send.wait().expect("it ends").success());
    wait_for("the rest", || {
        for receiver in &mut receivers {
            receiver.look();
        }
        receivers.iter().any(|receiver| receiver.got.last() == Some(&MESSAGES))
    });
    let all: Vec<&Receiver> = gone.iter().chain(&receivers).collect();
    for receiver in &all {
        assert!(
            receiver.got.is_sorted_by(|a, b| a + 1 == *b),
            "{} is out of order",
            receiver.path.display()
        );
    }
    let written: usize = all.iter().map(|receiver| receiver.got.len()).sum();
    let positions: BTreeSet<u64> = all.iter().flat_map(|receiver| receiver.got.iter().copied()).collect();
    assert!(positions.into_iter().eq(1..=MESSAGES), "some are lost");
    stalls.sort();
    println!(
        "{KILLS} kills: the next output after {:?} (half of them), {:?} at most; {} of {MESSAGES} outputs written twice",
        stalls[stalls.len() / 2],
        stalls[stalls.len() - 1],
        written as u64 - MESSAGES
    );
    // The design says 300 ms, on Redis 500; a test beside others on a busy machine gets more.
    assert!(stalls[stalls.len() / 2] < Duration::from_secs(1));
}

#[test]
fn the_active_consumer_is_killed_on_sqlite() {
    the_active_consumer_is_killed(&Place::sqlite());
}

#[test]
fn the_active_consumer_is_killed_on_redis() {
    the_active_consumer_is_killed(&Place::redis());
}

#[test]
fn who_does_not_wait_says_who_receives() {
    let place = Place::sqlite();
    let _service = place.service(&["run"]);
    place.done(&["send", "--count", "1"]);
    let mut active = Receiver::start(&place, 0);
    wait_for("an output", || active.look());
    let output = place.run(&["receive"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("receives this line") && output.stdout.is_empty(),
        "{said}"
    );
    let status = place.json(&["status", "--json"]);
    assert!(
        said.contains(status["consumer"]["owner"].as_str().expect("a name")),
        "{status}"
    );
    // Told to end, it hands over at once.
    let pid = rustix::process::Pid::from_child(&active.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    active.child.wait().expect("ended");
    assert!(place.json(&["status", "--json"])["consumer"].is_null());
    place.done(&["send", "--count", "1"]);
    place.done(&["receive", "--count", "1"]);
}

#[test]
fn who_is_told_to_end_before_it_has_all_says_so() {
    let place = Place::sqlite();
    let _service = place.service(&["run"]);
    place.done(&["send", "--count", "1"]);
    let (mut receive, mut printed) = place.printing(&["receive", "--count", "2"]);
    let mut line = String::new();
    printed.read_line(&mut line).expect("an output");
    let pid = rustix::process::Pid::from_child(&receive);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    assert_eq!(receive.wait().expect("it ends").code(), Some(1));
    assert!(
        place.done(&["receive"]).is_empty(),
        "what it has written is acknowledged"
    );
}

/// The store is away for so long that a consumer loses its place, while whoever reads it takes their time.
#[test]
fn what_is_written_down_is_acknowledged_before_it_ends_well() {
    let place = Place::sqlite();
    let _service = place.service(&["run"]);
    // More than a pipe holds, so that it can't write it all before it is read.
    let line = "x".repeat(40_000) + "\n";
    let sent = place.fed(&["send"], line.repeat(6).as_bytes());
    assert!(sent.status.success());
    wait_for("the outputs", || place.json(&["status", "--json"])["output"] == 6);
    let mut receive = place
        .conga(&["receive", "--count", "5", "--payload"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let mut pipe = receive.stdout.take().expect("a pipe");
    let mut got = vec![0];
    pipe.read_exact(&mut got).expect("its beginning");
    let lock = rusqlite::Connection::open(place.path().join("conga.db")).expect("a store");
    lock.busy_timeout(Duration::from_secs(5)).expect("set");
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    wait_for("its lock runs out", || {
        place.json(&["status", "--json"])["consumer"].is_null()
    });
    got.resize(5 * line.len(), 0);
    pipe.read_exact(&mut got[1..]).expect("the rest");
    assert!(got == line.repeat(5).as_bytes());
    // It waits. One that did not would be gone after a second.
    let written = Instant::now();
    while written.elapsed() < Duration::from_millis(1_500) && receive.try_wait().expect("a child").is_none() {
        std::thread::yield_now();
    }
    lock.execute_batch("ROLLBACK").expect("unlocked");
    assert!(receive.wait().expect("it ends").success());
    assert_eq!(place.json(&["status", "--json"])["output"], 1);
}
