//! Handlers behind HTTP: a real server that answers in every way that is in the table, by real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "an example has a main function")]
#[path = "../examples/http_server.rs"]
mod http_server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conga::clock::Clock;
use conga::core::message::{Body, Output, Payload};
use conga::core::retry::Backoff;
use conga::deliver::Consumer;
use conga::process::http::{Http, HttpOptions};
use conga::process::{Processor, ProcessorOptions};
use conga::send::{Outgoing, Producer};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::{Delivery, SharedStore, memory::MemoryStore};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const MESSAGES: u64 = 400;

/// How a message fares, by its number: so many failures of a kind before it succeeds. Of ten, three fail.
fn fails(number: u64) -> Option<(&'static str, u32)> {
    const WAYS: [&str; 8] = ["429", "503-after", "503", "500", "reset", "late", "length", "400"];
    let way = WAYS[usize::try_from(number / 10 * 3 + number % 10).unwrap() % WAYS.len()];
    (number % 10 < 3).then_some((way, 1 + u32::try_from(number % 2).unwrap()))
}

/// Reads one request: the number in its id, its attempt, its body.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(u64, u32, Vec<u8>)> {
    let (mut number, mut attempt, mut length) = (0, 0, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line == "\r\n" {
                break;
            }
            continue;
        };
        match name {
            "ce-id" => number = value.parse().unwrap(),
            "ce-congaattempt" => attempt = value.parse().unwrap(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((number, attempt, body))
}

async fn serve(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Some((number, attempt, body)) = request(&mut stream).await {
        let way = fails(number).filter(|(way, times)| *way == "400" || attempt <= *times);
        let head = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{more}\r\n");
        let answer = match way.map(|(way, _)| way) {
            None => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
                body.len(),
                String::from_utf8_lossy(&body)
            ),
            Some("429") => head("429 Too Many Requests", "retry-after: 1\r\n"),
            Some("503-after") => head(
                "503 Service Unavailable",
                "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
            ),
            Some("503") => head("503 Service Unavailable", ""),
            Some("500") => head("500 Internal Server Error", ""),
            Some("400") => head("400 Bad Request", ""),
            Some("reset") => {
                stream.get_ref().set_zero_linger().unwrap();
                return;
            }
            Some("late") => {
                // Until the client gives up.
                let _ = stream.read_u8().await;
                return;
            }
            Some(_) => "HTTP/1.1 200 OK\r\ncontent-length: 9z\r\n\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_of_ten_failing_in_every_way_the_order_stays_and_attempts_are_exact() {
    let url = server().await;
    let store: SharedStore = Arc::new(MemoryStore::default());
    let mut options = HttpOptions::new(url.parse().unwrap(), &"orders".parse().unwrap());
    options.timeout = Duration::from_secs(2);
    let processing = ProcessorOptions {
        backoff: Backoff {
            base_us: 1_000,
            ..Backoff::default()
        },
        ..ProcessorOptions::default()
    };
    let stop = CancellationToken::new();
    let processor = Processor::new(store.clone(), Http::new(options).unwrap(), processing);
    let processor = tokio::spawn(processor.run(stop.clone()));
    let sequencer = Sequencer::new(store.clone(), SequencerOptions::default());
    let sequencer = tokio::spawn(sequencer.run(stop.clone()));
    let messages: Vec<Outgoing> = (0..MESSAGES)
        .map(|number| Outgoing {
            id: Some(number.to_string()),
            created: Some(Clock::Store.now()),
            ..Outgoing::new(Payload::json(&Bytes::from(number.to_string())).unwrap())
        })
        .collect();
    Producer::new(store.clone()).send(&messages).await.unwrap();

    let mut consumer = Consumer::new(store);
    let mut number = 0;
    while number < MESSAGES {
        let batch = consumer.next(100).await.unwrap();
        for line in &batch.outputs {
            let record = Output::parse(line).unwrap().record;
            assert_eq!(
                (record.position.0, record.id.as_str()),
                (number + 1, number.to_string().as_str())
            );
            let (attempts, waited) = match (fails(number), &record.body) {
                (Some(("400", _)), Body::Dead { reason }) => {
                    assert_eq!(reason, "HTTP 400 Bad Request");
                    (1, 0)
                }
                (way, Body::Result(payload)) => {
                    assert_eq!(payload.text(), number.to_string());
                    let times = way.map_or(0, |(_, times)| times);
                    let asks = way.is_some_and(|(way, _)| matches!(way, "429" | "503-after"));
                    (1 + times, if asks { u64::from(times) } else { 0 })
                }
                (way, Body::Dead { reason }) => panic!("{number} {way:?}: {reason}"),
            };
            assert_eq!(record.attempts.0, attempts, "{number} {:?}", fails(number));
            // No sooner than it was asked for.
            let waited_us = record.processing.since(record.created);
            assert!(waited_us >= waited * 1_000_000, "{number}: {waited_us}");
            number += 1;
        }
        consumer.acknowledge(&batch);
    }
    consumer.finish().await.unwrap();
    stop.cancel();
    processor.await.unwrap().unwrap();
    sequencer.await.unwrap().unwrap();
}

/// The example of a server, by either protocol, all messages at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_a_handler() {
    let listener = http_server::listen(0).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(http_server::serve(listener, Duration::from_millis(50)));
    for http2 in [false, true] {
        let store: SharedStore = Arc::new(MemoryStore::default().delivering(Delivery::Store));
        let mut options = HttpOptions::new(url.parse().unwrap(), &"orders".parse().unwrap());
        options.http2 = http2;
        let stop = CancellationToken::new();
        let handler = Http::new(options).unwrap();
        let processor = Processor::new(store.clone(), handler, ProcessorOptions::default());
        let processor = tokio::spawn(processor.run(stop.clone()));
        let payload = |number: u64| Payload::json(&Bytes::from(format!("{{\"number\":{number}}}"))).unwrap();
        let messages: Vec<Outgoing> = (0..MESSAGES).map(|number| Outgoing::new(payload(number))).collect();
        Producer::new(store.clone()).send(&messages).await.unwrap();
        let mut consumer = Consumer::new(store);
        let mut number = 0;
        while number < MESSAGES {
            let batch = consumer.next(100).await.unwrap();
            for line in &batch.outputs {
                let record = Output::parse(line).unwrap().record;
                assert_eq!(record.body, Body::Result(payload(number)));
                number += 1;
            }
            consumer.acknowledge(&batch);
        }
        stop.cancel();
        let did = processor.await.unwrap().unwrap();
        assert_eq!((did.done, did.retried), (MESSAGES, 0), "HTTP/2: {http2}");
    }
}
