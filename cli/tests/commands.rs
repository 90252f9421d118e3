//! The commands as a person uses them: what they say, what they answer, what they refuse.

mod support;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Place, parse};

/// What a command says when it refuses, and how it ends.
fn refused(place: &Place, args: &[&str], code: i32) -> String {
    let output = place.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "conga {args:?}: {said}");
    said
}

#[test]
fn wrong_usage_says_what_to_do() {
    let place = Place::sqlite();
    for (args, says) in [
        (
            &["status", "--store", "conga.db"][..],
            "use sqlite:PATH, redis://HOST:PORT",
        ),
        (&["status", "--replicas", "1"], "is for Redis"),
        (&["status", "--store", "rediss://h"], "not supported yet"),
        (&["status", "--line", "a b"], "letters, digits"),
        (&["process", "--handler", "slep:1s"], "sleep:500ms"),
        (&["process", "--window", "0"], "at least 1"),
        (&["process", "--keep-records", "7x"], "1000000,7d"),
        (&["pipe", "--keep-records", "7"], "keeps all"),
        (&["send", "no-such-file"], "can't read no-such-file"),
        (&["send", "--rate", "5"], "--count"),
        (&["status", "--config", "none.toml"], "can't read none.toml"),
        (&["bench", "soak", "--work", "0s"], "more than 0"),
        (&["verify", "none"], "can't read none"),
        (&["bench", "chaos", "--faults", "kill-redis"], "kill-redis does not fit"),
        (
            &["bench", "chaos", "--faults", "kill-all,black-hole"],
            "--serve redis, or --store",
        ),
        (
            &[
                "bench",
                "chaos",
                "--store",
                "redis://127.0.0.1:1",
                "--faults",
                "freeze-redis",
            ],
            "of its own, which nobody else uses",
        ),
        (
            &[
                "bench",
                "chaos",
                "--store",
                "redis://127.0.0.1:1",
                "--faults",
                "lock-database",
            ],
            "needs an SQLite store",
        ),
        (
            &["bench", "chaos", "--serve", "redis"],
            "leave out --store, CONGA_STORE",
        ),
        (&["bench", "chaos", "--fsync", "no"], "--serve"),
        (
            &["bench", "limit", "--serve", "redis"],
            "leave out --store, CONGA_STORE",
        ),
        (&["bench", "limit", "--fsync", "always"], "--serve"),
        (&["bench", "scale", "--series", "weather"], "backlog"),
        (&["bench", "latency", "--loads", "0"], "above 0"),
        (&["bench", "chaos", "--faults", "earthquake"], "kill-leader"),
        (
            &["process", "--handler", "echo", "--order", "none", "--on-dead", "halt"],
            "mark or skip",
        ),
        (
            &["bench", "chaos", "--messages", "5", "--duration", "5s"],
            "cannot be used with",
        ),
        (
            &["bench", "chaos", "--self-test", "--faults", "oom"],
            "cannot be used with",
        ),
    ] {
        let said = refused(&place, args, 2);
        assert!(said.contains(says), "conga {args:?} says {said}");
    }
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let place = Place::sqlite();
    let file = place.path().join("notes.txt");
    std::fs::write(&file, "my notes\n".repeat(1_000)).expect("written");
    let said = refused(&place, &["status", "--store", "sqlite:notes.txt"], 1);
    assert!(said.contains("notes.txt"), "{said}");
    assert_eq!(
        std::fs::read_to_string(&file).expect("read"),
        "my notes\n".repeat(1_000)
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let place = Place::sqlite();
    let said = refused(&place, &["status", "--store", "redis://127.0.0.1:1"], 1);
    assert!(said.contains("not available"), "{said}");
    let said = refused(&place, &["status", "--store", "redis+sentinel://127.0.0.1:1"], 1);
    assert!(
        said.contains("redis+sentinel://user:password@host1:26379,host2:26379/MASTERNAME"),
        "{said}"
    );
    let said = refused(
        &place,
        &["status", "--store", "redis+cluster://127.0.0.1:1,127.0.0.1:2"],
        1,
    );
    assert!(said.contains("not available"), "{said}");
}

#[test]
fn settings_come_from_the_file_and_the_command_line_goes_first() {
    let place = Place::sqlite();
    std::fs::write(place.path().join("conga.toml"), "line = \"orders\"\n").expect("written");
    assert_eq!(place.json(&["status", "--json"])["line"], "orders");
    assert_eq!(place.json(&["status", "--json", "--line", "other"])["line"], "other");
    std::fs::write(place.path().join("conga.toml"), "lien = \"orders\"\n").expect("written");
    let said = refused(&place, &["status"], 2);
    assert!(said.contains("conga.toml") && said.contains("lien"), "{said}");
}

#[test]
fn what_stays_is_told_and_shown() {
    let place = Place::sqlite();
    let keep = |place: &Place| place.json(&["status", "--json"])["keep"].clone();
    assert_eq!(keep(&place)["records"]["told"], false);
    std::fs::write(
        place.path().join("conga.toml"),
        "keep-records = 2\nkeep-dead = \"7d\"\n",
    )
    .expect("written");
    let service = place.service(&["run", "--keep-dead", "90s,5"]);
    place.json(&["send", "--count", "10", "--json"]);
    place.done(&["receive", "--count", "10"]);
    // With the next renewals, of which there are three a second.
    let until = Instant::now() + Duration::from_secs(20);
    while keep(&place)["records"]["kept"] != 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(service.end());
    let told = keep(&place);
    assert_eq!(
        (&told["records"]["kept"], &told["records"]["count"]),
        (&2.into(), &2.into())
    );
    assert!(told["records"]["oldest"].is_string(), "{told}");
    assert_eq!(
        (&told["dead"]["count"], &told["dead"]["age_ms"]),
        (&5.into(), &90_000.0.into())
    );
    assert_eq!(told["output"]["told"], true);
    let text = String::from_utf8(place.done(&["status"])).expect("text");
    assert!(
        text.contains("keep records: 2 since ") && text.contains("keep dead: 0, limit 5,90s"),
        "{text}"
    );
    assert!(text.contains("keep output: 0, all stay"), "{text}");
}

#[test]
fn a_line_shows_where_its_messages_are() {
    let place = Place::sqlite();
    assert_eq!(place.json(&["send", "--count", "10", "--json"])["sent"], 10);
    let status = place.json(&["status", "--json"]);
    assert_eq!((&status["waiting"], &status["head"]), (&10.into(), &1.into()));
    let text = String::from_utf8(place.done(&["status"])).expect("text");
    assert!(
        text.contains("waiting 10") && text.contains("waits to be claimed"),
        "{text}"
    );
    let services = [place.service(&["process"]), place.service(&["sequence"])];
    assert_eq!(
        place
            .done(&["receive", "--count", "4"])
            .split(|byte| *byte == b'\n')
            .count(),
        5
    );
    services.into_iter().for_each(|service| drop(service.end()));
    assert_eq!(
        place.json(&["status", "--json"])["output"],
        6,
        "what is not acknowledged stays"
    );
    let rest = place.done(&["receive"]);
    let first = parse(rest.split(|byte| *byte == b'\n').next().expect("a line"));
    assert_eq!(first["position"], 5);
    assert!(place.done(&["receive"]).is_empty());
}

#[test]
fn run_is_a_processor_and_a_sequencer() {
    let place = Place::sqlite();
    let run = place.service(&["run", "--delivery", "leader"]);
    let sent = place.fed(
        &["send"],
        b"one\n{\"id\":\"x\",\"payload\":2}\n\n{\"id\":\"x\",\"payload\":2}\nlast",
    );
    assert!(sent.status.success());
    let output = place.done(&["receive", "--payload", "--count", "4"]);
    assert_eq!(output, b"one\n2\n\nlast\n");
    let ended = run.end();
    assert_eq!((&ended["done"], &ended["emitted"]), (&5.into(), &5.into()));
}

#[test]
fn verify_goes_red_for_each_fault() {
    let place = Place::sqlite();
    let line = |position: u64, id: &str| {
        let time = "2026-01-02T03:04:05.000006Z";
        format!(
            "{{\"position\":{position},\"id\":\"{id}\",\"payload\":0,\"attempts\":1,\"created\":\"{time}\",\"processing\":\"{time}\",\
             \"processed\":\"{time}\",\"sequencing\":\"{time}\",\"sequenced\":\"{time}\"}}\n"
        )
    };
    let check = |lines: &[String], args: &[&str]| {
        std::fs::write(place.path().join("out"), lines.concat()).expect("written");
        let output = place.run(&[&["verify", "out", "--json"], args].concat());
        (output.status.code(), parse(&output.stdout))
    };
    let [a, b, c] = [line(1, "a"), line(2, "b"), line(3, "c")];
    assert_eq!(check(&[a.clone(), b.clone(), c.clone()], &["--count", "3"]).0, Some(0));
    let (code, lost) = check(&[a.clone(), c.clone()], &[]);
    assert_eq!((code, &lost["lost"]), (Some(1), &1.into()));
    assert_eq!(check(&[a.clone(), c.clone()], &["--gaps"]).0, Some(0));
    let (code, short) = check(&[a.clone(), b.clone()], &["--count", "3"]);
    assert_eq!((code, &short["lost"]), (Some(1), &1.into()));
    let (code, reordered) = check(&[b.clone(), a.clone(), c.clone()], &[]);
    assert_eq!((code, &reordered["reordered"]), (Some(1), &1.into()));
    let (code, doubled) = check(&[a.clone(), b.clone(), line(3, "a")], &[]);
    assert_eq!((code, &doubled["duplicated"]), (Some(1), &1.into()));
    assert_eq!(check(&[], &[]).0, Some(1), "an empty output proves nothing");
    std::fs::write(
        place.path().join("sent"),
        "{\"id\":\"a\",\"payload\":0}\n{\"id\":\"z\",\"payload\":0}\n",
    )
    .expect("written");
    let (code, missing) = check(&[a], &["--sent", "sent"]);
    assert_eq!((code, &missing["lost"]), (Some(1), &1.into()));
    std::fs::write(place.path().join("out"), "nonsense\n").expect("written");
    assert_eq!(place.run(&["verify", "out"]).status.code(), Some(2));
}

/// A named job that is killed again and again writes each line once.
#[test]
fn a_job_can_be_killed_and_run_again() {
    let place = Place::sqlite();
    let input: String = (1..=2_000).map(|number| format!("line {number}\n")).collect();
    let file = place.path().join("out.txt");
    let written = || std::fs::read(&file).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    let args = [
        "pipe",
        "--job",
        "j",
        "--output",
        "out.txt",
        "--handler",
        "sleep:1ms..20ms",
        "--concurrency",
        "20",
        // What is processed ahead of a message that a kill has orphaned comes out in one go, and must not be all.
        "--window",
        "100",
    ];
    for kill_at in [100, 700, 1_300] {
        let mut child = place.conga(&args).stdin(Stdio::piped()).spawn().expect("conga starts");
        let mut to = child.stdin.take().expect("standard input");
        to.write_all(input.as_bytes()).expect("fed");
        let limit = Instant::now() + Duration::from_mins(1);
        while written() < kill_at {
            assert!(Instant::now() < limit, "only {} lines", written());
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert!(written() < 2_000, "the kill came too late to show anything");
    }
    let output = place.fed(&args, input.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).expect("read"), input);
    let output = place.fed(&args, input.as_bytes());
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("2000 of 2000 lines had been written by an earlier run"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("read"), input);
}

#[test]
fn a_burst_is_measured_and_verified() {
    let place = Place::sqlite();
    let args = [
        "bench",
        "burst",
        "--json",
        "--messages",
        "100",
        "--work",
        "20ms",
        "--processors",
        "2",
        "--concurrency",
        "25",
    ];
    let report = place.json(&[&args[..], &["--report", "burst.html"]].concat());
    assert_eq!(report["ideal_ms"], 40.0);
    assert_eq!(
        (&report["verdict"]["delivered"], &report["passed"]),
        (&100.into(), &true.into())
    );
    assert!(
        report["stages"]["processing"]["p50_ms"].as_f64() >= Some(20.0),
        "{report}"
    );
    let page = std::fs::read_to_string(place.path().join("burst.html")).expect("a page");
    assert!(
        page.contains("<svg") && !page.contains("http://") || page.contains("www.w3.org"),
        "self-contained"
    );
}

#[test]
fn the_demo_tells_its_story() {
    let place = Place::sqlite();
    let report = place.json(&["demo", "--json", "--messages", "300"]);
    let verdict = &report["verdict"];
    assert_eq!(
        (&report["passed"], &verdict["delivered"], &verdict["records"]),
        (&true.into(), &300.into(), &300.into())
    );
    assert_eq!(report["terms"], 2, "the leader was killed, and another took over");
    assert!(
        report["processed_again"].as_u64() > Some(0),
        "a processor was killed in mid-work"
    );
    let page = std::fs::read_to_string(place.path().join("conga-demo.html")).expect("a page");
    assert!(page.contains("a processor is killed") && page.contains("the leader is killed"));
}

/// What a command leaves as it was: all files beside each other, by name and content.
fn files(place: &Place) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(place.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(&path).expect("read")))
        .collect();
    files.sort();
    files
}

