//! Transfers while everything breaks: each is made once, and the sum of all accounts stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use conga::core::message::{Body, Payload, Record};
use conga::ledger::postgres::TransactionOptions;
use conga::ledger::postgres::tokio_postgres::{self, IsolationLevel, NoTls};
use conga::process::HandlerError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::bank::{Bank, PATIENCE, connect, transfer};

fn four() -> TransactionOptions {
    TransactionOptions {
        connections: 4,
        ..TransactionOptions::default()
    }
}

fn dead(outputs: &[Record]) -> Vec<&Record> {
    let is_dead = |output: &&Record| matches!(output.body, Body::Dead { .. });
    outputs.iter().filter(is_dead).collect()
}

/// Connections are ended again and again, some in the midst of a commit; and in between the server is killed, and stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn once_each_while_connections_and_servers_end() {
    const TRANSFERS: u64 = 3_000;
    let mut bank = Bank::open().await;
    let mut clerks = Vec::new();
    for _ in 0..3 {
        clerks.push(bank.teller(four(), 64).await);
    }
    // A fifth now, and one after each start of the server: whatever is ended, transfers are under way.
    bank.send(TRANSFERS / 5).await;
    let (over, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (told, count, url) = (over.clone(), ended.clone(), bank.server.url());
    let ending = tokio::spawn(async move {
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.2";
        let mut client = connect(&url).await;
        while !told.load(Ordering::SeqCst) {
            if let Ok(row) = timeout(PATIENCE, client.query_one(sql, &[])).await.expect("an answer") {
                count.fetch_add(row.get::<_, i64>(0).unsigned_abs(), Ordering::SeqCst);
            } else {
                // The server was killed.
                let again = timeout(PATIENCE, tokio_postgres::connect(&url, NoTls)).await;
                if let Ok((again, connection)) = again.expect("a connection, or none") {
                    tokio::spawn(connection);
                    client = again;
                }
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });
    let mut outputs = bank.outputs(300).await;
    for round in 0..4 {
        block_in_place(|| {
            if round % 2 == 0 {
                bank.server.kill().unwrap();
            } else {
                bank.server.stop().unwrap();
            }
            bank.server.start_again().unwrap();
        });
        bank.send(TRANSFERS / 5).await;
        outputs.extend(bank.outputs(300).await);
    }
    let rest = usize::try_from(TRANSFERS).unwrap() - outputs.len();
    outputs.extend(bank.outputs(rest).await);
    over.store(true, Ordering::SeqCst);
    ending.await.unwrap();
    for clerk in clerks {
        clerk.end().await;
    }
    bank.is_right(&outputs).await;
    assert_eq!(dead(&outputs).len(), 0);
    let (ended, begun) = (ended.load(Ordering::SeqCst), bank.begun.load(Ordering::SeqCst));
    println!("{TRANSFERS} transfers, begun {begun} times; {ended} connections ended, 4 restarts");
    assert!(begun > TRANSFERS && ended > 20);
}

/// Stands between a clerk and the server, and cuts the way in the midst of the first commit.
async fn cut_commit(server: u16, arrives: bool) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cuts = Arc::new(AtomicU64::new(0));
    let counted = cuts.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let cuts = counted.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let piece = &buffer[..length];
                    let commits = piece.windows(7).any(|word| word == b"COMMIT\0");
                    if commits && cuts.load(Ordering::SeqCst) == 0 {
                        // No answer gets through any more, then nothing at all.
                        back.abort();
                        let _ = back.await;
                        if arrives {
                            to_server.write_all(piece).await.unwrap();
                        }
                        cuts.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    to_server.write_all(piece).await.unwrap();
                }
            });
        }
    });
    (port, cuts)
}

async fn with_a_commit_cut(arrives: bool) -> u64 {
    let mut bank = Bank::open().await;
    let (port, cuts) = cut_commit(bank.server.port(), arrives).await;
    bank.send(1).await;
    // What makes the table commits as well, and goes the straight way.
    bank.ledger().await;
    let ledger = Bank::ledger_at(&format!("postgres://conga@127.0.0.1:{port}/postgres?sslmode=disable")).await;
    let begun = bank.begun.clone();
    let handler = ledger.transactional(TransactionOptions::default(), move |transaction, message| {
        let begun = begun.clone();
        Box::pin(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            transfer(transaction, message).await
        })
    });
    let clerk = bank.clerk(handler.unwrap(), 1);
    let outputs = bank.outputs(1).await;
    assert_eq!(outputs[0].attempts.0, 1);
    assert_eq!(clerk.end().await.done, 1);
    assert_eq!(cuts.load(Ordering::SeqCst), 1);
    bank.is_right(&outputs).await;
    bank.begun.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_looked_for() {
    assert_eq!(
        with_a_commit_cut(true).await,
        1,
        "it had committed: its row is the result"
    );
    assert_eq!(with_a_commit_cut(false).await, 2, "it had not: it is made again");
}

