//! 3 processors and 2 sequencers as real processes; kill -9 of a processor every 300 ms and of the leader every second
//! until 2,000 messages of 5 to 50 ms are delivered. 20 seeds on each store; by turns the store and the leader delivers.

mod support;

use support::Place;

const SEEDS: u64 = 20;

fn survive(place: &Place) {
    for seed in 1..=SEEDS {
        let delivery = ["store", "leader"][usize::from(seed % 2 == 0)];
        let args = [
            "bench",
            "chaos",
            "--json",
            "--delivery",
            delivery,
            "--seed",
            &seed.to_string(),
        ];
        let report = place.json(&args);
        println!(
            "seed {seed}: {} ms, at most {} ms without a delivery, {}",
            report["elapsed_ms"], report["longest_gap_ms"], report["faults"]
        );
        let verdict = &report["verdict"];
        assert_eq!(report["passed"], true, "{report}");
        assert_eq!(verdict["sent"], 2_000);
        assert_eq!(verdict["delivered"], 2_000);
        assert_eq!(verdict["records"], 2_000);
        for wrong in ["lost", "duplicated", "reordered", "differing", "dead"] {
            assert_eq!(verdict[wrong], 0, "{report}");
        }
        assert!(report["faults"][0]["injected"].as_u64() > Some(2), "{report}");
        assert!(report["faults"][1]["injected"].as_u64() > Some(0), "{report}");
        assert!(report["terms"].as_u64() > Some(1), "{report}");
        assert!(report["processed_again"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn sqlite() {
    survive(&Place::sqlite());
}

#[test]
fn redis() {
    survive(&Place::redis());
}

/// The other orders a line can have: nothing lost or doubled, and the order of each key kept.
fn survive_in(place: &Place, order: &[&str], seeds: u64) {
    for seed in 1..=seeds {
        let number = seed.to_string();
        let fixed = [
            "bench", "chaos", "--json", "--seed", &number, "--keys", "20", "--hot", "20",
        ];
        let report = place.json(&[&fixed[..], order].concat());
        let verdict = &report["verdict"];
        println!(
            "{order:?}, seed {seed}: {} ms, {}",
            report["elapsed_ms"], report["faults"]
        );
        assert_eq!(report["passed"], true, "{report}");
        assert_eq!(verdict["delivered"], 2_000);
        assert_eq!(verdict["records"], 2_000);
        for wrong in ["lost", "duplicated", "reordered", "differing", "dead"] {
            assert_eq!(verdict[wrong], 0, "{report}");
        }
        assert!(report["faults"][0]["injected"].as_u64() > Some(2), "{report}");
        assert!(report["processed_again"].as_u64() > Some(0), "{report}");
    }
}

/// How many seeds of each order: `CONGA_KILLS` says another number.
fn seeds() -> u64 {
    let asked_for = std::env::var("CONGA_KILLS").ok().and_then(|seeds| seeds.parse().ok());
    asked_for.unwrap_or(3)
}

const KEY: [&str; 2] = ["--order", "key"];
const SERIAL: [&str; 4] = ["--order", "key", "--per-key", "serial"];
const NONE: [&str; 2] = ["--order", "none"];

#[test]
fn by_key_on_sqlite() {
    survive_in(&Place::sqlite(), &KEY, seeds());
}

#[test]
fn by_key_on_redis() {
    survive_in(&Place::redis(), &KEY, seeds());
}

#[test]
fn one_of_a_key_at_a_time_on_sqlite() {
    survive_in(&Place::sqlite(), &SERIAL, seeds());
}

#[test]
fn one_of_a_key_at_a_time_on_redis() {
    survive_in(&Place::redis(), &SERIAL, seeds());
}

#[test]
fn without_order_on_sqlite() {
    survive_in(&Place::sqlite(), &NONE, seeds());
}

#[test]
fn without_order_on_redis() {
    survive_in(&Place::redis(), &NONE, seeds());
}
