//! 3 processors and 2 sequencers as real processes; kill -9 of a processor every 300 ms and of the leader every second
//! until 2,000 messages of 5 to 50 ms are delivered. 20 seeds on each store; by turns the store and the leader delivers.
//!
//! Then each order on each store, on a cluster of three primaries in three partitions, and total order merged from three
//! partitions on each of them: 2 seeds, and by hand as many as one likes. Each of these prints a line:
//! `CONGA_KILLS=20 cargo nextest run -p conga-cli --test kills --no-capture`.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::redis_cluster::RedisCluster;
use support::{Place, RedisServer, number};

const SEEDS: u64 = 20;
const MESSAGES: u64 = 2_000;

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
        assert_flawless(&report);
        assert!(report["faults"][1]["injected"].as_u64() > Some(0), "{report}");
        assert!(report["terms"].as_u64() > Some(1), "{report}");
    }
}

/// All was delivered and recorded once, in order, though processors were killed amid their work.
fn assert_flawless(report: &Value) {
    let verdict = &report["verdict"];
    assert_eq!(report["passed"], true, "{report}");
    for all in ["sent", "delivered", "records"] {
        assert_eq!(verdict[all], MESSAGES, "{report}");
    }
    for wrong in ["lost", "duplicated", "reordered", "differing", "dead"] {
        assert_eq!(verdict[wrong], 0, "{report}");
    }
    for stale in ["stale_emits", "stale_completes", "stale_merges"] {
        assert_eq!(report[stale]["accepted"], 0, "{report}");
    }
    assert!(report["faults"][0]["injected"].as_u64() > Some(2), "{report}");
    assert!(report["processed_again"].as_u64() > Some(0), "{report}");
}

#[test]
fn sqlite() {
    survive(&Place::sqlite());
}

#[test]
fn redis() {
    survive(&Place::redis());
}

/// The orders a line can have, and several partitions. Prints a line of a table: the sums over all seeds.
fn survive_in(place: &Place, name: &str, order: &[&str]) {
    // How many seeds: `CONGA_KILLS` says another number.
    let asked_for = std::env::var("CONGA_KILLS").ok().and_then(|seeds| seeds.parse().ok());
    let seeds: u64 = asked_for.unwrap_or(2);
    let (mut kills, mut sums) = (0, [0; 5]);
    let reports: Vec<Value> = (1..=seeds)
        .map(|seed| {
            let seed = seed.to_string();
            let fixed = [
                "bench", "chaos", "--json", "--seed", &seed, "--keys", "20", "--hot", "20",
            ];
            // A line of its own.
            let output = place.run(&[&fixed[..], order].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.stdout.is_empty(),
                "seed {seed}: conga bench chaos {order:?} says {said}"
            );
            support::parse(&output.stdout)
        })
        .collect();
    for report in &reports {
        let faults = report["faults"].as_array().expect("faults");
        kills += faults.iter().map(|fault| number(&fault["injected"])).sum::<u64>();
        let told = ["sent", "delivered", "lost", "duplicated", "reordered"];
        for (sum, told) in sums.iter_mut().zip(told) {
            *sum += number(&report["verdict"][told]);
        }
    }
    let [sent, delivered, lost, doubled, reordered] = sums;
    println!(
        "{name}: {seeds} seeds, {sent} sent, {kills} kills, {delivered} delivered, {lost} lost, {doubled} doubled, {reordered} out \
         of order"
    );
    for report in &reports {
        assert_flawless(report);
        // Where there is a leader it was killed too.
        let told = report["order"].as_str().expect("an order");
        let is_led = !told.contains('/') || told.starts_with("total");
        let leaders = report["faults"].as_array().expect("faults").get(1);
        assert_eq!(
            leaders.is_some_and(|fault| number(&fault["injected"]) > 0),
            is_led,
            "{report}"
        );
    }
}

/// Where a line lives. All seeds have it together, and each a line of its own.
enum On {
    Sqlite,
    Redis,
    /// Three primaries.
    Cluster,
}

fn survive_on(on: &On, name: &str, order: &[&str]) {
    let cluster;
    let place = match on {
        On::Sqlite => Place::sqlite(),
        On::Redis => Place::redis(),
        On::Cluster => {
            cluster = RedisCluster::start(3, Duration::from_secs(1), &[]).expect("a cluster");
            Place {
                url: cluster.url(&[0]),
                folder: tempfile::tempdir().expect("a folder"),
                server: None::<RedisServer>,
            }
        }
    };
    survive_in(&place, name, order);
}

const TOTAL: &[&str] = &["--order", "total"];
const KEY: &[&str] = &["--order", "key"];
const SERIAL: &[&str] = &["--order", "key", "--per-key", "serial"];
const NONE: &[&str] = &["--order", "none"];
const MERGED: &[&str] = &["--order", "total", "--partitions", "3"];
const KEY_OF_3: &[&str] = &["--order", "key", "--partitions", "3"];
const SERIAL_OF_3: &[&str] = &["--order", "key", "--per-key", "serial", "--partitions", "3"];
const NONE_OF_3: &[&str] = &["--order", "none", "--partitions", "3"];

macro_rules! modes {
    ($($test:ident: $on:ident, $order:ident;)*) => {$(
        #[test]
        fn $test() {
            survive_on(&On::$on, stringify!($test), $order);
        }
    )*};
}

modes! {
    total_on_sqlite: Sqlite, TOTAL;
    total_on_redis: Redis, TOTAL;
    total_on_a_cluster: Cluster, TOTAL;
    merged_on_sqlite: Sqlite, MERGED;
    merged_on_redis: Redis, MERGED;
    merged_on_a_cluster: Cluster, MERGED;
    by_key_on_sqlite: Sqlite, KEY;
    by_key_on_redis: Redis, KEY;
    partitions_by_key_on_sqlite: Sqlite, KEY_OF_3;
    partitions_by_key_on_a_cluster: Cluster, KEY_OF_3;
    one_of_a_key_at_a_time_on_sqlite: Sqlite, SERIAL;
    one_of_a_key_at_a_time_on_redis: Redis, SERIAL;
    partitions_one_of_a_key_at_a_time_on_a_cluster: Cluster, SERIAL_OF_3;
    without_order_on_sqlite: Sqlite, NONE;
    without_order_on_redis: Redis, NONE;
    partitions_without_order_on_redis: Redis, NONE_OF_3;
    partitions_without_order_on_a_cluster: Cluster, NONE_OF_3;
}
