//! The examples of handlers, as they stand in their folder: lines go through each of them, in order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `conga pipe` makes of the numbers from 1 to 50.
fn pipe(handler: &str, more: &[&str]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut child = Command::new(env!("CARGO_BIN_EXE_conga"))
        .args(["pipe", "--timeout", "20s", "--handler", handler])
        .args(more)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in 1..=50 {
        writeln!(stdin, "{number}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn numbers() -> Vec<String> {
    (1..=50).map(|number| number.to_string()).collect()
}

/// Starts a server that tells its port.
fn serve(program: &str, script: &str, more: &[&str]) -> (Server, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/handlers")
        .join(script);
    let mut child = Command::new(program)
        .arg(script)
        .args(["0", "0"])
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    (Server(child), format!("http://127.0.0.1:{}/", port.trim()))
}

#[test]
fn a_shell_script_answers_one_after_the_other() {
    let lines = pipe("exec:examples/handlers/shell/exec.sh", &["--workers", "2"]);
    assert_eq!(lines.len(), 50);
    assert!(lines.iter().all(|line| line.ends_with(" bytes")), "{lines:?}");
}

#[test]
fn python_answers_many_at_once() {
    let more = ["--workers", "1", "--exec-at-once", "50", "--exec-ready", "20s"];
    for script in ["exec.py", "exec_async.py"] {
        let handler = format!("exec:python3 examples/handlers/python/{script} 0.05");
        assert_eq!(pipe(&handler, &more), numbers(), "{script}");
        assert_eq!(pipe(&handler, &more[..4]), numbers(), "{script}");
    }
}

#[test]
fn node_answers_many_at_once() {
    let more = ["--workers", "1", "--exec-at-once", "50"];
    assert_eq!(pipe("exec:node examples/handlers/node/exec.mjs 50", &more), numbers());
}

#[test]
fn a_python_server_gets_events() {
    let (_server, url) = serve("python3", "python/server.py", &[]);
    assert_eq!(pipe(&url, &[]), numbers());
}

#[test]
fn a_node_server_gets_events() {
    let (_server, url) = serve("node", "node/server.mjs", &[]);
    assert_eq!(pipe(&url, &[]), numbers());
    let (_server, url) = serve("node", "node/server.mjs", &["h2"]);
    assert_eq!(pipe(&url, &["--http2"]), numbers());
}
