//! A process is taken for gone in the midst of its transaction, another has its message, and then the first goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conga::ledger::postgres::TransactionOptions;
use tokio::sync::Semaphore;

use crate::bank::{Bank, Clerk, connect, transfer};

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clerk who stops once the id is taken and the money is on its way, until the gate is opened.
struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

async fn stopped(bank: &Bank, idle: Duration) -> (Clerk, Gate) {
    let options = TransactionOptions {
        idle,
        ..TransactionOptions::default()
    };
    let (reached, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gate = Gate {
        reached: reached.clone(),
        open: open.clone(),
    };
    let begun = bank.begun.clone();
    let handler = bank.ledger().await.transactional(options, move |transaction, message| {
        let (reached, open, begun) = (reached.clone(), open.clone(), begun.clone());
        Box::pin(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            let first = transfer(transaction, message).await?;
            reached.add_permits(1);
            open.acquire().await.unwrap().forget();
            // It goes on as if nothing had been.
            transaction.execute("SELECT 1", &[]).await?;
            Ok(first)
        })
    });
    let clerk = bank.clerk(handler.unwrap(), 1);
    tokio::time::timeout(PATIENCE, gate.reached.acquire())
        .await
        .unwrap()
        .unwrap()
        .forget();
    (clerk, gate)
}

/// Waits until somebody waits for somebody else's id.
async fn somebody_waits(bank: &Bank, count: i64) {
    let client = connect(&bank.server.url()).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%conga_record%'";
    let asking = async {
        while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("somebody waits");
}

/// The server ends the zombie's transaction, its successor makes the transfer and commits, and then the zombie goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_its_successor_has_committed() {
    let mut bank = Bank::open().await;
    bank.send(1).await;
    let (zombie, gate) = stopped(&bank, Duration::from_millis(300)).await;
    bank.give_up(&zombie).await;
    let successor = bank.teller(TransactionOptions::default(), 1).await;
    let outputs = bank.outputs(1).await;
    assert_eq!(outputs[0].attempts.0, 2);
    bank.is_right(&outputs).await;
    gate.open.add_permits(10);
    assert_eq!(successor.end().await.done, 1);
    let zombie = zombie.end().await;
    assert_eq!((zombie.done, zombie.stale, zombie.retried), (0, 1, 0));
    bank.is_right(&outputs).await;
    assert_eq!(bank.begun.load(Ordering::SeqCst), 2, "the zombie does not begin again");
}

/// The zombie is only slow: its successor waits for the id, finds the row, and never runs its SQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_successor_waits_for_the_id() {
    let mut bank = Bank::open().await;
    bank.send(1).await;
    let (zombie, gate) = stopped(&bank, Duration::from_mins(1)).await;
    bank.give_up(&zombie).await;
    let successor = bank.teller(TransactionOptions::default(), 1).await;
    somebody_waits(&bank, 1).await;
    gate.open.add_permits(10);
    let outputs = bank.outputs(1).await;
    assert_eq!(outputs[0].attempts.0, 2);
    bank.is_right(&outputs).await;
    assert_eq!(successor.end().await.done, 1);
    assert_eq!(zombie.end().await.stale, 1);
    assert_eq!(bank.begun.load(Ordering::SeqCst), 1, "nobody else begins");
}

/// Both are stopped before they have the id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ask_for_the_id_at_once() {
    let mut bank = Bank::open().await;
    let zombie = bank.teller(TransactionOptions::default(), 1).await;
    let mut client = connect(&bank.server.url()).await;
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE conga_record IN EXCLUSIVE MODE")
        .await
        .unwrap();
    bank.send(1).await;
    somebody_waits(&bank, 1).await;
    bank.give_up(&zombie).await;
    let successor = bank.teller(TransactionOptions::default(), 1).await;
    somebody_waits(&bank, 2).await;
    lock.rollback().await.unwrap();
    let outputs = bank.outputs(1).await;
    bank.is_right(&outputs).await;
    assert_eq!(successor.end().await.done + zombie.end().await.done, 1);
    bank.is_right(&outputs).await;
    assert_eq!(bank.begun.load(Ordering::SeqCst), 1);
}
