//! Outputs broken on purpose: each must be found, and called by its name.

use bytes::Bytes;
use conga::core::time::Micros;

use super::*;
use crate::bench::load::Until;

const MESSAGES: u64 = 200;

fn load() -> Load {
    Load::new(Until::Count(MESSAGES), None, 40).of_run("run")
}

fn outputs() -> Vec<String> {
    let output = |number| {
        let payload = load().payload_of(number);
        let time = "2026-01-02T03:04:05.000006Z";
        format!(
            "{{\"position\":{number},\"id\":\"run-{number}\",\"payload\":{},\"attempts\":1,\"created\":\"{time}\",\
             \"processing\":\"{time}\",\"processed\":\"{time}\",\"sequencing\":\"{time}\",\"sequenced\":\"{time}\"}}",
            payload.text()
        )
    };
    (1..=MESSAGES).map(output).collect()
}

fn entries() -> Vec<Bytes> {
    (1..=MESSAGES)
        .map(|number| load().message(number, Micros(5)).to_entry())
        .collect()
}

fn judged(lines: &[String]) -> Verdict {
    let mut witness = Witness::new(load(), MESSAGES);
    lines.iter().for_each(|line| witness.output(line.as_bytes()));
    witness.end().verdict
}

fn judged_entries(lines: &[Bytes]) -> Verdict {
    let mut witness = Witness::new(load(), MESSAGES);
    lines.iter().for_each(|line| witness.entry(line));
    witness.end().against_count(MESSAGES)
}

fn faults(verdict: &Verdict) -> [u64; 4] {
    assert_eq!(verdict.passed(), verdict.violations.is_empty(), "{verdict:?}");
    [verdict.lost, verdict.duplicated, verdict.reordered, verdict.differing]
}

#[test]
fn a_whole_output_passes() {
    let verdict = judged(&outputs());
    assert_eq!((faults(&verdict), verdict.delivered), ([0; 4], MESSAGES));
    let verdict = judged_entries(&entries());
    assert_eq!((faults(&verdict), verdict.delivered), ([0; 4], MESSAGES));
}

#[test]
fn a_line_that_is_missing_is_lost() {
    for index in [0, 77, 199] {
        let mut lines = outputs();
        lines.remove(index);
        assert_eq!(faults(&judged(&lines)), [1, 0, 0, 0], "{index}");
        let mut lines = entries();
        lines.remove(index);
        assert_eq!(faults(&judged_entries(&lines)), [1, 0, 0, 0], "{index}");
    }
    assert_eq!(faults(&judged(&[])), [MESSAGES, 0, 0, 0]);
}

#[test]
fn a_line_that_comes_twice_is_a_duplicate() {
    let mut lines = outputs();
    lines.insert(50, lines[9].clone());
    assert_eq!(faults(&judged(&lines)), [0, 1, 0, 0]);
    let mut lines = entries();
    lines.push(lines[9].clone());
    assert_eq!(faults(&judged_entries(&lines)), [0, 1, 0, 0]);
}

#[test]
fn two_lines_that_change_places_are_out_of_order() {
    let mut lines = outputs();
    lines.swap(3, 4);
    assert_eq!(faults(&judged(&lines)), [0, 0, 1, 0]);
    let mut lines = entries();
    lines.swap(3, 190);
    assert!(judged_entries(&lines).reordered > 0);
}

#[test]
fn a_message_at_the_place_of_another_is_out_of_order() {
    // The positions ascend, but two messages have each other's.
    let mut lines = outputs();
    lines[3] = lines[3].replace("run-4", "run-5");
    lines[4] = lines[4].replace("run-5", "run-4");
    assert!(!judged(&lines).passed());
}

#[test]
fn a_line_that_is_altered_differs() {
    let mut lines = outputs();
    lines[5] = lines[5].replace("message 6", "message 7");
    assert_eq!(faults(&judged(&lines)), [0, 0, 0, 1]);
    let mut lines = outputs();
    lines[5] = "nonsense".to_owned();
    assert_eq!(faults(&judged(&lines)), [1, 0, 0, 1]);
    let mut lines = outputs();
    lines.push(lines[5].replace("run-6", "other-6"));
    assert_eq!(faults(&judged(&lines)), [0, 0, 0, 1]);
}

#[test]
fn a_record_too_few_is_found() {
    let mut witness = Witness::new(load(), MESSAGES);
    entries().iter().for_each(|line| witness.entry(line));
    assert_eq!(witness.end().against_count(MESSAGES - 1).differing, 1);
}
