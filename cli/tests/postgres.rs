//! PostgreSQL as the system of record, from the command line.

mod support;

#[path = "../src/bench/postgres_server.rs"]
mod postgres_server;

use std::process::Stdio;

use postgres_server::PostgresServer;
use serde_json::Value;
use support::{Place, parse};

/// Runs SQL by a client of its own.
fn ask(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        client.batch_execute(sql).await.expect("it is done");
    });
}

#[test]
fn a_service_records_and_verify_reads_the_table() {
    let place = Place::sqlite();
    let server = PostgresServer::start(&["fsync=off"]).expect("PostgreSQL");
    let record = format!("{}?application_name=test", server.url());
    let input = "{\"id\":\"a\",\"payload\":{\"b\":1.0, \"a\":[]}}\n{\"sequence\":7,\"key\":\"k\",\"payload\":\"\\u0000\"}\nplain\n";
    assert!(place.fed(&["send"], input.as_bytes()).status.success());
    let service = place.service(&["run", "--record", &record]);
    let outputs = place.done(&["receive", "--count", "3"]);
    assert_eq!(service.end()["done"], 3);
    let text = String::from_utf8(outputs.clone()).expect("text");
    assert!(text.contains("\"payload\":{\"b\":1.0, \"a\":[]}"), "{text}");
    assert!(text.contains("\"id\":\"@3-"), "{text}");
    std::fs::write(place.path().join("out"), &outputs).expect("written");
    let verify = ["verify", "out", "--json", "--record", &record];
    let verdict = place.json(&verify);
    assert_eq!((&verdict["rows"], &verdict["passed"]), (&3.into(), &true.into()));
    // What is asked for without a word on it is not.
    assert_eq!(place.json(&["verify", "out", "--json"])["rows"], Value::Null);
    // Of two messages with one id the row may be of the later.
    ask(&server.url(), "UPDATE conga_record SET position = 9 WHERE id = 'a'");
    assert_eq!(place.json(&verify)["passed"], true);
    for (sql, how) in [
        (
            "UPDATE conga_record SET position = 0 WHERE id = 'a'",
            "an earlier position than came out",
        ),
        (
            "UPDATE conga_record SET result_text = '{}' WHERE id = 'a'",
            "not what the table holds",
        ),
        ("DELETE FROM conga_record WHERE id = 'a'", "no row of what came out"),
        (
            "INSERT INTO conga_record SELECT line, 'b', 9, 1, NULL, NULL, '1', NULL, NULL, now(), now() FROM conga_record LIMIT 1",
            "did not come out",
        ),
    ] {
        ask(&server.url(), sql);
        let output = place.run(&verify);
        assert_eq!(output.status.code(), Some(1));
        let verdict = parse(&output.stdout);
        let found = verdict["violations"].to_string();
        assert!(found.contains(how), "{sql}: {found}");
    }
}

#[test]
fn a_service_waits_for_a_record_that_is_away_and_shows_no_password() {
    let place = Place::sqlite();
    let mut server = PostgresServer::start(&["fsync=off"]).expect("PostgreSQL");
    let record = server.url().replace("conga@", "conga:secret-word@");
    server.stop().expect("it stops");
    let mut child = place
        .conga(&["process", "--json", "--tied"])
        .env("CONGA_RECORD", &record)
        .env("CONGA_LOG", "debug")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let tie = child.stdin.take();
    let mut said = std::io::BufReader::new(child.stderr.take().expect("standard error"));
    let mut heard = String::new();
    while !heard.contains("can't open the system of record") {
        assert!(
            std::io::BufRead::read_line(&mut said, &mut heard).expect("a line") > 0,
            "{heard}"
        );
    }
    server.start_again().expect("it starts");
    let mut ready = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("standard output"));
    std::io::BufRead::read_line(&mut stdout, &mut ready).expect("a line");
    assert_eq!(parse(ready.as_bytes())["event"], "ready");
    drop(tie);
    assert!(child.wait().expect("it ends").success());
    std::io::Read::read_to_string(&mut said, &mut heard).expect("text");
    assert!(!heard.contains("secret-word"), "{heard}");
    let help = place
        .conga(&["process", "--help"])
        .env("CONGA_RECORD", &record)
        .output()
        .expect("conga starts");
    assert!(!String::from_utf8_lossy(&help.stdout).contains("secret-word"));
}

