//! SQLite in trouble, with real processes: kills in mid-transaction, and other tools that lock the file or read it for
//! long. Nothing is lost, doubled or out of place, no process ends, and the line goes on as soon as it can.

#[path = "support/flow.rs"]
mod flow;
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flow::{Flow, complaints, ended, file_of, log_of, log_size, open, wait_for};
use support::Place;

/// How soon a line has to go on. The design says a second; a test beside others on a busy machine gets more.
const AT_MOST: Duration = Duration::from_secs(5);

/// A foreign process writes half a transaction, more than its cache holds, so that it stands in the log; and is killed.
#[test]
fn half_a_transaction_of_a_killed_process_is_never_seen() {
    const ROUNDS: usize = 5;
    let place = Place::sqlite();
    let mut flow = Flow::new(&place);
    flow.serve_all(&["--handler", "sleep:1ms..10ms"]);
    flow.consume();
    let producer = flow.produce(3_000, Some(300));
    for round in 1..=ROUNDS {
        flow.wait_until_delivered(300 * round);
        let mut foreign = Command::new("sqlite3")
            .arg(file_of(&place))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 starts (Debian: apt-get install sqlite3)");
        let mut to = foreign.stdin.take().expect("standard input");
        let half = format!(
            "PRAGMA cache_size = 10; PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE; \
             UPDATE record SET payload = '\"forged in {round} ' || hex(randomblob(3000)) || '\"', position = position + 100000; \
             DELETE FROM input; DELETE FROM flight; DELETE FROM processed; DELETE FROM output; DELETE FROM owner; \
             UPDATE line SET head = head + 1000, next = next + 1000, term = term + 7; SELECT 'half';\n"
        );
        to.write_all(half.as_bytes()).expect("told");
        let half = BufReader::new(foreign.stdout.take().expect("standard output"))
            .lines()
            .any(|line| line.expect("a line") == "half");
        assert!(half, "the other process did not get that far");
        let log = std::fs::read(log_of(&place)).expect("the log");
        let forged = format!("forged in {round} ").into_bytes();
        let written = log.windows(forged.len()).filter(|bytes| *bytes == forged).count();
        foreign.kill().expect("killed");
        foreign.wait().expect("gone");
        let stall = flow.stall(Instant::now());
        println!("round {round}: {written} forged records in the log, {stall:?} until the next output");
        assert!(written > 100, "nearly all of it was in its memory: {written}");
        assert!(stall < AT_MOST, "{stall:?}");
    }
    assert_eq!(ended(producer)["sent"], 3_000);
    flow.judge(3_000);
}

/// The processes themselves are killed all the while, at random moments, most of them soon after their start.
#[test]
fn killed_at_random_moments_they_leave_a_whole_file() {
    // More than are sent in the ten seconds, so that there is something left to come out after them.
    const MESSAGES: usize = 8_000;
    for seed in 1_u64..=3 {
        let place = Place::sqlite();
        let mut flow = Flow::new(&place);
        flow.serve_all(&["--handler", "sleep:0ms..10ms"]);
        flow.consume();
        let producer = flow.produce(MESSAGES as u64, Some(600));
        let mut random = seed;
        let mut below = |limit: u64| {
            // Source: G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % limit
        };
        let (mut kills, end) = (0, Instant::now() + Duration::from_secs(10));
        while Instant::now() < end {
            // This is when the next one is killed, not how long something is hoped to take.
            std::thread::sleep(Duration::from_micros(below(60_000)));
            let index = usize::try_from(below(flow.services.len() as u64)).expect("an index");
            let mut victim = flow.services.swap_remove(index);
            victim.kill();
            kills += 1;
            let args = if victim.name.starts_with("process") {
                &["process", "--handler", "sleep:0ms..10ms", "--json", "--tied"][..]
            } else {
                &["sequence", "--json", "--tied"]
            };
            let next = flow.start(args);
            flow.services.push(next);
            flow.all_run();
        }
        let stall = flow.stall(Instant::now());
        println!("seed {seed}: {kills} kills, {stall:?} until the next output");
        assert!(kills > 100, "{kills} kills are not many");
        assert!(stall < AT_MOST, "{stall:?}");
        assert_eq!(ended(producer)["sent"], MESSAGES);
        flow.judge(MESSAGES);
    }
}

