//! One server: killed and started again, paused, busy, still loading, short of memory, and a replica for a while.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::flow::{Flow, store};
use crate::redis_ask::ask;
use crate::redis_server::RedisServer;

const PAUSE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a signal to a server.
pub(crate) fn signal(server: &RedisServer, name: &str) {
    let kill = std::process::Command::new("kill")
        .args([name, &server.pid().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// Asks a server that answers.
fn tell(server: &RedisServer, words: &[&str]) -> String {
    block_in_place(|| ask(server.port(), words)).unwrap().text()
}

fn start(arguments: &[&str]) -> RedisServer {
    block_in_place(|| RedisServer::start(arguments)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_and_started_again() {
    let mut server = start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut flow = Flow::start("kill -9, start again", &server.url(), 0).await;
    for round in 1..=3 {
        block_in_place(|| {
            server.kill().unwrap();
            std::thread::sleep(Duration::from_millis(300 * (round - 1)));
            server.start_again().unwrap();
        });
        flow.over(format!("it answers again {round}"), Instant::now()).await;
    }
    flow.finish(1_000).await;
}

/// It answers, and says that it is not ready yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_loading() {
    let arguments = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--key-load-delay",
        "1000",
    ];
    let debug = [
        "--enable-debug-command",
        "local",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut server = start(&[&arguments[..], &debug[..]].concat());
    tell(&server, &["DEBUG", "POPULATE", "700", "other", "1000"]);
    tell(&server, &["BGREWRITEAOF"]);
    let mut flow = Flow::start("loading", &server.url(), 0).await;
    while !tell(&server, &["INFO", "persistence"]).contains("aof_rewrite_in_progress:0") {
        sleep(Duration::from_millis(10)).await;
    }
    let before = Instant::now();
    block_in_place(|| server.start_again()).unwrap();
    let end = Instant::now();
    assert!(
        end - before > Duration::from_millis(700),
        "that was no loading: {:?}",
        end - before
    );
    flow.over("it has loaded", end).await;
    flow.finish(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_server_may_refuse_for_a_while() {
    let server = start(&["--enable-debug-command", "local", "--busy-reply-threshold", "100"]);
    let mut flow = Flow::start("refusals", &server.url(), 0).await;

    tell(&server, &["SCRIPT", "FLUSH"]);
    flow.over("SCRIPT FLUSH", Instant::now()).await;

    tell(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
    tell(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    flow.over("CLIENT KILL of all", Instant::now()).await;

    tell(&server, &["CLIENT", "PAUSE", "2000", "ALL"]);
    sleep(PAUSE).await;
    flow.over("CLIENT PAUSE 2000", Instant::now()).await;

    tell(&server, &["DEBUG", "SLEEP", "2"]);
    flow.over("DEBUG SLEEP 2", Instant::now()).await;

    signal(&server, "-STOP");
    sleep(PAUSE).await;
    signal(&server, "-CONT");
    flow.over("SIGSTOP for 2 s", Instant::now()).await;

    let port = server.port();
    let busy = std::thread::spawn(move || ask(port, &["EVAL", "while true do end", "0"]));
    sleep(PAUSE).await;
    // The first one may be the reply to what the loop still holds up.
    tell(&server, &["SCRIPT", "KILL"]);
    let end = Instant::now();
    assert!(busy.join().unwrap().is_err(), "it was killed");
    flow.over("BUSY for 2 s", end).await;

    // Of nobody: so it keeps what it has, and refuses to write.
    tell(&server, &["REPLICAOF", "127.0.0.1", "1"]);
    sleep(PAUSE).await;
    tell(&server, &["REPLICAOF", "NO", "ONE"]);
    flow.over("READONLY for 2 s", Instant::now()).await;

    flow.finish(1_000).await;
}

/// Nothing new is taken, and what was begun is ended and handed out, for which there is memory always.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_without_memory() {
    let server = start(&["--maxmemory-policy", "noeviction"]);
    let mut flow = Flow::start("OOM", &server.url(), 0).await;
    let watcher = store(&server.url(), 0).await;
    for round in 1..=2 {
        let begun = watcher.status().await.unwrap();
        tell(&server, &["CONFIG", "SET", "maxmemory", "1"]);
        let limit = Instant::now() + PATIENCE;
        loop {
            let status = watcher.status().await.unwrap();
            if status.in_flight == 0 && status.processed == 0 && status.output == 0 {
                assert!(status.head > begun.head, "{status:?} after {begun:?}");
                break;
            }
            assert!(Instant::now() < limit, "what was begun does not end: {status:?}");
            sleep(Duration::from_millis(10)).await;
        }
        let stopped = flow.delivered();
        sleep(PAUSE / 2).await;
        assert_eq!(flow.delivered(), stopped, "nothing new is begun");
        tell(&server, &["CONFIG", "SET", "maxmemory", "0"]);
        flow.over(format!("there is memory again {round}"), Instant::now())
            .await;
    }
    flow.finish(1_000).await;
}