/// A server, or a proxy before it, that takes a connection and says nothing.
#[test]
fn a_service_that_is_told_to_end_while_it_opens_the_record_ends() {
    let place = Place::sqlite();
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let record = format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=600");
    let mut child = place
        .conga(&["process", "--json", "--tied", "--record", &record])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("conga starts");
    let silent = server.accept().expect("a connection");
    drop(child.stdin.take());
    let mut stdout = child.stdout.take().expect("standard output");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stdout, &mut text);
        tell.send(text)
    });
    let ended = told.recv_timeout(std::time::Duration::from_secs(20));
    if ended.is_err() {
        child.kill().expect("it is killed");
    }
    assert!(child.wait().expect("it ends").success());
    assert_eq!(ended.as_deref(), Ok(""));
    drop(silent);
}

/// Two applications with a store each, and one database: what a person can see of it.
#[test]
fn two_lines_of_one_name_in_one_database_are_warned_of() {
    let server = PostgresServer::start(&["fsync=off"]).expect("PostgreSQL");
    let record = server.url();
    for (payload, warned) in [("1", false), ("2", true)] {
        let place = Place::sqlite();
        let entry = format!("{{\"id\":\"a\",\"payload\":{payload}}}\n");
        assert!(place.fed(&["send"], entry.as_bytes()).status.success());
        let mut child = place
            .conga(&["run", "--tied", "--record", &record])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conga starts");
        place.done(&["receive", "--count", "1"]);
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("another line of the same name"), warned, "{said}");
    }
}

#[test]
fn what_is_no_record_is_wrong_usage_or_told() {
    let place = Place::sqlite();
    for record in ["mysql://u:secret@h/d", "serve", "nonsense"] {
        let output = place.run(&["process", "--record", record]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let server = PostgresServer::start(&["fsync=off"]).expect("PostgreSQL");
    let nowhere = format!("{}x", server.url());
    let output = place.run(&["process", "--record", &nowhere]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("createdb"), "{said}");
}

#[test]
fn a_burst_and_the_limit_are_verified_in_the_table() {
    let place = Place::sqlite();
    let burst = [
        "bench",
        "burst",
        "--messages",
        "300",
        "--work",
        "20ms",
        "--json",
        "--record",
        "serve",
    ];
    let report = place.json(&burst);
    assert_eq!(
        (&report["verdict"]["rows"], &report["passed"]),
        (&300.into(), &true.into()),
        "{report}"
    );
    let limit = [
        "bench",
        "limit",
        "--messages",
        "3000",
        "--runs",
        "1",
        "--json",
        "--record",
        "serve",
    ];
    let report = place.json(&limit);
    for which in ["alone", "limit", "conga"] {
        assert_eq!(report["runs"][0][which]["verdict"]["rows"], 3_000, "{report}");
    }
    assert!(report["ratio"].as_f64() > Some(0.0));
}

/// Kills of processors, of the leader, of Redis and of PostgreSQL, mixed.
#[test]
fn every_fault_of_the_record_is_survived() {
    let place = Place::sqlite();
    let output = place
        .conga(&[
            "bench",
            "chaos",
            "--json",
            "--serve",
            "redis",
            "--record",
            "serve",
            "--faults",
            "kill-processor,kill-leader,kill-redis,pause-processor,kill-postgres,stop-postgres,kill-postgres-connections",
        ])
        .env_remove("CONGA_STORE")
        .stdin(Stdio::null())
        .output()
        .expect("conga starts");
    let report = parse(&output.stdout);
    for kind in report["faults"].as_array().expect("faults") {
        println!("{kind}");
        assert!(kind["injected"].as_u64() > Some(0), "{kind} in {report}");
    }
    let verdict = &report["verdict"];
    assert_eq!(
        (output.status.code(), &report["passed"]),
        (Some(0), &true.into()),
        "{report}"
    );
    assert_eq!(verdict["sent"], verdict["rows"]);
    assert!(verdict["sent"].as_u64() > Some(500), "{report}");
}
