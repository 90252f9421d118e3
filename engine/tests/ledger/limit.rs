//! How long the server may work at a statement.

use conga::ledger::Ledger as _;
use conga::ledger::postgres::{PostgresLedger, tokio_postgres};

use crate::desk::{Desk as _, PostgresDesk, text};

/// Less than it is waited for; and what a URL says, or a role that may take even less, stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_ends_before_it_is_given_up() {
    let desk = PostgresDesk::new().await;
    let line = "limits".parse().unwrap();
    let (client, connection) = tokio_postgres::connect(&desk.0.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    PostgresLedger::open(&desk.0.url(), &line).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE seen (id text, its text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO seen VALUES (NEW.id, current_setting('statement_timeout'));
                 RETURN NEW;
             END $$;
             CREATE TRIGGER seeing BEFORE INSERT ON conga_record FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .await
        .unwrap();
    for (position, role, query, its) in [
        (1, "0", "", "28s"),
        (2, "10min", "", "28s"),
        (3, "2s", "", "2s"),
        (4, "2s", "?options=-c%20statement_timeout%3D1h", "1h"),
        (5, "2s", "?options=-c%20statement_timeout%3D0", "0"),
    ] {
        let alter = format!("ALTER ROLE conga SET statement_timeout = '{role}'");
        client.batch_execute(&alter).await.unwrap();
        let url = format!("{}{query}", desk.0.url());
        let ledger = PostgresLedger::open(&url, &line).await.unwrap();
        let id = position.to_string();
        ledger.record(&[text(position, &id, "x")]).await.unwrap();
        let row = client
            .query_one("SELECT its FROM seen WHERE id = $1", &[&id])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), its, "{role} {query}");
    }
}
