//! The disk takes nothing: each sync fails for a while. Nothing is accepted or handed out meanwhile, and nothing that
//! comes later builds on what may not be on the disk.

#[path = "support/flow.rs"]
mod flow;
mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flow::{Flow, complaints, ended, wait_for};
use support::Place;

/// How soon a line has to go on. The design says a second; a test beside others on a busy machine gets more.
const AT_MOST: Duration = Duration::from_secs(5);

/// The library that has syncs fail.
fn preloaded(place: &Place) -> PathBuf {
    let library = place.path().join("sync_fails.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/sync_fails.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .expect("cc starts (Debian: apt-get install gcc)");
    assert!(compiled.success());
    library
}

#[test]
fn syncs_that_fail_stop_the_line_and_count_for_nothing() {
    let place = Place::sqlite();
    let fails = place.path().join("fails");
    let mut flow = Flow::new(&place);
    flow.with("LD_PRELOAD", preloaded(&place).to_str().expect("text"));
    flow.with("CONGA_TEST_SYNC_FAILS", fails.to_str().expect("text"));
    flow.serve_all(&["--handler", "sleep:1ms..10ms"]);
    flow.consume();
    let producer = flow.produce(3_000, Some(300));
    flow.services.push(producer);
    flow.wait_until_delivered(300);
    // It is through with its first step before syncs fail, so that its message is sent, and in doubt.
    let mut send = flow
        .conga(&["send", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let mut to = send.stdin.take().expect("standard input");
    wait_for("a producer that numbers", || {
        let status = flow.conga(&["status", "--json"]).output().expect("conga runs");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        (status["producers"] == 1).then_some(())
    });
    std::fs::write(&fails, "").expect("written");
    let failing = Instant::now();
    // A processor that has just nothing to complete has nothing to complain of either.
    for name in ["send", "process"] {
        wait_for("a complaint", || {
            flow.all_run();
            let mut some = flow.services.iter().filter(|process| process.name.starts_with(name));
            some.any(|process| !complaints(&process.said()).is_empty())
                .then_some(())
        });
    }
    for (name, said) in flow.said() {
        for complaint in complaints(&said) {
            assert!(
                complaint.contains("could not be synced to the disk"),
                "{name}: {complaint}"
            );
        }
    }
    to.write_all(b"{\"id\":\"doubtful-1\",\"payload\":0}\n").expect("fed");
    drop(to);
    let sent = send.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(1), "{said}");
    assert!(sent.stdout.is_empty(), "it claims to have sent something");
    assert!(
        said.contains("the next 1 are in doubt") && said.contains("could not be synced"),
        "{said}"
    );
    let stood = flow.delivered();
    wait_for("three seconds without a disk", || {
        flow.all_run();
        (failing.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let moved = flow.delivered() - stood;
    assert_eq!(moved, 0, "what is not on the disk was handed out");
    std::fs::remove_file(&fails).expect("removed");
    let failed = failing.elapsed();
    let stall = flow.stall(Instant::now());
    println!("syncs failed for {failed:?}; {stall:?} until the next output");
    assert!(stall < AT_MOST, "{stall:?}");
    flow.complain_at_most(6);
    assert_eq!(ended(flow.take_producer())["sent"], 3_000);
    flow.judge(3_001);
    assert!(
        !place.path().join("fails.betrayed").exists(),
        "a sync after one that had failed was believed"
    );
}
