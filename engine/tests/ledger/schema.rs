//! Opening PostgreSQL: migrations, and what is refused.

use conga::ledger::postgres::PostgresLedger;
use conga::ledger::{Ledger as _, LedgerError};
use conga::line::Line;

use crate::desk::{Desk as _, PostgresDesk, text};

fn line() -> Line {
    "orders".parse().unwrap()
}

async fn open(url: &str) -> Result<PostgresLedger, LedgerError> {
    PostgresLedger::open(url, &line()).await
}

async fn ask(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    driving.await.unwrap().unwrap();
}

/// The same server's database of this name.
fn at(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}

fn broken(outcome: Result<PostgresLedger, LedgerError>) -> String {
    match outcome {
        Err(LedgerError::Broken(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_at_once_make_it_once() {
    let desk = PostgresDesk::new().await;
    for database in ["one", "two", "three"] {
        ask(&desk.0.url(), &format!("CREATE DATABASE {database}")).await;
        let url = at(&desk.0.url(), database);
        let opening: Vec<_> = (0..20)
            .map(|number| {
                let url = url.clone();
                tokio::spawn(async move {
                    let ledger = open(&url).await.unwrap();
                    ledger.record(&[text(1, "a", &number.to_string())]).await.unwrap();
                    ledger
                })
            })
            .collect();
        for ledger in opening {
            let page = ledger.await.unwrap().browse(None).await.unwrap();
            assert_eq!(page.rows.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused() {
    let desk = PostgresDesk::new().await;
    open(&desk.0.url()).await.unwrap();
    ask(&desk.0.url(), "INSERT INTO conga_schema (version) VALUES (99)").await;
    let text = broken(open(&desk.0.url()).await);
    assert!(text.contains("version 99") && text.contains("newer conga"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_has_to_mend_is_told_from_what_passes() {
    let mut desk = PostgresDesk::new().await;
    let url = desk.0.url();
    open(&url).await.unwrap();
    let text = broken(open(&at(&url, "nowhere")).await);
    assert!(text.contains("createdb"), "{text}");
    ask(
        &url,
        "CREATE ROLE poor LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    .await;
    let poor = url.replace("conga@", "poor@");
    // All is there already, so no right to make it is needed; but to write is.
    let ledger = open(&poor).await;
    assert!(broken(ledger).contains("42501"));
    ask(
        &url,
        "GRANT SELECT ON conga_schema TO poor; GRANT SELECT, INSERT ON conga_record TO poor",
    )
    .await;
    open(&poor)
        .await
        .unwrap()
        .record(&[crate::desk::text(1, "a", "x")])
        .await
        .unwrap();
    ask(
        &url,
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'",
    )
    .await;
    assert!(broken(open(&at(&url, "latin")).await).contains("UTF8"));
    assert!(broken(open("postgres://h/d?sslmode=perhaps").await).contains("verify-full"));
    assert!(broken(open("postgres://h/d?nonsense=1").await).contains("postgres://user"));
    tokio::task::block_in_place(|| desk.0.stop()).unwrap();
    assert!(matches!(open(&url).await, Err(LedgerError::Unavailable(_))));
}