/// All move money between few accounts, and each has to see the bank as if it were alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conflicts_are_run_again() {
    const TRANSFERS: u64 = 400;
    for isolation in [IsolationLevel::Serializable, IsolationLevel::ReadCommitted] {
        let mut bank = Bank::open().await;
        let options = TransactionOptions {
            isolation,
            conflicts: 1_000,
            ..four()
        };
        let clerks = [bank.teller(options, 32).await, bank.teller(options, 32).await];
        bank.send(TRANSFERS).await;
        let outputs = bank.outputs(400).await;
        for clerk in clerks {
            assert_eq!(clerk.end().await.retried, 0);
        }
        bank.is_right(&outputs).await;
        assert_eq!(dead(&outputs).len(), 0);
        let begun = bank.begun.load(Ordering::SeqCst);
        println!("{isolation:?}: {TRANSFERS} transfers, begun {begun} times");
        assert!(begun > TRANSFERS, "nothing was in each other's way");
    }
}

/// Whatever a failed attempt did is gone, and it is a retry or a dead letter as of any handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_leaves_nothing_behind() {
    let mut bank = Bank::open().await;
    let client = connect(&bank.server.url()).await;
    client
        .batch_execute(
            "CREATE FUNCTION is_odd() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'not this one' USING ERRCODE = '23000'; END $$; \
             CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON move DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             WHEN (NEW.transfer = 't8') EXECUTE FUNCTION is_odd()",
        )
        .await
        .unwrap();
    let handler = bank.ledger().await.transactional(four(), |transaction, message| {
        Box::pin(async move {
            let first = message.attempt.0 == 1;
            let done = transfer(transaction, message).await?;
            match message.id.as_str() {
                "t2" => Err(HandlerError::permanent("no").into()),
                "t3" if first => Err(HandlerError::passing("not yet").into()),
                "t4" if first => panic!("at first"),
                // Data that the server does not take, ever.
                "t5" => Err(transaction.query("SELECT 1 / 0", &[]).await.unwrap_err().into()),
                "t6" if first => Err(transaction.query("SELECT nothing", &[]).await.unwrap_err().into()),
                // It goes on as if its statement had not failed.
                "t7" if first => {
                    transaction.query("SELECT nothing", &[]).await.unwrap_err();
                    Ok(done)
                }
                // What jsonb does not take is kept as text.
                "t9" => Ok(Payload::json(&"{\"a\":1e400,\"b\":\"\\u0000\"}".into()).map_err(HandlerError::permanent)?),
                _ => Ok(done),
            }
        })
    });
    let clerk = bank.clerk(handler.unwrap(), 16);
    bank.send(10).await;
    let outputs = bank.outputs(10).await;
    let did = clerk.end().await;
    bank.is_right(&outputs).await;
    let dead = dead(&outputs);
    let seen: Vec<_> = dead
        .iter()
        .map(|output| (output.id.as_str(), output.attempts.0))
        .collect();
    assert_eq!(seen, [("t2", 1), ("t5", 1), ("t8", 5)]);
    assert!(
        matches!(&dead[1].body, Body::Dead { reason } if reason.contains("22012")),
        "{dead:?}"
    );
    assert!(
        matches!(&dead[2].body, Body::Dead { reason } if reason.contains("not this one")),
        "{dead:?}"
    );
    assert_eq!((did.done, did.dead, did.retried), (7, 3, 4 + 4));
}

/// A handler that hangs is given up with its connection, and does not keep the others from theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_given_up() {
    let mut bank = Bank::open().await;
    let options = TransactionOptions {
        connections: 1,
        limit: Duration::from_millis(300),
        ..TransactionOptions::default()
    };
    let handler = bank.ledger().await.transactional(options, |transaction, message| {
        Box::pin(async move {
            if message.id.as_str() == "t1" && message.attempt.0 == 1 {
                transaction.execute("SELECT pg_sleep(600)", &[]).await?;
            }
            transfer(transaction, message).await
        })
    });
    let clerk = bank.clerk(handler.unwrap(), 8);
    bank.send(20).await;
    let outputs = bank.outputs(20).await;
    assert_eq!(outputs[0].attempts.0, 2);
    assert_eq!(clerk.end().await.done, 20);
    bank.is_right(&outputs).await;
}
