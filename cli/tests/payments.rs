//! The example: a payment ledger in PostgreSQL or SQLite, by SQL alone. Each payment is made once, whoever is killed.

mod support;

#[path = "../src/bench/postgres_server.rs"]
mod postgres_server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use postgres_server::PostgresServer;
use support::{Place, Service, wait_for};
use tokio::runtime::Runtime;

const PAYMENTS: usize = 1_000;

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/payments")
        .join(file)
}

/// One value from the database, as text.
fn ask(server: &PostgresServer, sql: &str) -> String {
    Runtime::new().expect("a runtime").block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let messages = client.simple_query(sql).await.expect("an answer");
        let value = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        value.unwrap_or_default().to_owned()
    })
}

/// As somebody would run it.
#[test]
fn the_example_runs() {
    let server = PostgresServer::start(&["fsync=off"]).unwrap();
    let output = Command::new("sh")
        .arg(example("run.sh"))
        .arg(server.url())
        .env("CONGA", env!("CARGO_BIN_EXE_conga"))
        .env_remove("CONGA_STORE")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{said}");
    assert!(said.contains("2000.00 before, 2000.00 after"), "{said}");
}

/// Processors are killed all the while, on each store.
#[test]
fn processors_are_killed_and_every_payment_is_made_once() {
    for place in [Place::sqlite(), Place::redis()] {
        let server = PostgresServer::start(&["fsync=off"]).unwrap();
        ask(&server, &std::fs::read_to_string(example("schema.sql")).unwrap());
        let payments = Command::new("sh").arg(example("payments.sh")).output().unwrap().stdout;
        let (handler, record) = (format!("sql:{}", example("pay.sql").display()), server.url());
        let start = || -> Service { place.service(&["process", "--record", &record, "--handler", &handler]) };
        let mut services: Vec<Service> = (0..3).map(|_| start()).collect();
        assert!(place.fed(&["send"], &payments).status.success());
        let mut outputs = Vec::new();
        let mut kills = 0;
        while outputs.iter().filter(|byte| **byte == b'\n').count() < PAYMENTS {
            outputs.extend(place.done(&["receive", "--json", "--count", "50"]));
            // Dropped, it is killed.
            drop(services.remove(0));
            services.push(start());
            kills += 1;
        }
        assert!(kills >= 10);
        for service in services {
            service.end();
        }
        let out = place.path().join("out.ndjson");
        std::fs::write(&out, &outputs).unwrap();
        let sent = place.path().join("sent.ndjson");
        std::fs::write(&sent, &payments).unwrap();
        place.done(&[
            "verify",
            out.to_str().unwrap(),
            "--sent",
            sent.to_str().unwrap(),
            "--count",
            "1000",
        ]);
        let text = String::from_utf8(outputs).unwrap();
        let paid = text.matches("\"state\":\"paid\"").count();
        assert_eq!(paid + text.matches("\"state\":\"refused\"").count(), PAYMENTS);
        assert!(paid > 100, "{paid}");
        assert_eq!(ask(&server, "SELECT sum(balance) FROM account"), "2000.00");
        let whole =
            "SELECT count(*) FROM (SELECT FROM entry GROUP BY payment HAVING count(*) = 2 AND sum(amount) = 0) AS e";
        assert_eq!(ask(&server, whole), paid.to_string());
        assert_eq!(ask(&server, "SELECT count(*) FROM entry"), (2 * paid).to_string());
        assert_eq!(ask(&server, "SELECT count(*) FROM conga_record"), PAYMENTS.to_string());
        let wrong = "SELECT count(*) FROM account WHERE balance <> 100 + coalesce((SELECT sum(amount) FROM entry WHERE account = name), 0)";
        assert_eq!(ask(&server, wrong), "0");
        println!("{}: {PAYMENTS} payments, {paid} paid, {kills} kills", place.url);
    }
}

