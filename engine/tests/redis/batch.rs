//! Batches that are larger than a script may take at once.

use bytes::Bytes;
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::{Entry, Position};
use conga::core::partition::{Completion, Cursor, EmitRequest, Emitted, Processed, Ready, ReceiveRequest, Turn};
use conga::store::Store;

use crate::redis_server::RedisServer;
use crate::{claim_of, done, lead, open};

#[tokio::test]
async fn a_large_batch_goes_through_in_pieces() {
    const COUNT: u64 = 5_000;
    const LAST: usize = 4_999;
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let entries: Vec<Bytes> = (1..=COUNT).map(|n| Bytes::from(n.to_string())).collect();
    store.send(&entries, None).await.unwrap();
    let mut request = claim_of(usize::MAX);
    request.window = u64::MAX;
    let claims = store.claim(&request).await.unwrap();
    assert_eq!(claims.len() as u64, COUNT);
    // Given back, and claimed again with some neighbours missing.
    let back: Vec<_> = claims
        .iter()
        .filter(|claim| claim.position.0 % 3 != 0)
        .map(|claim| Completion::Retry {
            held: Held {
                position: claim.position,
                attempt: claim.attempt,
            },
            delay_us: 0,
        })
        .collect();
    store.complete(&OwnerId::new("p1"), &back).await.unwrap();
    let again = store.claim(&request).await.unwrap();
    assert_eq!(again.len(), back.len());
    for claim in &again {
        assert_eq!(claim.attempt, Attempt(2));
        assert_eq!(claim.entry, Entry::Whole(claim.position.to_string().into()));
    }
    let all = claims.iter().filter(|claim| claim.position.0 % 3 == 0).chain(&again);
    let completions: Vec<_> = all.map(|claim| done(claim, "x")).collect();
    store.complete(&OwnerId::new("p1"), &completions).await.unwrap();
    let term = lead(&store).await;
    let followed = store.follow(Cursor::default(), usize::MAX).await.unwrap();
    let mut entries: Vec<Ready> = followed
        .entries
        .iter()
        .map(|processed| Ready {
            processed: processed.clone(),
            sequencing: followed.now,
        })
        .collect();
    entries.sort_by_key(|ready| ready.processed.position);
    let mut request = EmitRequest {
        term,
        head: Position(1),
        entries,
    };
    let right = request.entries[LAST].clone();
    request.entries[LAST].processed = Processed {
        turn: Turn::Nothing,
        ..right.processed.clone()
    };
    assert_eq!(store.emit(&request).await, Ok(Emitted::Moved { head: Position(1) }));
    request.entries[LAST] = right;
    let head = Position(COUNT + 1);
    assert_eq!(store.emit(&request).await, Ok(Emitted::Advanced { head }));
    assert_eq!(store.emit(&request).await, Ok(Emitted::Moved { head }), "law 4");
    for last in [0, 1, 700, 701, 4_999, 5_000] {
        let outputs = store
            .receive(&ReceiveRequest {
                acknowledge: Some(Position(last)),
                max: 2,
                ..ReceiveRequest::default()
            })
            .await
            .unwrap()
            .outputs();
        assert_eq!(outputs.len() as u64, (COUNT - last).min(2));
        if let Some(first) = outputs.first() {
            assert!(first.starts_with(format!("{{\"position\":{},", last + 1).as_bytes()));
        }
    }
}
