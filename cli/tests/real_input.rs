//! Real input: the stanzas of Debian's package index, through the whole line, byte for byte.

mod support;

use std::process::Command;

use support::Place;

/// So many of them: each debug build and each disk has to get through.
const STANZAS: usize = 20_000;

/// Debian's package index, a stanza a record.
fn stanzas() -> Vec<String> {
    let index = Command::new("apt-cache").arg("dumpavail").output();
    let text = index.map(|output| output.stdout).unwrap_or_default();
    let stanzas: Vec<String> = String::from_utf8_lossy(&text)
        .split("\n\n")
        .filter(|stanza| stanza.starts_with("Package:"))
        .take(STANZAS)
        .map(str::to_owned)
        .collect();
    assert_eq!(
        stanzas.len(),
        STANZAS,
        "this test reads Debian's package index: run `apt-get update` on Debian, then try again"
    );
    stanzas
}

/// Through all four commands: NDJSON in, payloads out.
fn through_the_line(place: &Place) {
    let stanzas = stanzas();
    let mut input = String::new();
    for (index, stanza) in stanzas.iter().enumerate() {
        let line = serde_json::json!({ "sequence": index + 1, "payload": stanza });
        input.push_str(&line.to_string());
        input.push('\n');
    }
    std::fs::write(place.path().join("in.ndjson"), &input).expect("written");
    let processors = [1, 2].map(|_| place.service(&["process", "--handler", "sleep:0ms..2ms"]));
    let sequencers = [1, 2].map(|_| place.service(&["sequence"]));
    let sent = place.json(&["send", "in.ndjson", "--json"]);
    assert_eq!(sent["sent"], STANZAS);
    let output = place.done(&["receive", "--count", &STANZAS.to_string()]);
    std::fs::write(place.path().join("out.ndjson"), &output).expect("written");
    let mut outputs = output.split(|byte| *byte == b'\n');
    for (index, stanza) in stanzas.iter().enumerate() {
        let output = support::parse(outputs.next().expect("an output"));
        assert_eq!(output["position"], index + 1);
        assert_eq!(output["payload"], *stanza);
    }
    assert_eq!(outputs.next(), Some(&b""[..]), "nothing comes after the last");
    let verdict = place.json(&["verify", "out.ndjson", "--sent", "in.ndjson", "--json"]);
    assert_eq!(
        (&verdict["passed"], &verdict["delivered"]),
        (&true.into(), &STANZAS.into())
    );
    let done: u64 = processors
        .into_iter()
        .map(|service| service.end()["done"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(done, STANZAS as u64);
    sequencers.into_iter().for_each(|service| drop(service.end()));
    let status = place.json(&["status", "--json"]);
    assert_eq!((&status["recorded"], &status["output"]), (&STANZAS.into(), &0.into()));
}

#[test]
fn through_the_line_on_sqlite() {
    through_the_line(&Place::sqlite());
}

#[test]
fn through_the_line_on_redis() {
    through_the_line(&Place::redis());
}

/// Through the pipe: a stanza a line, as JSON strings, but to the pipe any bytes.
#[test]
fn through_the_pipe() {
    let place = Place::sqlite();
    let mut input: Vec<u8> = Vec::new();
    for stanza in stanzas() {
        input.extend_from_slice(serde_json::Value::from(stanza).to_string().as_bytes());
        input.push(b'\n');
    }
    input.extend_from_slice(b"not \xff UTF-8\n\n{\"payload\":1}\n[] \n");
    let output = place.fed(&["pipe", "--handler", "sleep:0ms..2ms"], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.stdout == input,
        "{} bytes went in, {} came out",
        input.len(),
        output.stdout.len()
    );
}
