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
