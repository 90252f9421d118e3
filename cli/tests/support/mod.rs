//! What the tests of the command line have in common: the program, places for lines, services as processes.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod letters;
#[path = "../../src/bench/redis_server.rs"]
mod redis_server;

#[path = "../../src/bench/redis_ask.rs"]
pub(crate) mod redis_ask;
#[path = "../../src/bench/redis_cluster.rs"]
pub(crate) mod redis_cluster;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use redis_server::RedisServer;
use serde_json::Value;
use tempfile::TempDir;

/// Returns once `done` says so.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited for {what}");
    }
}

/// A place for lines, gone with the test.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    pub(crate) server: Option<RedisServer>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            url: format!("sqlite:{}", folder.path().join("conga.db").display()),
            folder,
            server: None,
        }
    }

    pub(crate) fn redis() -> Self {
        let server = RedisServer::start(&[]).expect("a Redis server");
        Self {
            url: server.url(),
            folder: tempfile::tempdir().expect("a folder"),
            server: Some(server),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program, in the place's folder and on its store.
    pub(crate) fn conga(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conga"));
        command
            .args(args)
            .current_dir(self.path())
            .env("CONGA_STORE", &self.url)
            .env_remove("CONGA_LOG");
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.conga(args).stdin(Stdio::null()).output().expect("conga starts")
    }

    /// Runs the program to its end, which must be a good one.
    pub(crate) fn done(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "conga {args:?}: {}\n{said}", output.status);
        output.stdout
    }

    /// As [`Place::done`], with one JSON object as the answer.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        parse(&self.done(args))
    }

    /// What is known of the line.
    pub(crate) fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// Has a producer send the first `part` bytes of `text`, kills it, whatever it had on its way, and starts another that sends all
    /// of it, from the file `in.txt`.
    pub(crate) fn send_again(&self, send: &[&str], text: &str, part: usize) -> Child {
        std::fs::write(self.path().join("in.txt"), text).expect("written");
        let mut child = self
            .conga(send)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("conga starts");
        let mut pipe = child.stdin.take().expect("standard input");
        pipe.write_all(&text.as_bytes()[..part]).expect("taken");
        wait_for("some to be sent", || number(&self.status()["next"]) > 1);
        child.kill().expect("killed");
        child.wait().expect("gone");
        drop(pipe);
        self.conga(&[send, &["in.txt"]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("conga starts")
    }

    /// Runs the program with `input` on its standard input.
    pub(crate) fn fed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .conga(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conga starts");
        let mut to = child.stdin.take().expect("standard input");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A program that ends early is seen by what it says.
                let _ = to.write_all(input);
            });
            child.wait_with_output().expect("conga ends")
        })
    }

    /// Starts the program, and what it prints.
    pub(crate) fn printing(&self, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut child = self
            .conga(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("conga starts");
        let printed = BufReader::new(child.stdout.take().expect("standard output"));
        (child, printed)
    }

    /// Starts a service and waits until it works.
    pub(crate) fn service(&self, args: &[&str]) -> Service {
        let mut child = self
            .conga(args)
            .args(["--json", "--tied"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("conga starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output");
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line).expect("a line");
        assert_eq!(parse(line.as_bytes())["event"], "ready", "conga {args:?}");
        Service { child, reader }
    }
}

/// How many scripts the server at this port has run.
pub(crate) fn scripts(port: u16) -> u64 {
    let stats = redis_ask::ask(port, &["INFO", "commandstats"])
        .expect("statistics")
        .text();
    let calls = stats
        .split_once("cmdstat_evalsha:calls=")
        .and_then(|(_, rest)| rest.split(',').next());
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(0)
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

pub(crate) fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

/// A service, killed with the test if it was not told to end.
pub(crate) struct Service {
    child: Child,
    reader: BufReader<ChildStdout>,
}

impl Service {
    /// Tells it to end, and answers what it says about its work.
    pub(crate) fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        assert!(self.child.wait().expect("it ends").success());
        parse(line.as_bytes())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
