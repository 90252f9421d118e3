//! The same from a line of several partitions: each in its order, among them as it comes, acknowledged by partition.

use bytes::Bytes;
use conga::deliver::Consumer;
use conga::shards::{Consumers, Shards};
use tokio_util::sync::CancellationToken;

use super::{BATCH, GOODBYE, write};
use crate::args::Receive;
use crate::text;

pub(super) async fn run(shards: &Shards, receive: &Receive, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    if receive.follow || receive.count.is_some() {
        wait(shards, receive, shutdown).await
    } else {
        for store in shards.partitions() {
            if !take(Consumer::new(store.clone()), receive.payload, shutdown).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What one partition has. Whether this is the one who receives there.
async fn take(mut consumer: Consumer, payload: bool, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    while !shutdown.is_cancelled() {
        let batch = consumer.try_next(BATCH).await?;
        if batch.outputs.is_empty() {
            if let Some(other) = consumer.stands_by_for() {
                eprintln!(
                    "conga: {other} receives a partition of this line; --follow or --count stands by until it ends"
                );
                return Ok(false);
            }
            break;
        }
        if !put(&batch.outputs, payload).await? {
            break;
        }
        consumer.acknowledge(&batch);
    }
    consumer.finish().await?;
    Ok(true)
}

/// Waits for more, from all of them.
async fn wait(shards: &Shards, receive: &Receive, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    let bar = text::progress("receiving", receive.count, receive.count.is_none());
    let mut consumers = Consumers::new(shards, BATCH);
    let mut received = 0;
    while receive.count.is_none_or(|count| received < count) {
        let mut portion = tokio::select! {
            portion = consumers.next() => portion?,
            () = shutdown.cancelled() => break,
        };
        if let Some(left) = receive.count.map(|count| count - received) {
            portion.batch.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if !put(&portion.batch.outputs, receive.payload).await? {
            break;
        }
        consumers.acknowledge(&portion);
        received += portion.batch.outputs.len() as u64;
        bar.inc(portion.batch.outputs.len() as u64);
    }
    let is_acknowledged = tokio::select! {
        finished = consumers.finish() => finished.map(|()| true)?,
        () = async { shutdown.cancelled().await; tokio::time::sleep(GOODBYE).await } => false,
    };
    bar.finish_and_clear();
    Ok(receive.count.is_none_or(|count| received == count && is_acknowledged))
}

/// Writes outputs, on another thread than the one that renews the locks. Whether anybody reads them.
async fn put(outputs: &[Bytes], payload: bool) -> anyhow::Result<bool> {
    let outputs = outputs.to_vec();
    match tokio::task::spawn_blocking(move || write(&outputs, payload)).await? {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