/// Without PostgreSQL: the accounts are in the line's own file. Processors are killed all the while, and everything is sent again.
#[test]
fn payments_in_the_store_itself_are_made_once() {
    let place = Place::sqlite();
    place.done(&["status"]);
    let bank = rusqlite::Connection::open(place.path().join("conga.db")).unwrap();
    bank.execute_batch(&std::fs::read_to_string(example("schema-sqlite.sql")).unwrap())
        .unwrap();
    let ask = |sql: &str| -> i64 { bank.query_row(sql, [], |row| row.get(0)).unwrap() };
    let payments = Command::new("sh").arg(example("payments.sh")).output().unwrap().stdout;
    let handler = format!("sql:{}", example("pay-sqlite.sql").display());
    let start = || -> Service { place.service(&["process", "--handler", &handler]) };
    let mut services: Vec<Service> = (0..3).map(|_| start()).collect();
    let mut outputs = Vec::new();
    let mut kills = 0;
    for part in payments
        .split_inclusive(|byte| *byte == b'\n')
        .collect::<Vec<_>>()
        .chunks(50)
    {
        assert!(place.fed(&["send"], &part.concat()).status.success());
        // Dropped, it is killed: in the midst of these.
        drop(services.remove(0));
        services.push(start());
        kills += 1;
        outputs.extend(place.done(&["receive", "--json", "--count", "50"]));
    }
    assert!(place.fed(&["send"], &payments).status.success());
    for service in services {
        service.end();
    }
    let (out, sent) = (place.path().join("out.ndjson"), place.path().join("sent.ndjson"));
    std::fs::write(&out, &outputs).unwrap();
    std::fs::write(&sent, &payments).unwrap();
    let (out, sent) = (out.to_str().unwrap(), sent.to_str().unwrap());
    place.done(&["verify", out, "--sent", sent, "--count", "1000"]);
    let text = String::from_utf8(outputs).unwrap();
    let paid = text.matches("\"state\":\"paid\"").count();
    assert_eq!(paid + text.matches("\"state\":\"refused\"").count(), PAYMENTS);
    assert!(paid > 100, "{paid}");
    let paid = i64::try_from(paid).unwrap();
    assert_eq!(ask("SELECT sum(balance) FROM account"), 200_000);
    assert_eq!(ask("SELECT count(*) FROM entry"), 2 * paid);
    let whole = "SELECT count(*) FROM (SELECT 1 FROM entry GROUP BY payment HAVING count(*) = 2 AND sum(amount) = 0)";
    assert_eq!(ask(whole), paid);
    assert_eq!(ask("SELECT count(*) FROM record"), 1_000);
    println!("{}: {PAYMENTS} payments, {paid} paid, {kills} kills", place.url);
}

/// A processor is killed in the midst of its effect: what it had written by then never was.
#[test]
fn a_payment_that_is_killed_halfway_never_was() {
    const ROUNDS: i64 = 4;
    let place = Place::sqlite();
    place.done(&["status"]);
    let bank = rusqlite::Connection::open(place.path().join("conga.db")).unwrap();
    bank.busy_timeout(Duration::ZERO).unwrap();
    bank.execute_batch(
        "CREATE TABLE half (id TEXT NOT NULL); CREATE TABLE other_half (id TEXT NOT NULL); CREATE TABLE slow (x)",
    )
    .unwrap();
    let script = place.path().join("two-halves.sql");
    // As long as a row stands in `slow`, what is between the two goes on until its time is up.
    let halves = "INSERT INTO half VALUES (:id); \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE EXISTS (SELECT 1 FROM slow)) SELECT count(*) FROM n; \
        INSERT INTO other_half VALUES (:id);";
    std::fs::write(&script, halves).unwrap();
    let handler = format!("sql:{}", script.display());
    let ask = |sql: &str| -> i64 { bank.query_row(sql, [], |row| row.get(0)).unwrap() };
    let is_locked = || bank.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err();
    for round in 0..ROUNDS {
        bank.execute_batch("INSERT INTO slow VALUES (1)").unwrap();
        let service = place.service(&["process", "--handler", &handler]);
        assert!(
            place
                .fed(&["send"], format!("{{\"payload\":{round}}}\n").as_bytes())
                .status
                .success()
        );
        // No other step keeps the file for long.
        let mut since = Instant::now();
        wait_for("an effect that keeps the file locked", || {
            if !is_locked() {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(50)
        });
        drop(service);
        for table in ["half", "other_half", "record"] {
            assert_eq!(ask(&format!("SELECT count(*) FROM {table}")), round, "{table}");
        }
        wait_for("the file to be free", || !is_locked());
        bank.execute_batch("DELETE FROM slow").unwrap();
        let service = place.service(&["process", "--handler", &handler]);
        place.done(&["receive", "--count", "1"]);
        service.end();
        for table in ["half", "other_half", "record"] {
            let counts = format!("SELECT count(*) FROM {table}");
            assert_eq!(ask(&counts), round + 1, "{table}");
        }
    }
    assert_eq!(ask("SELECT count(DISTINCT id) FROM half"), ROUNDS);
}

#[test]
fn a_script_that_is_wrong_is_refused_at_once() {
    let (place, server) = (Place::sqlite(), PostgresServer::start(&["fsync=off"]).unwrap());
    let file = place.path().join("handler.sql");
    std::fs::write(&file, "SELECT 1;\nSELECT * FROM nowhere;\n").unwrap();
    let handler = format!("sql:{}", file.display());
    let refused = |args: &[&str], why: &str| {
        let output = place.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    };
    let record = server.url();
    refused(
        &["process", "--record", &record, "--handler", &handler],
        "line 2: relation \"nowhere\" does not exist",
    );
    refused(
        &["process", "--record", &record, "--handler", "sql:none.sql"],
        "can't read none.sql",
    );
    refused(&["process", "--handler", &handler], "line 2: no such table: nowhere");
    let redis = Place::redis();
    let output = redis.run(&["process", "--handler", &handler]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--record postgres://"));
}