/// Another tool holds the lock for writing for so long: the line stands, and goes on when it is free.
/// A step waits for the lock for 5 seconds; what is longer must be `told` of.
fn locked(begin: &str, held: Duration, told: bool) {
    let place = Place::sqlite();
    let mut flow = Flow::new(&place);
    flow.serve_all(&["--handler", "sleep:1ms..10ms"]);
    flow.consume();
    let producer = flow.produce(3_000, Some(300));
    flow.wait_until_delivered(300);
    let tool = open(&place);
    tool.execute_batch(begin).expect("the lock");
    let locked = Instant::now();
    let before = flow.status();
    while locked.elapsed() < held {
        flow.all_run();
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = flow.status();
    assert_eq!(
        (&before["head"], &before["recorded"]),
        (&after["head"], &after["recorded"]),
        "it was not locked"
    );
    tool.execute_batch("ROLLBACK").expect("the lock is free");
    let free = Instant::now();
    let stall = flow.stall(free);
    println!("{begin} for {held:?}: {stall:?} until the next output");
    assert!(stall < AT_MOST, "{stall:?}");
    for (name, said) in flow.said() {
        let complaints = complaints(&said);
        let waited = name.starts_with("process");
        assert!(
            !told || !waited || !complaints.is_empty(),
            "{name} says nothing: {said}"
        );
        assert!(complaints.len() <= 5, "{name} repeats itself: {complaints:#?}");
        for complaint in complaints {
            assert!(
                complaint.contains("is locked by another process") && complaint.contains("goes on by itself"),
                "{name}: {complaint}"
            );
        }
    }
    assert_eq!(ended(producer)["sent"], 3_000);
    flow.judge(3_000);
}

#[test]
fn a_lock_held_for_five_seconds() {
    locked("BEGIN IMMEDIATE", Duration::from_secs(5), false);
    locked("BEGIN EXCLUSIVE", Duration::from_secs(5), false);
}

/// Longer than a step waits for the lock: now there is something to be said, once.
#[test]
fn a_lock_held_for_longer_than_a_step_waits() {
    locked("BEGIN IMMEDIATE", Duration::from_secs(12), true);
}

/// Another tool reads for long, so that the log can't be used again from its beginning: the line goes on all the while,
/// and afterwards the log stops growing.
#[test]
fn one_who_reads_for_long_stops_nobody() {
    const ORDINARY: u64 = 17 << 20;
    let place = Place::sqlite();
    let mut flow = Flow::new(&place);
    flow.serve_all(&["--handler", "sleep:1ms..10ms"]);
    flow.consume();
    let mut producer = flow.produce(100_000, Some(500));
    flow.wait_until_delivered(300);
    let tool = open(&place);
    tool.execute_batch("BEGIN").expect("a snapshot");
    let read = |what: &str| -> i64 { tool.query_row(what, [], |row| row.get(0)).expect("a number") };
    let (seen, from) = (read("SELECT count(*) FROM record"), Instant::now());
    // Until there is no doubt that the log could not begin anew.
    wait_for("the log to grow", || {
        flow.all_run();
        (log_size(&place) > 2 * ORDINARY).then_some(())
    });
    let gap = flow.longest_gap(from, Instant::now());
    assert_eq!(
        read("SELECT count(*) FROM record"),
        seen,
        "it still reads what was there at first"
    );
    tool.execute_batch("COMMIT").expect("the end of the snapshot");
    let (free, grown, delivered) = (Instant::now(), log_size(&place), flow.delivered());
    let stall = flow.stall(free);
    flow.wait_until_delivered(delivered + 3_000);
    let later = log_size(&place);
    println!(
        "read for {:?}: at most {gap:?} without an output; the log grew to {grown} bytes, and to {later} by 3,000 \
         messages after; {stall:?} until the next output",
        free - from
    );
    assert!(gap < AT_MOST && stall < AT_MOST, "{gap:?}, {stall:?}");
    assert!(later < grown + ORDINARY, "the log grows on: {later} bytes");
    // What the producer has not sent yet is not needed.
    producer.kill();
    let total = wait_for("all that was sent", || {
        let status = flow.status();
        (status["waiting"] == 0 && status["in_flight"] == 0 && status["processed"] == 0)
            .then(|| status["recorded"].clone())
    });
    flow.judge(usize::try_from(total.as_u64().expect("a count")).expect("a count"));
}
