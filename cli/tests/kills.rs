//! 3 processors and 2 sequencers as real processes; kill -9 of a processor every 300 ms and of the leader every second
//! until 2,000 messages of 5 to 50 ms are delivered. 20 seeds on each store; by turns the store and the leader delivers.
//!
//! In the other orders and in several partitions 3 seeds, and by hand, with their table, as many as one likes:
//! `CONGA_KILLS=20 cargo nextest run -p conga-cli --test kills --no-capture`.

mod support;

use std::time::Duration;

use support::redis_cluster::RedisCluster;
use support::{Place, RedisServer};

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

/// The other orders a line can have, and several partitions: nothing lost or doubled, and the order of each key kept. Prints
/// a table.
fn survive_in(place: &Place, order: &[&str], seeds: u64) {
    println!("{}, {order:?}", place.url);
    println!("seed    sent  delivered    lost  doubled  out of order  kills  processed again");
    for seed in 1..=seeds {
        let number = seed.to_string();
        let fixed = [
            "bench", "chaos", "--json", "--seed", &number, "--keys", "20", "--hot", "20",
        ];
        let report = place.json(&[&fixed[..], order].concat());
        let verdict = &report["verdict"];
        let kills: u64 = (report["faults"].as_array().expect("faults").iter())
            .filter_map(|fault| fault["injected"].as_u64())
            .sum();
        println!(
            "{seed:>4}{:>8}{:>11}{:>8}{:>9}{:>14}{kills:>7}{:>17}",
            verdict["sent"].to_string(),
            verdict["delivered"].to_string(),
            verdict["lost"].to_string(),
            verdict["duplicated"].to_string(),
            verdict["reordered"].to_string(),
            report["processed_again"].to_string()
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

/// A cluster of three primaries, over which three partitions are spread.
fn survive_on_a_cluster(order: &[&str]) {
    let cluster = RedisCluster::start(3, Duration::from_secs(1), &[]).expect("a cluster");
    let place = Place {
        url: cluster.url(&[0]),
        folder: tempfile::tempdir().expect("a folder"),
        server: None::<RedisServer>,
    };
    survive_in(&place, order, seeds());
}

const TOTAL: &[&str] = &["--order", "total"];
const KEY: &[&str] = &["--order", "key"];
const SERIAL: &[&str] = &["--order", "key", "--per-key", "serial"];
const NONE: &[&str] = &["--order", "none"];
const KEY_OF_3: &[&str] = &["--order", "key", "--partitions", "3"];
const NONE_OF_3: &[&str] = &["--order", "none", "--partitions", "3"];

#[test]
fn by_key_on_sqlite() {
    survive_in(&Place::sqlite(), KEY, seeds());
}

#[test]
fn by_key_on_redis() {
    survive_in(&Place::redis(), KEY, seeds());
}

#[test]
fn one_of_a_key_at_a_time_on_sqlite() {
    survive_in(&Place::sqlite(), SERIAL, seeds());
}

#[test]
fn one_of_a_key_at_a_time_on_redis() {
    survive_in(&Place::redis(), SERIAL, seeds());
}

#[test]
fn without_order_on_sqlite() {
    survive_in(&Place::sqlite(), NONE, seeds());
}

#[test]
fn without_order_on_redis() {
    survive_in(&Place::redis(), NONE, seeds());
}

#[test]
fn partitions_by_key_on_sqlite() {
    survive_in(&Place::sqlite(), KEY_OF_3, seeds());
}

#[test]
fn partitions_without_order_on_redis() {
    survive_in(&Place::redis(), NONE_OF_3, seeds());
}

#[test]
fn total_order_on_a_cluster() {
    survive_on_a_cluster(TOTAL);
}

#[test]
fn partitions_by_key_on_a_cluster() {
    survive_on_a_cluster(KEY_OF_3);
}

#[test]
fn partitions_one_of_a_key_at_a_time_on_a_cluster() {
    survive_on_a_cluster(&[SERIAL, &["--partitions", "3"]].concat());
}

#[test]
fn partitions_without_order_on_a_cluster() {
    survive_on_a_cluster(NONE_OF_3);
}
