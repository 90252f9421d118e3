//! A line at work in real processes: a producer, processors, sequencers and a consumer, and what came of it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{Place, parse};

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Polls until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process, killed when it is dropped.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) child: Child,
    /// Its end tells a service to end.
    tie: Option<ChildStdin>,
    /// What it says, up to now.
    stderr: Arc<Mutex<String>>,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn said(&self) -> String {
        self.stderr.lock().expect("no panic").clone()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a consumer got, and when.
#[derive(Default)]
struct Got {
    lines: Vec<String>,
    at: Vec<Instant>,
}

/// A line at work.
pub(crate) struct Flow<'a> {
    place: &'a Place,
    /// A program that starts the others, and its arguments.
    through: Vec<String>,
    /// Variables for all of them.
    variables: Vec<(String, String)>,
    pub(crate) services: Vec<Process>,
    consumer: Option<Process>,
    got: Arc<Mutex<Got>>,
    reader: Option<JoinHandle<()>>,
    started: usize,
}

impl<'a> Flow<'a> {
    /// Nobody works yet.
    pub(crate) fn new(place: &'a Place) -> Self {
        Self {
            place,
            through: Vec::new(),
            variables: Vec::new(),
            services: Vec::new(),
            consumer: None,
            got: Arc::default(),
            reader: None,
            started: 0,
        }
    }

    /// Has all that is started from here on started through a program.
    pub(crate) fn through(&mut self, program: &[&str]) {
        self.through = program.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Gives all that is started from here on a variable.
    pub(crate) fn with(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The program, as the flow starts it.
    pub(crate) fn conga(&self, args: &[&str]) -> Command {
        let plain = self.place.conga(args);
        let mut command = match self.through.split_first() {
            None => plain,
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command
                    .args(rest)
                    .arg(plain.get_program())
                    .args(args)
                    .current_dir(self.place.path())
                    .env("CONGA_STORE", &self.place.url)
                    .env_remove("CONGA_LOG");
                command
            }
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the program and lets it run.
    pub(crate) fn start(&mut self, args: &[&str]) -> Process {
        self.started += 1;
        let name = format!("{}-{}", args[0], self.started);
        let mut child = self
            .conga(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conga starts");
        // A pipe and no file, since that could be too large too where the size of files is limited.
        let stderr = Arc::new(Mutex::new(String::new()));
        let (from, said) = (child.stderr.take().expect("standard error"), Arc::clone(&stderr));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                said.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        Process {
            name,
            tie: child.stdin.take(),
            child,
            stderr,
        }
    }

    /// Starts services, and waits until each of them works.
    pub(crate) fn serve(&mut self, each: &[&[&str]]) {
        for args in each {
            let mut service = self.start(&[args, &["--json", "--tied"][..]].concat());
            let mut line = String::new();
            let stdout = service.child.stdout.as_mut().expect("standard output");
            BufReader::new(stdout).read_line(&mut line).expect("a line");
            assert_eq!(
                parse(line.as_bytes())["event"],
                "ready",
                "{}: {}",
                service.name,
                service.said()
            );
            self.services.push(service);
        }
    }

    /// Three processors and two sequencers, under these arguments.
    pub(crate) fn serve_all(&mut self, processor: &[&str]) {
        let processor = [&["process"], processor].concat();
        let sequencer = ["sequence"];
        self.serve(&[&sequencer, &processor, &processor, &processor, &sequencer]);
    }

    /// Starts the consumer.
    pub(crate) fn consume(&mut self) {
        let mut consumer = self.start(&["receive", "--follow"]);
        let stdout = consumer.child.stdout.take().expect("standard output");
        let got = Arc::clone(&self.got);
        self.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("a line");
                let mut got = got.lock().expect("no panic");
                got.lines.push(line);
                got.at.push(Instant::now());
            }
        }));
        self.consumer = Some(consumer);
    }

    /// Starts a producer of `count` messages, at a rate if there is one. It goes on trying.
    pub(crate) fn produce(&mut self, count: u64, rate: Option<u64>) -> Process {
        let (count, rate) = (count.to_string(), rate.map(|rate| rate.to_string()));
        let mut args = vec!["send", "--json", "--count", &count];
        if let Some(rate) = &rate {
            args.extend(["--rate", rate]);
        }
        self.start(&args)
    }

    /// How many came out.
    pub(crate) fn delivered(&self) -> usize {
        self.got.lock().expect("no panic").lines.len()
    }