/// Every command that opens a file which can't be used says so and what to do, ends with 1, and leaves it as it was.
#[test]
fn a_file_that_cannot_be_used_is_refused_by_every_command() {
    let place = Place::sqlite();
    let path = |name: &str| place.path().join(name);
    let schema = |name: &str, sql: &str| {
        let database = rusqlite::Connection::open(path(name)).expect("a database");
        database.execute_batch(sql).expect("a schema");
    };
    place.done(&["send", "--count", "500", "--store", "sqlite:good.db"]);
    let good = std::fs::read(path("good.db")).expect("a store");
    std::fs::write(path("letter.txt"), "my notes\n".repeat(1_000)).expect("written");
    std::fs::write(path("half.db"), &good[..good.len() / 2]).expect("written");
    std::fs::write(path("odd.db"), &good[..good.len() - 100]).expect("written");
    std::fs::write(path("stub.db"), &good[..50]).expect("written");
    std::fs::write(path("emptied.db"), "").expect("written");
    std::fs::write(path("emptied.db-wal"), "what is left of it").expect("written");
    std::fs::write(path("newer.db"), &good).expect("written");
    schema("newer.db", "PRAGMA journal_mode = DELETE; PRAGMA user_version = 99");
    schema("songs.db", "CREATE TABLE songs (title)");
    std::fs::create_dir(path("folder")).expect("a folder");
    let before = files(&place);
    for (name, says) in [
        ("letter.txt", "is not an SQLite database; choose another file"),
        ("half.db", "is damaged"),
        ("odd.db", "is damaged"),
        ("stub.db", "is damaged"),
        ("emptied.db", "is empty or gone, but its log"),
        ("newer.db", "was written by a newer conga (schema 99"),
        ("songs.db", "is the database of another program; choose another file"),
        (
            "folder",
            "is a directory; name a file in it, as in --store sqlite:folder/conga.db",
        ),
        ("none/conga.db", "see that its directory exists"),
    ] {
        for command in [
            &["status"][..],
            &["send", "--count", "1"],
            &["receive"],
            &["receive", "--follow"],
            &["process"],
            &["sequence"],
            &["run"],
        ] {
            let url = format!("sqlite:{name}");
            let said = refused(&place, &[command, &["--store", &url]].concat(), 1);
            assert!(said.contains(says) && said.contains(name), "{command:?} {name}: {said}");
            assert_eq!(said.lines().count(), 1, "{command:?} {name}: {said}");
            let after = files(&place);
            let names = |files: &[(std::path::PathBuf, Vec<u8>)]| -> Vec<_> {
                files.iter().map(|(path, _)| path.clone()).collect()
            };
            assert_eq!(names(&after), names(&before), "{command:?} {name}");
            assert!(after == before, "{command:?} changed {name}");
        }
    }
}

