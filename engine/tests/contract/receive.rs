//! Receive: in order, and until it is acknowledged.

use crate::Fixture;
use crate::pair::{Pair, place};

pub(crate) async fn stays_until_it_is_acknowledged<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    pair.drain("p", "s").await;
    let two = pair.receive(None, 2).await;
    assert_eq!(two.len(), 2);
    assert_eq!(pair.receive(None, 2).await, two, "as they were");
    let next = pair.receive(Some(1), 2).await;
    assert_eq!(next[0], two[1]);
    assert_eq!(pair.receive(Some(2), 0).await.len(), 0);
    assert_eq!(pair.status().await.output, 3);
    let rest = pair.receive(None, 9).await;
    assert_eq!(rest.iter().map(|output| place(output).0).collect::<Vec<_>>(), [3, 4, 5]);
    pair.finish().await;
}

pub(crate) async fn acknowledged_twice_or_beyond<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    pair.drain("p", "s").await;
    let after = pair.receive(Some(2), 9).await;
    assert_eq!(pair.receive(Some(2), 9).await, after);
    assert_eq!(pair.receive(Some(1), 9).await, after, "an older word takes nothing");
    assert_eq!(pair.receive(Some(0), 9).await, after);
    assert!(pair.receive(Some(u64::MAX), 9).await.is_empty());
    pair.send_ids(&["later"]).await;
    pair.drain("p", "s").await;
    assert_eq!(
        pair.outputs().await,
        [(4, "later".to_owned())],
        "what came since is still there"
    );
    pair.finish().await;
}
