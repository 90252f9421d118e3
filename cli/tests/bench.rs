//! What measures speed, on small counts: it runs on each store, verifies what came out, and prints what can be read.

mod support;

use serde_json::Value;
use support::{Place, parse};

fn places() -> [Place; 2] {
    [Place::sqlite(), Place::redis()]
}

/// A figure that has to be there, and more than nothing.
fn figure(value: &Value, name: &str) -> f64 {
    let figure = value[name].as_f64().unwrap_or_default();
    assert!(figure > 0.0 && figure.is_finite(), "{name}: {value}");
    figure
}

fn verified(ran: &Value, messages: u64) {
    let verdict = &ran["verdict"];
    let found = ["sent", "delivered", "records"].map(|name| verdict[name].as_u64());
    assert_eq!(found, [Some(messages); 3], "{ran}");
    figure(ran, "rate");
}

#[test]
fn the_limit_is_measured_and_conga_against_it() {
    for place in places() {
        let args = ["bench", "limit", "--json", "--messages", "2000", "--runs", "1"];
        let report = place.json(&[&args[..], &["--report", "limit.html"]].concat());
        let ratio = figure(&report, "conga") / figure(&report, "limit");
        assert!((figure(&report, "ratio") - ratio).abs() < 1e-6, "{report}");
        assert_eq!(report["passed"], true);
        let run = &report["runs"][0];
        for which in ["alone", "limit", "conga"] {
            verified(&run[which], 2_000);
        }
        let names = |which: &str| -> Vec<String> {
            let accounts = run[which]["accounts"].as_array().expect("accounts");
            let name = |account: &Value| account["who"].as_str().unwrap_or_default().to_owned();
            accounts.iter().map(name).collect()
        };
        let server: &[&str] = if place.server.is_some() { &["server"] } else { &[] };
        assert_eq!(
            names("limit"),
            [server, &["limit-produce", "limit-work", "limit-consume"]].concat()
        );
        assert_eq!(
            names("conga"),
            [server, &["produce", "consume", "process", "sequence"]].concat()
        );
        let page = std::fs::read_to_string(place.path().join("limit.html")).expect("a page");
        assert!(page.contains("<svg") && page.contains("verified"), "{page}");
        // Nothing is left behind.
        let left = std::fs::read_dir(place.path()).expect("a folder");
        let left = left.filter_map(Result::ok).map(|entry| entry.file_name());
        let limits = left.filter(|name| name.to_string_lossy().starts_with("conga-limit"));
        assert_eq!(limits.count(), 0);
        assert_eq!(place.json(&["status", "--json"])["recorded"], 0);
    }
}

/// The report of what brings servers of its own.
fn without_a_store(place: &Place, args: &[&str]) -> Value {
    let output = place
        .conga(args)
        .env_remove("CONGA_STORE")
        .output()
        .expect("conga starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    parse(&output.stdout)
}

#[test]
fn a_server_of_its_own_is_measured() {
    let place = Place::sqlite();
    let args = ["bench", "throughput", "--json", "--messages", "1000", "--runs", "1"];
    let report = without_a_store(
        &place,
        &[&args[..], &["--serve", "redis", "--fsync", "always"]].concat(),
    );
    assert_eq!(report["store"], "redis, appendfsync always");
    figure(&report, "throughput");
    verified(&report["runs"][0], 1_000);
}

#[test]
fn latency_is_measured_at_parts_of_the_throughput() {
    for place in places() {
        let report = place.json(&[
            "bench",
            "latency",
            "--json",
            "--messages",
            "1000",
            "--runs",
            "1",
            "--duration",
            "500ms",
            "--loads",
            "10,50",
        ]);
        assert_eq!(report["passed"], true, "{report}");
        let throughput = figure(&report, "throughput");
        for (index, percent) in [(0, 10.0), (1, 50.0)] {
            let load = &report["loads"][index];
            assert!((figure(load, "rate") - throughput * percent / 100.0).abs() < 1e-6);
            verified(&load["ran"], load["ran"]["messages"].as_u64().unwrap_or(0));
            assert!(figure(&load["added"], "p50_ms") <= figure(&load["added"], "max_ms"));
        }
    }
}

#[test]
fn each_series_of_scale_is_measured() {
    for place in places() {
        let small = [
            ("--messages", "1000"),
            ("--age", "5000"),
            ("--counts", "2"),
            ("--backlogs", "500"),
            ("--windows", "100"),
            ("--payloads", "10,5000"),
            ("--report", "scale.html"),
        ];
        let small: Vec<&str> = small.iter().flat_map(|(name, value)| [*name, *value]).collect();
        let report = place.json(&[&["bench", "scale", "--json"], &small[..]].concat());
        assert_eq!(report["passed"], true, "{report}");
        let series = report["series"].as_array().expect("series");
        let names: Vec<&str> = series.iter().filter_map(|found| found["series"].as_str()).collect();
        let memory: &[&str] = if place.server.is_some() { &["memory"] } else { &[] };
        let expected = [&["services", "backlog", "window", "payload"], memory, &["age"]].concat();
        assert_eq!(names, expected);
        for found in series {
            for point in found["points"].as_array().into_iter().flatten() {
                if found["series"] == "memory" {
                    let least = figure(point, "payload_bytes");
                    assert!(figure(point, "waiting_bytes") > least, "{point}");
                    figure(point, "in_flight_more_bytes");
                } else {
                    verified(&point["ran"], point["messages"].as_u64().unwrap_or(0));
                }
            }
        }
        let age = series.last().expect("age");
        verified(&age["ran"], 5_000);
        figure(age, "ratio");
    }
}

#[test]
fn what_shards_cost_is_measured() {
    // A processor's time is told in steps of 10 ms: of fewer messages it may be nothing.
    const MESSAGES: u32 = 10_000;
    let place = Place::sqlite();
    let messages = MESSAGES.to_string();
    let small = [
        ("--messages", messages.as_str()),
        ("--runs", "1"),
        ("--idle", "200ms"),
        ("--primaries", "2"),
        ("--partitions", "4"),
        ("--counts", "1,3"),
        ("--report", "shards.html"),
    ];
    let small: Vec<&str> = small.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let report = without_a_store(&place, &[&["bench", "shards", "--json"], &small[..]].concat());
    assert_eq!(report["passed"], true, "{report}");
    let points = |series: &str| report[series].as_array().cloned().unwrap_or_default();
    assert_eq!((points("primaries").len(), points("partitions").len()), (1, 2));
    for (point, nodes) in points("partitions")
        .iter()
        .map(|point| (point, 1))
        .chain([(&points("primaries")[0], 2)])
    {
        for name in ["server_us", "processor_us", "steps", "idle_server_ms"] {
            figure(point, name);
        }
        let run = &point["runs"][0];
        verified(&run["ran"], MESSAGES.into());
        let each = run["nodes"].as_array().expect("nodes");
        assert_eq!(each.len(), nodes);
        let messages: Vec<f64> = each.iter().map(|node| figure(node, "messages")).collect();
        assert!(
            (messages.iter().sum::<f64>() - f64::from(MESSAGES)).abs() < 1e-9,
            "{messages:?}"
        );
        // The servers' costs, by their share, are that of a message.
        let cost: f64 = each
            .iter()
            .map(|node| figure(node, "cpu_us") * figure(node, "messages"))
            .sum();
        assert!(
            (cost / f64::from(MESSAGES) - figure(point, "server_us")).abs() < 1e-6,
            "{run}"
        );
    }
    assert!(
        std::fs::read_to_string(place.path().join("shards.html"))
            .expect("a page")
            .contains("<svg")
    );
}