/// A file of no bytes is a store that is new.
#[test]
fn an_empty_file_becomes_a_store() {
    let place = Place::sqlite();
    std::fs::write(place.path().join("conga.db"), "").expect("written");
    assert_eq!(place.json(&["send", "--count", "3", "--json"])["sent"], 3);
    assert_eq!(place.json(&["status", "--json"])["waiting"], 3);
}

/// What this user may not write says so, and stays as it is. Root may write anywhere, so another user runs it then.
#[test]
fn a_file_that_may_not_be_written_is_refused() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    let place = Place::sqlite();
    place.done(&["send", "--count", "3"]);
    let file = place.path().join("conga.db");
    let before = std::fs::read(&file).expect("read");
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    let root = std::fs::metadata(&file).expect("a file").uid() == 0;
    for (folder_mode, file_mode) in [(0o777, 0o444), (0o555, 0o444), (0o555, 0o666)] {
        allow(place.path(), 0o777);
        allow(&file, file_mode);
        allow(place.path(), folder_mode);
        for args in [&["status"][..], &["send", "--count", "1"], &["process"]] {
            let mut command = place.conga(args);
            if root {
                command.uid(NOBODY).gid(NOBODY);
            }
            let output = command.stdin(Stdio::null()).output().expect("conga starts");
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!("{args:?} with {folder_mode:o} and {file_mode:o}: {said}");
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert!(
                said.contains("write permission") || said.contains("may write there"),
                "{what}"
            );
            assert_eq!(std::fs::read(&file).expect("read"), before, "{what}");
        }
    }
    allow(place.path(), 0o777);
    allow(&file, 0o666);
    assert_eq!(place.json(&["status", "--json"])["waiting"], 3);
}
