//! A foreign client: nothing but RESP over a socket on one side, Conga's services on the other.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Place, parse};

/// As much of a client as `LPUSH` and `RPOP` need.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(place: &Place) -> Self {
        let port = place.server.as_ref().expect("a server").port();
        Self(BufReader::new(
            TcpStream::connect(("127.0.0.1", port)).expect("a connection"),
        ))
    }

    /// One command; a bulk string, or nothing for nil and for numbers.
    fn call(&mut self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut command = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            command.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            command.extend_from_slice(part);
            command.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&command).expect("sent");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        match line.split_at(1) {
            (":", _) => None,
            ("$", size) => {
                let size: i64 = size.trim().parse().expect("a size");
                let size = usize::try_from(size).ok()?;
                let mut bytes = vec![0; size + 2];
                self.0.read_exact(&mut bytes).expect("a value");
                bytes.truncate(size);
                Some(bytes)
            }
            _ => panic!("{parts:?}: {line}"),
        }
    }

    fn push(&mut self, entry: &[u8]) {
        self.call(&[b"LPUSH", b"{orders}:in", entry]);
    }

    /// Takes outputs until there are `count`.
    fn pop(&mut self, count: usize) -> Vec<Value> {
        let mut outputs = Vec::new();
        let limit = Instant::now() + Duration::from_mins(1);
        while outputs.len() < count {
            match self.call(&[b"RPOP", b"{orders}:out"]) {
                Some(output) => outputs.push(parse(&output)),
                None => std::thread::yield_now(),
            }
            assert!(Instant::now() < limit, "only {} of {count} came out", outputs.len());
        }
        outputs
    }
}

fn envelope(sequence: usize) -> Vec<u8> {
    format!(r#"{{"sequence":{sequence},"payload":{{"n":{sequence}}}}}"#).into_bytes()
}

/// Not JSON, JSON that is cut off, not UTF-8, empty, and 5 MB.
fn garbage() -> [Vec<u8>; 5] {
    [
        b"plain text".to_vec(),
        b"{\"sequence\":7,\"payload\":".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        Vec::new(),
        vec![b'x'; 5_000_000],
    ]
}

#[test]
fn all_of_it_comes_out_in_order() {
    let place = Place::redis();
    let _processors = [1, 2].map(|_| {
        place.service(&[
            "process",
            "--line",
            "orders",
            "--handler",
            "sleep:0ms..5ms",
            "--delivery",
            "leader",
        ])
    });
    let sequencer = place.service(&["sequence", "--line", "orders"]);
    let mut client = Client::connect(&place);
    for sequence in 1..=500 {
        client.push(&envelope(sequence));
    }
    let outputs = client.pop(500);
    for (index, output) in outputs.iter().enumerate() {
        let number = index + 1;
        assert_eq!(output["position"], number);
        assert_eq!(output["sequence"], number);
        assert_eq!(output["id"], number.to_string());
        assert_eq!(output["payload"]["n"], number);
        let record = client.call(&[b"HGET", b"{orders}:record", number.to_string().as_bytes()]);
        assert_eq!(parse(&record.expect("a record")), *output);
    }
    assert_eq!(sequencer.end()["emitted"], 500);
}

/// Where only envelopes may come in, anything else becomes a dead letter with its reason, and the rest flows.
#[test]
fn garbage_becomes_dead_letters_where_envelopes_are_asked_for() {
    let place = Place::redis();
    let processor = place.service(&["process", "--line", "orders", "--input", "envelope"]);
    let _sequencer = place.service(&["sequence", "--line", "orders"]);
    let mut client = Client::connect(&place);
    client.push(&envelope(1));
    for entry in garbage() {
        client.push(&entry);
    }
    client.push(&envelope(2));
    let outputs = client.pop(7);
    let reasons: Vec<&str> = outputs[1..6]
        .iter()
        .filter_map(|output| output["dead"]["reason"].as_str())
        .collect();
    assert_eq!(reasons.len(), 5, "{outputs:?}");
    for reason in &reasons[..4] {
        assert!(reason.starts_with("not an envelope"), "{reason}");
    }
    assert_eq!(reasons[4], "too large: 5000000 bytes, the limit is 1048576");
    assert_eq!(
        (&outputs[0]["sequence"], &outputs[6]["sequence"]),
        (&1.into(), &2.into())
    );
    assert_eq!(place.json(&["status", "--line", "orders", "--json"])["dead"], 5);
    assert_eq!(processor.end()["dead"], 5);
}

/// Without being told so, any bytes are a payload as a whole: only what is too large is dead.
#[test]
fn any_bytes_are_a_payload() {
    let place = Place::redis();
    let _processor = place.service(&["process", "--line", "orders"]);
    let _sequencer = place.service(&["sequence", "--line", "orders"]);
    let mut client = Client::connect(&place);
    client.push(&envelope(1));
    for entry in garbage() {
        client.push(&entry);
    }
    client.push(br#"{"sequence":-1,"payload":0}"#);
    client.push(&envelope(2));
    let outputs = client.pop(8);
    assert_eq!(outputs[1]["payload"], "plain text");
    assert_eq!(outputs[1]["id"], "@2");
    assert_eq!(outputs[2]["payload"], "{\"sequence\":7,\"payload\":");
    assert_eq!(outputs[3]["payload_base64"], "//4A");
    assert_eq!(outputs[4]["payload"], "");
    assert_eq!(
        outputs[5]["dead"]["reason"],
        "too large: 5000000 bytes, the limit is 1048576"
    );
    let reason = outputs[6]["dead"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("bad `sequence` in the envelope"), "{reason}");
    assert_eq!(outputs[7]["sequence"], 2);
}
