//! A server that answers and can't: it is read-only, its disk is full, or it ends statements for others' sake. That is waited
//! for, and nothing is lost, doubled or out of place.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::bank::connect;
use crate::flow::{Flow, WINDOW};

/// Nothing comes out any more, once what was recorded before has.
async fn stands(flow: &mut Flow) {
    let sent = flow.sent.load(Ordering::SeqCst);
    flow.until("a window is sent", |flow| {
        flow.sent.load(Ordering::SeqCst) > sent + 2 * WINDOW
    })
    .await;
    let (waited, before) = (Instant::now(), flow.outputs.len());
    flow.until("time goes by", |_| waited.elapsed() > Duration::from_secs(1))
        .await;
    assert_eq!(flow.outputs.len(), before, "delivered before it was recorded");
    let status = flow.store.status().await.unwrap();
    assert!(status.in_flight + status.processed <= WINDOW, "{status:?}");
}

/// As after a failover, on the side that lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_only_for_a_while() {
    let mut flow = Flow::start().await;
    let client = connect(&flow.desk.0.url()).await;
    flow.more(100).await;
    for _ in 0..2 {
        set_read_only(&client, "on").await;
        stands(&mut flow).await;
        flow.healed("read-only", |_| {
            Handle::current().block_on(set_read_only(&client, "off"));
        })
        .await;
    }
    flow.end().await;
}

async fn set_read_only(client: &Client, value: &str) {
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    // The first would else refuse itself to be taken back.
    client
        .execute("SET default_transaction_read_only = off", &[])
        .await
        .unwrap();
    client.execute(&set, &[]).await.unwrap();
    client.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
}

/// A filesystem of a few megabytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mounted(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted(mount).then(|| Self(at.to_owned()))
    }
}

fn mounted(mount: std::io::Result<std::process::ExitStatus>) -> bool {
    mount.is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server still has it open.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// The table's disk is full until somebody makes room. Where none can be mounted the server is made to say that it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk() {
    let mut flow = Flow::start().await;
    let client = connect(&flow.desk.0.url()).await;
    flow.more(100).await;
    let folder = flow.desk.0.folder().join("small");
    let disk = SmallDisk::mounted(&folder);
    println!("a small disk of its own: {}", disk.is_some());
    let (fill, make_room) = if disk.is_some() {
        flow.desk.0.own(&folder).unwrap();
        let make = format!("CREATE TABLESPACE small LOCATION '{}'", folder.display());
        client.execute(&make, &[]).await.unwrap();
        client
            .execute("ALTER TABLE conga_record SET TABLESPACE small", &[])
            .await
            .unwrap();
        // A page at a time, until there is none left.
        let fill = "CREATE TABLE filler (page text) TABLESPACE small; \
                    DO $$ BEGIN LOOP \
                        BEGIN INSERT INTO filler VALUES (repeat('x', 1900)), (repeat('x', 1900)), (repeat('x', 1900)), (repeat('x', 1900)); \
                        EXCEPTION WHEN disk_full THEN EXIT; END; \
                    END LOOP; END $$";
        (fill, "DROP TABLE filler")
    } else {
        client
            .batch_execute(
                "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE 'no space left on device' USING ERRCODE = '53100'; END $$",
            )
            .await
            .unwrap();
        let fill = "CREATE TRIGGER full BEFORE INSERT ON conga_record FOR EACH STATEMENT EXECUTE FUNCTION full()";
        (fill, "DROP TRIGGER full ON conga_record")
    };
    for _ in 0..2 {
        client.batch_execute(fill).await.unwrap();
        stands(&mut flow).await;
        // Whoever asks is told so.
        let insert = "INSERT INTO conga_record (line, id, position, attempts, result, created, processing) \
                      SELECT 'other', i, 1, 1, to_jsonb(repeat(md5(i::text), 60)), now(), now() FROM generate_series(1, 100) AS i";
        let refused = client.execute(insert, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::DISK_FULL), "{refused}");
        flow.healed("a full disk", |_| {
            Handle::current().block_on(client.batch_execute(make_room)).unwrap();
        })
        .await;
    }
    flow.end().await;
}

/// What a server says to one for the sake of others, or of whoever administers it: each of them again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_that_are_ended() {
    let mut flow = Flow::start().await;
    let client = connect(&flow.desk.0.url()).await;
    // Serialization failure, deadlock, out of memory, canceled, can't connect now, an I/O error. What a sequence counts is not
    // rolled back.
    let codes = ["40001", "40P01", "53200", "57014", "57P03", "58030"];
    let list = codes.map(|code| format!("'{code}'")).join(", ");
    for index in 1..=codes.len() {
        client
            .batch_execute(&format!("CREATE SEQUENCE ended_{index}"))
            .await
            .unwrap();
    }
    client
        .batch_execute(&format!(
            "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql AS $$ \
             DECLARE which int := 1 + floor(random() * {count})::int; \
             BEGIN PERFORM nextval('ended_' || which); \
                 RAISE 'not now' USING ERRCODE = (ARRAY[{list}])[which]; END $$; \
             CREATE TRIGGER end_it BEFORE INSERT ON conga_record FOR EACH STATEMENT WHEN (random() < 0.3) \
             EXECUTE FUNCTION end_it()",
            count = codes.len()
        ))
        .await
        .unwrap();
    let mut ended = Vec::new();
    while ended.len() < codes.len() || ended.iter().any(|count| *count < 5) {
        flow.more(100).await;
        ended.clear();
        for index in 1..=codes.len() {
            let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM ended_{index}");
            ended.push(client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0));
        }
    }
    println!("ended by {codes:?}: {ended:?}");
    client
        .batch_execute("DROP TRIGGER end_it ON conga_record")
        .await
        .unwrap();
    flow.end().await;
}