    /// When the first output after `moment` came.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Instant> {
        let got = self.got.lock().expect("no panic");
        let index = got.at.partition_point(|at| *at <= moment);
        got.at.get(index).copied()
    }

    /// The longest time without an output between two moments.
    pub(crate) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let got = self.got.lock().expect("no panic");
        let within = got.at.iter().copied().filter(|at| (from..to).contains(at));
        let all: Vec<Instant> = std::iter::once(from).chain(within).chain([to]).collect();
        all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Waits until so many came out, with all at work.
    pub(crate) fn wait_until_delivered(&mut self, count: usize) {
        wait_for(&format!("{count} outputs"), || {
            self.all_run();
            (self.delivered() >= count).then_some(())
        });
    }

    /// How long it took from the end of a fault until something came out.
    pub(crate) fn stall(&mut self, end: Instant) -> Duration {
        let first = wait_for("an output after the fault", || {
            self.all_run();
            self.first_after(end)
        });
        first - end
    }

    /// No service may end by itself, whatever happens.
    pub(crate) fn all_run(&mut self) {
        for service in self.services.iter_mut().chain(&mut self.consumer) {
            assert!(service.runs(), "{} has ended: {}", service.name, service.said());
        }
    }

    /// All processes that run on, by name and number.
    pub(crate) fn members(&self) -> Vec<(String, u32)> {
        let all = self.services.iter().chain(&self.consumer);
        all.map(|process| (process.name.clone(), process.pid())).collect()
    }

    /// What each service has said.
    pub(crate) fn said(&self) -> Vec<(String, String)> {
        let all = self.services.iter().chain(&self.consumer);
        all.map(|process| (process.name.clone(), process.said())).collect()
    }

    /// Each service has complained so often at most: one that repeats itself is read by nobody.
    pub(crate) fn complain_at_most(&self, limit: usize) {
        for (name, said) in self.said() {
            let complaints = complaints(&said);
            assert!(complaints.len() <= limit, "{name} repeats itself: {complaints:#?}");
        }
    }

    /// Takes out the producer, which was started as one of the services.
    pub(crate) fn take_producer(&mut self) -> Process {
        let is_producer = |process: &Process| process.name.starts_with("send");
        let index = self.services.iter().position(is_producer).expect("the producer");
        self.services.remove(index)
    }

    /// The line's figures.
    pub(crate) fn status(&self) -> Value {
        let output = self.conga(&["status", "--json"]).output().expect("conga starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        parse(&output.stdout)
    }

    /// Ends all, each of them cleanly, then judges: each of `count` messages came out once, in the order in which they
    /// were sent, and as the record has it; and the file is whole.
    pub(crate) fn judge(mut self, count: usize) {
        self.wait_until_delivered(count);
        wait_for("the consumer's last acknowledgement", || {
            (self.status()["output"] == 0).then_some(())
        });
        for service in &mut self.services {
            drop(service.tie.take());
        }
        for mut service in self.services.drain(..) {
            let ended = service.child.wait().expect("it ends");
            assert!(ended.success(), "{}: {ended}, {}", service.name, service.said());
        }
        let status = self.status();
        for what in ["waiting", "in_flight", "processed", "output", "dead"] {
            assert_eq!(status[what], 0, "{status}");
        }
        assert_eq!(status["recorded"], count, "{status}");
        drop(self.consumer.take());
        self.reader.take().map(JoinHandle::join);
        let got = std::mem::take(&mut *self.got.lock().expect("no panic"));
        self.verify(count, &got.lines);
    }

    fn verify(&self, count: usize, lines: &[String]) {
        let file = self.place.path().join("out.ndjson");
        std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("written");
        // A message that a producer sent twice, not knowing that it had got there, leaves its second position empty.
        let verdict = self.place.json(&[
            "verify",
            "out.ndjson",
            "--json",
            "--gaps",
            "--count",
            &count.to_string(),
        ]);
        assert_eq!(verdict["passed"], true, "{verdict}");
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let outputs: Vec<Value> = lines.iter().map(|line| parse(line.as_bytes())).collect();
        for output in &outputs {
            let (run, number) = output["id"].as_str().and_then(|id| id.split_once('-')).expect("an id");
            let number = number.parse().expect("a number");
            numbers.entry(run.to_owned()).or_default().push(number);
        }
        for (run, numbers) in numbers {
            let wanted = 1..=numbers.len() as u64;
            assert!(numbers.iter().copied().eq(wanted), "{run} came out as {numbers:?}");
        }
        if self.place.server.is_none() {
            self.verify_file(&outputs);
        }
    }

    /// The file is whole, and has each output in the record as it came out.
    fn verify_file(&self, outputs: &[Value]) {
        let database = open(self.place);
        let check: String = database
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("a check");
        assert_eq!(check, "ok");
        let mut records = database
            .prepare("SELECT position, id, payload, attempts FROM record ORDER BY position")
            .expect("the record");
        let records = records
            .query_map([], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })
            .expect("the record");
        let mut recorded = 0;
        for (record, output) in records.zip(outputs) {
            let (position, id, payload, attempts) = record.expect("a record");
            assert_eq!(output["position"], position);
            assert_eq!(output["id"], id);
            assert_eq!(output["payload"], parse(payload.as_bytes()));
            assert_eq!(output["attempts"], attempts);
            recorded += 1;
        }
        assert_eq!(recorded, outputs.len(), "each output is as its record");
    }
}

/// The file of a place.
pub(crate) fn file_of(place: &Place) -> PathBuf {
    PathBuf::from(place.url.strip_prefix("sqlite:").expect("a file"))
}

/// The log of a place's file.
pub(crate) fn log_of(place: &Place) -> PathBuf {
    let mut name = file_of(place).into_os_string();
    name.push("-wal");
    name.into()
}

/// The size of a place's log.
pub(crate) fn log_size(place: &Place) -> u64 {
    std::fs::metadata(log_of(place)).map_or(0, |log| log.len())
}

/// Another tool's connection to a place's file.
pub(crate) fn open(place: &Place) -> Connection {
    let connection = Connection::open(file_of(place)).expect("a connection");
    connection.busy_timeout(Duration::from_secs(30)).expect("a timeout");
    connection
}

/// Waits for a process to end well, and answers what it printed.
pub(crate) fn ended(mut process: Process) -> Value {
    let mut text = Vec::new();
    let stdout = process.child.stdout.as_mut().expect("standard output");
    stdout.read_to_end(&mut text).expect("read");
    let ended = process.child.wait().expect("it ends");
    assert!(ended.success(), "{}: {ended}, {}", process.name, process.said());
    parse(&text)
}

/// Lines of a warning or an error.
pub(crate) fn complaints(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect()
}
