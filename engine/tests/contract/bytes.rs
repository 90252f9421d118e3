//! Whatever bytes come in: they are kept as they are.

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Entry, Format, Payload, Record, parse};
use conga::core::partition::{Claim, ClaimRequest, Completion, Limits};

use crate::Fixture;
use crate::pair::{Pair, ask, dead, record};

fn garbage() -> Vec<Bytes> {
    let large: Vec<u8> = (0..2_u32 << 20)
        .map(|byte| u8::try_from(byte % 251).unwrap_or(0))
        .collect();
    vec![
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"a\0b\0"),
        Bytes::from_static(b"\xff\xfe\x80"),
        Bytes::from_static(b"{\"payload\":"),
        Bytes::from_static(b"{\"id\":\"\",\"payload\":1}"),
        Bytes::from_static(b"null"),
        Bytes::from_static(b" 1.50e400 "),
        Bytes::from_static(b"\r\n$5\r\nhello\r\n"),
        Bytes::from_static(b"'); DROP TABLE input; --"),
        Bytes::from_static("💃\u{2028}\u{feff}".as_bytes()),
        Bytes::from((0..=255).collect::<Vec<u8>>()),
        Bytes::from(large),
    ]
}

/// Without any limit on the size of an entry.
async fn take_all(pair: &Pair, count: usize) -> Vec<Claim> {
    let request = ClaimRequest {
        limits: Limits {
            entry_bytes: 16 << 20,
            total_bytes: 64 << 20,
        },
        ..ask("p", count)
    };
    pair.claim(&request).await
}

/// A handler that answers with what it was given.
fn echo(claim: &Claim) -> Completion {
    let input = parse(&claim.entry, claim.position, Format::Any, u64::MAX);
    let payload = match (input, &claim.entry) {
        (Ok(input), _) => input.payload,
        (Err(_), Entry::Whole(bytes)) => Payload::bytes(bytes),
        (Err(_), Entry::Oversize { .. }) => Payload::string("too large"),
    };
    Completion::Done(Record {
        body: Body::Result(payload),
        ..record(claim)
    })
}

pub(crate) async fn garbage_comes_through_as_it_is<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let garbage = garbage();
    pair.send(&garbage).await;
    let claims = take_all(&pair, garbage.len()).await;
    for (claim, sent) in claims.iter().zip(&garbage) {
        assert_eq!(claim.entry, Entry::Whole(sent.clone()));
    }
    let completions: Vec<_> = claims.iter().map(echo).collect();
    pair.complete(&OwnerId::new("p"), &completions).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await.len(), garbage.len());
    pair.finish().await;
}

pub(crate) async fn garbage_is_buried_as_it_is<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let garbage = garbage();
    pair.send(&garbage).await;
    let claims = pair.take("p", garbage.len()).await;
    assert_eq!(
        claims[garbage.len() - 1].entry,
        Entry::Oversize { bytes: 2 << 20 },
        "more than the usual limit"
    );
    let completions: Vec<_> = claims
        .iter()
        .map(|claim| dead(claim, claim.position.0 % 2 == 0))
        .collect();
    pair.complete(&OwnerId::new("p"), &completions).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    pair.finish().await;
}

pub(crate) async fn odd_ids_keys_and_numbers<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let long = "é".repeat(250);
    let texts = [
        "it's \"quoted\" \\ `so`",
        "two\nlines\r\n\ttab",
        "nul\0nul",
        "💃🏽\u{202e}",
        "{orders}:in",
        "*?[a-z]",
        " ",
        "@x",
        "0",
        "00",
        "-1",
        "1e3",
        "nil",
        "null",
        "%s%d{}",
        long.as_str(),
    ];
    let mut entries: Vec<Bytes> = texts
        .iter()
        .map(|text| {
            serde_json::json!({"id": text, "key": text, "payload": text})
                .to_string()
                .into()
        })
        .collect();
    entries.extend(
        [
            r#"{"sequence":18446744073709551615,"payload":1}"#,
            r#"{"sequence":9223372036854775808,"payload":1}"#,
            r#"{"sequence":9007199254740993,"payload":1}"#,
            r#"{"sequence":1,"id":"given","key":"","payload":null}"#,
            r#"{"sequence":7,"payload":18446744073709551615}"#,
        ]
        .map(|text| Bytes::from_static(text.as_bytes())),
    );
    pair.send(&entries).await;
    let claims = pair.take("p", entries.len()).await;
    let completions: Vec<_> = claims
        .iter()
        .enumerate()
        .map(|(index, claim)| if index % 5 == 4 { dead(claim, true) } else { echo(claim) })
        .collect();
    pair.complete(&OwnerId::new("p"), &completions).await;
    let (_, ready) = pair.ready().await;
    assert_eq!(ready.len(), entries.len());
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await.len(), entries.len());
    pair.finish().await;
}

pub(crate) async fn every_payload_comes_out_as_it_went_in<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let payloads = [
        r#"{"b": 1.50,  "a":[ ], "b":2}"#,
        "1e400",
        "-0.0",
        "123456789012345678901234567890",
        r#""\u0000\ud83d\udc83\/""#,
        "true",
        r#"[[[[[["deep"]]]]]]"#,
        r#"{"":{}}"#,
    ];
    let entries: Vec<_> = payloads
        .iter()
        .map(|payload| Bytes::from(format!("{{\"payload\":{payload}}}")))
        .collect();
    pair.send(&entries).await;
    let claims = pair.take("p", entries.len()).await;
    let completions: Vec<_> = claims.iter().map(echo).collect();
    pair.complete(&OwnerId::new("p"), &completions).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    let outputs = pair.receive(None, 99).await;
    for (output, payload) in outputs.iter().zip(payloads) {
        let text = std::str::from_utf8(output).expect("text");
        assert!(text.contains(&format!("\"payload\":{payload},")), "{text}");
    }
    pair.finish().await;
}
