//! SQL as a handler: what goes into it, and what comes out.

use conga::core::message::Body;
use conga::ledger::LedgerError;
use conga::ledger::postgres::TransactionOptions;
use conga::store::Store as _;

use crate::bank::{Bank, connect};

/// What a script makes of one message.
async fn answer(bank: &mut Bank, script: &str, entry: &str) -> Body {
    let handler = bank
        .ledger()
        .await
        .script(TransactionOptions::default(), script)
        .await
        .unwrap();
    let clerk = bank.clerk(handler, 1);
    bank.store.send(&[entry.to_owned().into()], None).await.unwrap();
    let outputs = bank.outputs(1).await;
    clerk.end().await;
    outputs[0].body.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_answers_is_the_result() {
    let mut bank = Bank::open().await;
    for (number, (script, expected)) in [
        ("SELECT :payload->'a'", "[1,{\"b\":\"x y\"}]"),
        ("SELECT :key || :id AS one, :sequence + 1 AS other, :position > 0 AS is", "{\"one\":\"k2\",\"other\":3,\"is\":true}"),
        ("SELECT 1.50::numeric", "1.50"),
        ("SELECT 'x \"y\"'", "\"x \\\"y\\\"\""),
        ("SELECT NULL::int", "null"),
        ("SELECT 1 WHERE false", "null"),
        ("SELECT n FROM generate_series(1, 3) AS n ORDER BY n DESC", "[3,2,1]"),
        ("VALUES (1, 'a'), (2, NULL)", "[{\"column1\":1,\"column2\":\"a\"},{\"column1\":2,\"column2\":null}]"),
        ("DELETE FROM move WHERE false", "null"),
        ("SELECT 'first';\nUPDATE account SET balance = balance WHERE id = :sequence", "\"first\""),
        (
            "WITH a AS (UPDATE account SET balance = balance - 5 WHERE id = 1 RETURNING balance)\n\
             UPDATE account SET balance = account.balance + 5 FROM a WHERE id = 2 RETURNING account.balance, a.balance AS left; -- .",
            "{\"balance\":1000005,\"left\":999995}",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = number + 1;
        let entry = format!("{{\"id\":\"{id}\",\"sequence\":{id},\"key\":\"k\",\"payload\":{{\"a\":[1,{{\"b\":\"x y\"}}]}}}}");
        let Body::Result(payload) = answer(&mut bank, script, &entry).await else {
            panic!("{script}");
        };
        assert_eq!(payload.text(), expected, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_does_not_have_is_null_and_what_is_no_json_is_dead() {
    let mut bank = Bank::open().await;
    let nothing = "SELECT :sequence IS NULL AND :key IS NULL AND :id LIKE '@1-%'";
    let Body::Result(payload) = answer(&mut bank, nothing, "plain").await else {
        panic!("dead");
    };
    assert_eq!(payload.text(), "true");
    let Body::Dead { reason } = answer(&mut bank, "SELECT :payload", "{\"payload\":\"\\u0000\"}").await else {
        panic!("done");
    };
    assert!(reason.contains("22P05"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_take_is_refused_at_once() {
    let bank = Bank::open().await;
    for (script, why) in [
        (
            "SELECT 1;\n\nSELECT * FROM nowhere",
            "line 3: relation \"nowhere\" does not exist",
        ),
        ("SELEC 1", "line 1: syntax error"),
        ("SELECT 1 + :payload", "line 1: operator does not exist"),
        ("SELECT :nothing", "line 1: :nothing is nothing"),
        ("SHOW all", "line 1: what answers the result"),
        (
            "UPDATE account SET balance = 1; COMMIT",
            "COMMIT is not the script's to say",
        ),
    ] {
        let refused = bank.ledger().await.script(TransactionOptions::default(), script).await;
        match refused {
            Err(LedgerError::Broken(told)) => assert!(told.contains(why), "{script}: {told}"),
            other => panic!("{script}: {other:?}"),
        }
    }
    let client = connect(&bank.server.url()).await;
    let row = client
        .query_one("SELECT sum(balance)::bigint FROM account", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 10_000_000, "nothing was run");
}
