//! SQLite on a disk that is full, with real processes: the line stops with an error that a person understands, nothing
//! that was accepted is lost, and it goes on by itself when there is space again.

#[path = "support/flow.rs"]
mod flow;
#[path = "support/small_disk.rs"]
mod small_disk;
mod support;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flow::{Flow, Process, complaints, ended, open, wait_for};
use small_disk::{Kind, SmallDisk, on_a_small_disk};

/// How soon a line has to go on. The design says a second; a test beside others on a busy machine gets more.
const AT_MOST: Duration = Duration::from_secs(5);

/// A line that is larger than what may be left in the log of transactions that were rolled back.
fn large() -> String {
    format!("{{\"id\":\"refused-1\",\"payload\":\"{}\"}}\n", "x".repeat(1 << 20))
}

/// What `conga send` says, and how many lines it says were sent, if it does not accept all of them.
fn refused(flow: &Flow<'_>, lines: &str) -> String {
    let mut child = flow
        .conga(&["send", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
    // One that ends early is seen by what it says.
    let _ = child.stdin.take().expect("standard input").write_all(lines.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "it claims to have sent something");
    said
}

/// Waits until a process says what is wrong, which must say what to do.
fn says(disk: &SmallDisk, process: &mut Process) {
    wait_for("a complaint", || {
        assert!(process.runs(), "{} has ended: {}", process.name, process.said());
        (!complaints(&process.said()).is_empty()).then_some(())
    });
    let said = process.said();
    assert!(complaints(&said)[0].contains(disk.complaint()), "{said}");
}

#[test]
fn a_full_disk_stops_the_line_until_there_is_space() {
    on_a_small_disk("a_full_disk_stops_the_line_until_there_is_space", 64, |disk| {
        let mut flow = disk.flow();
        flow.serve_all(&["--handler", "sleep:1ms..10ms"]);
        flow.consume();
        let producer = flow.produce(3_000, Some(300));
        flow.services.push(producer);
        flow.wait_until_delivered(300);
        disk.fill(&mut flow);
        let full = Instant::now();
        // It has stopped when somebody says so, and nothing more comes.
        for process in &mut flow.services {
            if !process.name.starts_with("sequence") {
                says(disk, process);
            }
        }
        let said = refused(&flow, &large());
        assert!(said.contains(disk.complaint()), "{said}");
        assert!(said.lines().count() <= 2, "{said}");
        if disk.kind == Kind::Mounted {
            assert!(said.contains("nothing was sent"), "{said}");
        }
        let stood = flow.delivered();
        println!("full for {:?} with {stood} delivered", full.elapsed());
        wait_for("three seconds of a full disk", || {
            flow.all_run();
            (full.elapsed() > Duration::from_secs(3)).then_some(())
        });
        // What is on its way to the consumer, and what fits into the log where a transaction was rolled back, may come yet.
        let moved = flow.delivered() - stood;
        assert!(
            moved < 100 && stood < 2_500,
            "it was not full: {stood} and {moved} more"
        );
        disk.free(&mut flow);
        let stall = flow.stall(Instant::now());
        println!("{stall:?} until the next output");
        assert!(stall < AT_MOST, "{stall:?}");
        flow.complain_at_most(6);
        assert_eq!(ended(flow.take_producer())["sent"], 3_000);
        let refused: i64 = open(&disk.place)
            .query_row(
                "SELECT (SELECT count(*) FROM record WHERE id LIKE 'refused%') + (SELECT count(*) FROM input WHERE body LIKE '%refused%')",
                [],
                |row| row.get(0),
            )
            .expect("a count");
        assert_eq!(refused, 0, "what was refused is in the line");
        flow.judge(3_000);
    });
}

/// The tables and the log have what they need from better days: so much of the line goes on although the disk is full.
#[test]
fn what_needs_no_space_goes_on_on_a_full_disk() {
    on_a_small_disk("what_needs_no_space_goes_on_on_a_full_disk", 64, |disk| {
        let mut flow = disk.flow();
        flow.serve_all(&[]);
        flow.consume();
        ended(flow.produce(6_000, None));
        // All ends and is copied into the file, which then has much space of what has been delivered.
        flow.judge(6_000);
        let mut flow = disk.flow();
        flow.serve_all(&[]);
        flow.consume();
        ended(flow.produce(200, None));
        flow.wait_until_delivered(200);
        disk.fill_around(&mut flow);
        let producer = flow.produce(500, Some(250));
        flow.wait_until_delivered(700);
        let sent = ended(producer);
        assert_eq!(sent["sent"], 500);
        println!("500 messages on a full disk in {} ms", sent["elapsed_ms"]);
        disk.free(&mut flow);
    });
}

/// Whatever is left of the disk when a store is made: an error that says what to do, and a whole store later.
#[test]
fn a_store_that_is_made_on_a_full_disk_is_made_later() {
    on_a_small_disk("a_store_that_is_made_on_a_full_disk_is_made_later", 4, |disk| {
        // Of a disk all files of a store have their part; of a limit each has the whole.
        let rests = [0, 4_096, 12_288, 40_960, 61_440, 90_112];
        let rests = if disk.kind == Kind::Limited {
            &rests[..4]
        } else {
            &rests
        };
        for left in rests.iter().copied() {
            let mut flow = disk.flow();
            disk.fill_but(&mut flow, left);
            let said = refused(&flow, "{\"id\":\"a\",\"payload\":0}\n");
            assert!(said.contains(disk.complaint()), "{left} bytes left: {said}");
            let mut service = flow.start(&["run", "--tied"]);
            says(disk, &mut service);
            flow.services.push(service);
            disk.free(&mut flow);
            let free = Instant::now();
            let service = &flow.services[0];
            wait_for("the service to work", || {
                service.said().contains(" works ").then_some(())
            });
            println!("{left} bytes left: works {:?} after there is space", free.elapsed());
            assert!(free.elapsed() < AT_MOST);
            assert_eq!(complaints(&service.said()).len(), 1, "{}", service.said());
            ended(flow.produce(20, None));
            flow.consume();
            flow.judge(20);
            disk.clear();
        }
        if disk.fill_with_files() {
            let mut flow = disk.flow();
            let said = refused(&flow, "a\n");
            assert!(said.contains(disk.complaint()), "no files left: {said}");
            let mut service = flow.start(&["run", "--tied"]);
            says(disk, &mut service);
            disk.clear();
            flow.services.push(service);
            ended(flow.produce(20, None));
            flow.consume();
            flow.judge(20);
        }
    });
}

/// Services that start where the disk is full wait for space; what is in the line stays there.
#[test]
fn services_that_start_on_a_full_disk_wait() {
    on_a_small_disk("services_that_start_on_a_full_disk_wait", 16, |disk| {
        let mut flow = disk.flow();
        ended(flow.produce(500, None));
        let before = std::fs::read(flow::file_of(&disk.place)).expect("the file");
        disk.fill(&mut flow);
        let services = [flow.start(&["process", "--tied"]), flow.start(&["sequence", "--tied"])];
        flow.services.extend(services);
        says(disk, &mut flow.services[0]);
        says(disk, &mut flow.services[1]);
        let said = refused(&flow, &large());
        assert!(said.contains(disk.complaint()), "{said}");
        let after = std::fs::read(flow::file_of(&disk.place)).expect("the file");
        assert!(after == before, "something was written");
        disk.free(&mut flow);
        let free = Instant::now();
        flow.consume();
        let stall = flow.stall(free);
        println!("{stall:?} until the first output");
        assert!(stall < AT_MOST, "{stall:?}");
        flow.judge(500);
    });
}

/// All are killed while the disk is full, and others start before there is space.
#[test]
fn killed_and_started_on_a_full_disk() {
    on_a_small_disk("killed_and_started_on_a_full_disk", 16, |disk| {
        let mut flow = disk.flow();
        flow.serve_all(&["--handler", "sleep:1ms..10ms", "--concurrency", "8"]);
        ended(flow.produce(500, None));
        wait_for("half of it", || {
            (flow.status()["head"].as_u64() > Some(250)).then_some(())
        });
        disk.fill(&mut flow);
        flow.services.clear();
        let services = [flow.start(&["process", "--tied"]), flow.start(&["sequence", "--tied"])];
        flow.services.extend(services);
        says(disk, &mut flow.services[0]);
        disk.free(&mut flow);
        let free = Instant::now();
        flow.consume();
        let stall = flow.stall(free);
        println!("{stall:?} until the first output");
        assert!(stall < AT_MOST, "{stall:?}");
        flow.judge(500);
    });
}
