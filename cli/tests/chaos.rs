//! `conga bench chaos`: each fault of the network, of Redis servers and of an SQLite file under load, and whether a
//! campaign finds what it is there to find. The kills have a test of their own, `kills.rs`.

mod support;

use std::process::Stdio;

use serde_json::Value;
use support::{Place, parse};

/// A campaign on a store of its own; its report and whether it passed.
fn campaign(args: &[&str]) -> (Value, Option<i32>) {
    let place = Place::sqlite();
    let output = place
        .conga(&[&["bench", "chaos", "--json"], args].concat())
        .env_remove("CONGA_STORE")
        .stdin(Stdio::null())
        .output()
        .expect("conga starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.stdout.is_empty(), "conga bench chaos {args:?} says {said}");
    (parse(&output.stdout), output.status.code())
}

fn survive(args: &[&str]) -> Value {
    let (report, code) = campaign(args);
    for kind in report["faults"].as_array().expect("faults") {
        println!("{kind}");
        assert!(kind["injected"].as_u64() > Some(0), "{kind} in {report}");
    }
    let verdict = &report["verdict"];
    assert_eq!((code, &report["passed"]), (Some(0), &true.into()), "{report}");
    assert_eq!(verdict["sent"], verdict["delivered"]);
    assert_eq!(verdict["sent"], verdict["records"]);
    assert!(verdict["sent"].as_u64() > Some(500), "{report}");
    let is_merged = report["order"]
        .as_str()
        .is_some_and(|order| order.starts_with("total/"));
    let by_a_leader = if is_merged { "stale_merges" } else { "stale_emits" };
    for tries in [by_a_leader, "stale_completes"] {
        assert!(report[tries]["sent"].as_u64() > Some(0), "{report}");
        assert_eq!(report[tries]["accepted"], 0);
    }
    report
}

/// Messages that kill their processors, while processors and whoever leads are killed too: they are dead letters in their
/// places, and nothing else is.
fn bury_the_poisons_alone(args: &[&str]) {
    let fixed = ["--poison", "2", "--duration", "12s"];
    let (report, code) = campaign(&[&fixed[..], args].concat());
    let (verdict, poison) = (&report["verdict"], &report["poison"]);
    println!("{args:?}: {poison}");
    assert_eq!((code, &report["passed"]), (Some(0), &true.into()), "{report}");
    assert_eq!(verdict["sent"], verdict["delivered"], "{report}");
    assert_eq!(
        (&verdict["dead"], &poison["buried"]),
        (&2.into(), &2.into()),
        "{report}"
    );
    assert_eq!(poison["innocents_buried"], 0, "{report}");
    assert!(poison["most_blame"].as_u64() < Some(10), "{report}");
    // A processor that was killed or stopped with it counts as well.
    assert!(poison["deaths"].as_u64() > Some(10), "{report}");
    assert!(report["faults"][0]["injected"].as_u64() > Some(2), "{report}");
}

#[test]
fn every_fault_of_the_network_and_of_the_server_is_survived() {
    let report = survive(&[
        "--serve",
        "redis",
        "--faults",
        "kill-processor,kill-leader,reset,black-hole,latency,kill-redis,script-flush,client-kill,client-pause,\
         freeze-redis,busy,oom,read-only",
    ]);
    let log = report["log"].as_array().expect("a log");
    assert!(
        log.iter()
            .all(|line| line["ended_ms"].as_f64() >= line["began_ms"].as_f64())
    );
}

#[test]
fn kills_while_the_store_is_out_of_reach_are_survived() {
    let faults = "kill-processor,kill-leader,stop-processor,black-hole,client-pause";
    let report = survive(&[
        "--serve",
        "redis",
        "--delivery",
        "leader",
        "--faults",
        faults,
        "--duration",
        "30s",
        "--seed",
        "2",
    ]);
    let log = report["log"].as_array().expect("a log");
    assert!(log.iter().any(|line| line["overlapped"] == true), "{report}");
}

#[test]
fn a_primary_under_sentinels_is_killed_and_followed() {
    // Long enough for a change of the leader between failovers, after which the zombie has something to say.
    let faults = "kill-primary,kill-processor,kill-leader";
    survive(&[
        "--serve",
        "sentinel",
        "--faults",
        faults,
        "--duration",
        "12s",
        "--delivery",
        "leader",
    ]);
}

#[test]
fn the_primary_of_the_slot_is_killed_and_the_slot_moves() {
    survive(&["--serve", "cluster", "--faults", "kill-primary,move-slot,kill-leader"]);
}

#[test]
fn a_locked_database_is_survived() {
    survive(&["--faults", "lock-database,kill-processor,kill-all"]);
}

const MERGED: [&str; 4] = ["--order", "total", "--partitions", "3"];

#[test]
fn a_merged_line_survives_a_locked_database_and_kills() {
    let faults = "lock-database,kill-processor,kill-leader,stop-leader,pause-leader,kill-all";
    survive(&[&MERGED[..], &["--faults", faults]].concat());
}

#[test]
fn a_merged_line_survives_faults_of_the_network_and_of_the_server() {
    let faults = "kill-leader,reset,black-hole,latency,kill-redis,client-kill,oom";
    survive(&[&MERGED[..], &["--serve", "redis", "--faults", faults]].concat());
}

#[test]
fn primaries_of_a_merged_line_are_killed_and_slots_move() {
    let faults = "kill-primary,move-slot,kill-processor,kill-leader";
    survive(&[&MERGED[..], &["--serve", "cluster", "--faults", faults]].concat());
}

/// The table has the positions of the partitions, and the output has the sequences.
#[test]
fn a_merged_line_recorded_in_postgres_survives_its_faults() {
    let faults = "kill-postgres,kill-postgres-connections,kill-processor,kill-leader";
    let report = survive(&[&MERGED[..], &["--record", "serve", "--faults", faults]].concat());
    assert_eq!(report["verdict"]["rows"], report["verdict"]["sent"], "{report}");
}

#[test]
fn poison_is_buried_and_nothing_else() {
    bury_the_poisons_alone(&[]);
    bury_the_poisons_alone(&["--serve", "redis", "--order", "key", "--per-key", "serial"]);
    bury_the_poisons_alone(&["--order", "none"]);
}

#[test]
fn poison_in_one_of_several_partitions_is_buried_and_nothing_else() {
    bury_the_poisons_alone(&["--serve", "redis", "--order", "key", "--partitions", "3"]);
    bury_the_poisons_alone(&MERGED);
}

/// What is broken on purpose in lines like this one is found, and nothing where nothing is: so many campaigns.
fn find_what_is_broken(line: &[&str], campaigns: usize) {
    let (report, code) = campaign(&[&["--self-test"], line].concat());
    assert_eq!((code, &report["passed"]), (Some(0), &true.into()), "{report}");
    assert_eq!(
        report["self_test"].as_array().map(Vec::len),
        Some(campaigns),
        "{report}"
    );
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    find_what_is_broken(&[], 12);
}

#[test]
fn what_is_broken_on_purpose_in_a_merged_line_is_found() {
    find_what_is_broken(&MERGED, 14);
}

#[test]
fn a_fault_that_never_came_has_shown_nothing() {
    let (report, code) = campaign(&["--faults", "kill-all", "--messages", "1", "--handler", "echo"]);
    assert_eq!((code, &report["verdict"]["lost"]), (Some(1), &0.into()), "{report}");
    let violations = report["violations"].to_string();
    assert!(violations.contains("kill-all never came"), "{report}");
}

#[test]
fn the_seed_decides_what_is_done() {
    let names = |seed: &str| -> Vec<String> {
        let (report, _) = campaign(&["--seed", seed, "--messages", "1500"]);
        let log = report["log"].as_array().expect("a log");
        log.iter().take(4).map(|line| line["fault"].to_string()).collect()
    };
    assert_eq!(names("1"), names("1"));
}
