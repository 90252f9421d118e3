//! Both ends of a line can be killed: a producer in the middle of its input, and run again; a consumer in the middle of
//! its output, with another standing by.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::Place;

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

/// Returns once `done` says so.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited for {what}");
    }
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
