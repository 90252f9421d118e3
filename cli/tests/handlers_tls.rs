//! Handlers behind https and HTTP/2: real servers of Node, with certificates made for the test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Answers with how it was asked: the protocol, whether it was encrypted, how many connections there were so far, the body.
/// Arguments: the kind of server, and the folder with its certificate.
const SERVER: &str = r#"
const [kind, folder] = process.argv.slice(1);
const { readFileSync, writeFileSync } = require("node:fs");
const module = require(kind === "http" || kind === "https" ? `node:${kind}` : "node:http2");
const tls = () => ({ key: readFileSync(`${folder}/server.key`), cert: readFileSync(`${folder}/server.crt`) });
let connections = 0;
const answer = (request, response) => {
  writeFileSync(`${folder}/asked`, "");
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    const how = [request.httpVersion, !!request.socket.encrypted, connections, JSON.parse(body)];
    // Some wait for others, so that several are on their way.
    setTimeout(() => response.end(JSON.stringify(how)), 20);
  });
};
const server = kind === "http" ? module.createServer(answer)
  : kind === "https" ? module.createServer(tls(), answer)
  : kind === "h2c" ? module.createServer(answer)
  : module.createSecureServer({ ...tls(), allowHTTP1: kind === "h2+1" }, answer);
server.on(kind === "https" || kind.startsWith("h2") && kind !== "h2c" ? "secureConnection" : "connection", () => connections++);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;

/// A server that ends with its test.
struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(kind: &str, folder: &Path) -> Server {
    let mut child = Command::new("node")
        .args(["-e", SERVER, kind])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut port).unwrap();
    Server(child, port.trim().to_owned())
}

/// A root certificate `root.crt`, and one for a server called `name` that it signs.
fn certificates(folder: &Path, name: &str) {
    let openssl = |arguments: &str| {
        let made = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "{new} -x509 -days 2 -keyout root.key -out root.crt -subj /CN=root"
    ));
    openssl(&format!("{new} -keyout server.key -out server.csr -subj /CN=server"));
    std::fs::write(
        folder.join("names"),
        format!("subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n"),
    )
    .unwrap();
    openssl(
        "x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2 -extfile names -out server.crt",
    );
}

/// What `conga pipe` makes of the numbers from 1 to 20, trusting nobody but the folder's root.
fn pipe(url: &str, folder: &Path, more: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_conga"))
        .args(["pipe", "--timeout", "20s", "--max-attempts", "1", "--handler", url])
        .args(more)
        .env("SSL_CERT_FILE", folder.join("root.crt"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in 1..=20 {
        writeln!(stdin, "{number}").unwrap();
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// How the server was asked, of each message; the payloads have to be the numbers in their order.
fn answers(output: &Output) -> Vec<(String, bool, u64)> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<(String, bool, u64, serde_json::Value)> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers = lines.iter().map(|line| line.3.to_string().replace('"', ""));
    assert!(numbers.eq((1..=20).map(|number| number.to_string())), "{text}");
    lines
        .into_iter()
        .map(|(version, encrypted, connections, _)| (version, encrypted, connections))
        .collect()
}

#[test]
fn https_speaks_what_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), "localhost");
    for (kind, version) in [("https", "1.1"), ("h2", "2.0"), ("h2+1", "2.0")] {
        let server = serve(kind, folder.path());
        let output = pipe(&format!("https://localhost:{}/", server.1), folder.path(), &[]);
        let answers = answers(&output);
        assert!(
            answers
                .iter()
                .all(|(spoken, encrypted, _)| spoken == version && *encrypted),
            "{kind}: {answers:?}"
        );
    }
}

#[test]
fn http_2_without_tls_is_spoken_over_one_connection_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve("h2c", folder.path());
    let url = format!("http://127.0.0.1:{}/", server.1);
    let answers = answers(&pipe(&url, folder.path(), &["--http2"]));
    assert!(
        answers.iter().all(|answer| *answer == ("2.0".to_owned(), false, 1)),
        "{answers:?}"
    );
}

#[test]
fn http_1_is_spoken_without_tls_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve("http", folder.path());
    let url = format!("http://127.0.0.1:{}/", server.1);
    let answers = answers(&pipe(&url, folder.path(), &[]));
    assert!(
        answers
            .iter()
            .all(|(spoken, encrypted, _)| spoken == "1.1" && !encrypted),
        "{answers:?}"
    );
}

/// No message goes to a server that is not the one it says it is.
#[test]
fn a_certificate_of_another_name_or_another_root_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(folder.path(), "elsewhere.test");
    certificates(other.path(), "localhost");
    for served in [&folder, &other] {
        let server = serve("h2", served.path());
        let output = pipe(&format!("https://localhost:{}/", server.1), folder.path(), &[]);
        assert_eq!(output.status.code(), Some(1), "each line is dead");
        assert_eq!(output.stdout, b"\n".repeat(20));
        assert!(!served.path().join("asked").exists());
    }
}
