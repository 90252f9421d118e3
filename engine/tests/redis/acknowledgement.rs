//! Acknowledgements: what is taken off is what was handed out.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{CampaignRequest, ReceiveRequest};
use conga::core::term::{Reign, Role, Term};
use conga::store::Store;

use crate::redis_server::RedisServer;
use crate::{SECOND, foreigner, open, run};

/// A server that takes over may lack the last outputs, and have others at their positions by the time at which the first
/// ones are acknowledged. Nobody has seen those.
#[tokio::test]
async fn an_acknowledgement_means_what_was_handed_out_and_not_what_stands_there_now() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let output = |payload: &str| format!("{{\"position\":1,\"id\":\"@1\",\"payload\":\"{payload}\"}}");
    let receive = async |acknowledge| {
        let request = ReceiveRequest {
            acknowledge,
            max: 10,
            ..ReceiveRequest::default()
        };
        store.receive(&request).await.unwrap().outputs()
    };
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("old")]).await;
    assert_eq!(receive(None).await, [output("old")]);
    run::<u64>(&mut foreigner, &["DEL", "{orders}:out"]).await;
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("new")]).await;
    let first = Some(Position(1));
    assert_eq!(receive(first).await, [output("new")], "not taken off");
    assert!(receive(first).await.is_empty(), "now it was seen");
}

/// Two consumers of one store are handed out different outputs at the same position, by servers that differ.
#[tokio::test]
async fn an_acknowledgement_means_what_was_handed_out_to_its_consumer() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let output = |payload: &str| format!("{{\"position\":1,\"id\":\"@1\",\"payload\":\"{payload}\"}}");
    let stand = async |owner: &str, lock_us| {
        let request = CampaignRequest {
            owner: OwnerId::new(owner),
            role: Role::Consumer,
            lock_us,
        };
        store.campaign(&request).await.unwrap()
    };
    let receive = async |owner: &str, term, acknowledge| {
        let request = ReceiveRequest {
            reign: Some(Reign {
                owner: OwnerId::new(owner),
                term: Term(term),
            }),
            acknowledge,
            skip: 0,
            max: 10,
        };
        store.receive(&request).await.unwrap().outputs()
    };
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("old")]).await;
    stand("a", SECOND).await;
    assert_eq!(receive("a", 1, None).await, [output("old")]);
    stand("a", 0).await;
    run::<u64>(&mut foreigner, &["DEL", "{orders}:out"]).await;
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("new")]).await;
    stand("b", SECOND).await;
    assert_eq!(receive("b", 2, None).await, [output("new")]);
    stand("b", 0).await;
    stand("a", SECOND).await;
    assert_eq!(
        receive("a", 3, Some(Position(1))).await,
        [output("new")],
        "not taken off"
    );
}
