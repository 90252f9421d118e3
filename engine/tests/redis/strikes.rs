//! Strikes: kept only of what is claimed and not done.

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::Body;
use conga::core::partition::{ClaimRequest, Completed, Completion, OnDead};
use conga::core::shape::{Order, Shape};
use conga::store::Store;

use crate::redis_server::RedisServer;
use crate::{claim_of, done, foreigner, open, run};

/// Else each message that was ever with a processor that died would take memory for ever.
#[tokio::test]
async fn what_has_ended_leaves_none() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let mut foreigner = foreigner(&server).await;
    for order in [Order::Total, Order::Key { serial: false }, Order::None] {
        run::<String>(&mut foreigner, &["FLUSHALL"]).await;
        let store = open(&server).await;
        if order != Order::Total {
            store.shape(Some(Shape::of(order))).await.unwrap();
        }
        store.send(&["1", "2", "3", "4"].map(Bytes::from), None).await.unwrap();
        let died = ClaimRequest {
            owner: OwnerId::new("died"),
            lease_us: 1,
            ..claim_of(4)
        };
        assert_eq!(store.claim(&died).await.unwrap().len(), 4);
        let claims = store.claim(&claim_of(4)).await.unwrap();
        assert!(claims.iter().all(|claim| claim.crashes == 1), "{claims:?}");
        let kept: u64 = run(&mut foreigner, &["HLEN", "{orders}:strikes"]).await;
        assert_eq!(kept, 4, "{order}");
        let dead = Completion::Dead {
            tombstone: claims[1].record(Body::Dead {
                reason: "no".to_owned(),
            }),
            on_dead: OnDead::Mark,
        };
        let ends = [
            done(&claims[0], "x"),
            dead,
            done(&claims[2], "x"),
            done(&claims[3], "x"),
        ];
        let answers = store.complete(&OwnerId::new("p1"), &ends).await;
        assert_eq!(answers, Ok(vec![Completed::Accepted; 4]));
        let kept: u64 = run(&mut foreigner, &["HLEN", "{orders}:strikes"]).await;
        assert_eq!(kept, 0, "{order}");
    }
}
