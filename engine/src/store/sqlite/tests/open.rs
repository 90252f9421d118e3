//! Whose a file is, and who else uses it.

use super::*;

#[tokio::test]
async fn a_file_that_is_no_database_is_left_untouched() {
    for text in ["x", "not a database, but a letter to a friend\n"] {
        let rig = Rig::new();
        let text = text.repeat(200);
        std::fs::write(rig.path(), &text).unwrap();
        let Err(StoreError::Broken(why)) = rig.open_line("orders", rig.options()).await else {
            panic!("opened a letter");
        };
        assert!(why.contains("is not an SQLite database; choose another file"), "{why}");
        assert_eq!(std::fs::read_to_string(rig.path()).unwrap(), text);
    }
}

#[tokio::test]
async fn another_programs_database_and_a_newer_one_are_left_untouched() {
    for (sql, says) in [
        ("CREATE TABLE songs (title)", "another program"),
        ("PRAGMA application_id = 1", "another program"),
        (
            "PRAGMA application_id = 1668247143; PRAGMA user_version = 99",
            "newer conga (schema 99",
        ),
    ] {
        let rig = Rig::new();
        Connection::open(rig.path()).unwrap().execute_batch(sql).unwrap();
        let before = std::fs::read(rig.path()).unwrap();
        let Err(StoreError::Broken(why)) = rig.open_line("orders", rig.options()).await else {
            panic!("opened {sql}");
        };
        assert!(why.contains(says), "{why}");
        assert_eq!(std::fs::read(rig.path()).unwrap(), before);
    }
}

/// What each version of the schema has beyond the one before it, taken back: from the latest to the first.
const DOWNGRADES: [&str; 9] = [
    "DROP TABLE passed; ALTER TABLE line DROP COLUMN missing;",
    "DROP INDEX flight_suspect; DROP INDEX dead_halted; ALTER TABLE flight DROP COLUMN excused;
     ALTER TABLE flight DROP COLUMN crashes; ALTER TABLE dead DROP COLUMN open;",
    "ALTER TABLE line DROP COLUMN flow; ALTER TABLE line DROP COLUMN flow_since; ALTER TABLE line DROP COLUMN rate;
     ALTER TABLE line DROP COLUMN credit; ALTER TABLE line DROP COLUMN credit_at;",
    "DROP INDEX flight_key; DROP INDEX processed_key; ALTER TABLE flight DROP COLUMN key;
     ALTER TABLE processed DROP COLUMN key; ALTER TABLE line DROP COLUMN shape; ALTER TABLE line DROP COLUMN in_place;",
    "DROP INDEX record_position; DROP INDEX dead_cursor; ALTER TABLE dead DROP COLUMN cursor;
     ALTER TABLE line DROP COLUMN keep; ALTER TABLE line DROP COLUMN safe; ALTER TABLE line DROP COLUMN below;
     ALTER TABLE line DROP COLUMN until;",
    "DROP TABLE producer; ALTER TABLE line DROP COLUMN consumer_term; ALTER TABLE line DROP COLUMN consumer;
     ALTER TABLE line DROP COLUMN consumer_since; ALTER TABLE line DROP COLUMN consumer_deadline;",
    "ALTER TABLE input RENAME TO i;
     CREATE TABLE input (line INTEGER NOT NULL, position INTEGER NOT NULL, body BLOB NOT NULL,
         PRIMARY KEY (line, position)) STRICT, WITHOUT ROWID;
     INSERT INTO input SELECT 1, place - (1 << 48), body FROM i; DROP TABLE i; DROP TABLE output;
     CREATE TABLE output (line INTEGER NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL,
         PRIMARY KEY (line, position)) STRICT, WITHOUT ROWID;",
    "DROP TABLE processed;
     CREATE TABLE processed (line INTEGER NOT NULL, cursor INTEGER NOT NULL, position INTEGER NOT NULL, record INTEGER,
         open TEXT, died INTEGER, PRIMARY KEY (line, cursor)) STRICT, WITHOUT ROWID;",
    "ALTER TABLE line DROP COLUMN told;",
];

const LATEST: usize = DOWNGRADES.len() + 1;

/// Every column with its type and default, and every index, whatever their order.
fn schema_of(rig: &Rig) -> Vec<String> {
    let tool = Connection::open(rig.path()).unwrap();
    let columns = "SELECT m.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk || ' ' || \
                   coalesce(c.dflt_value, '') FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c ORDER BY 1";
    let mut statement = tool.prepare(columns).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

#[tokio::test]
async fn a_file_of_an_older_version_is_brought_up_to_date() {
    let new = Rig::new();
    drop(new.open().await);
    for versions in 1..=DOWNGRADES.len() {
        let rig = Rig::new();
        let store = rig.open().await;
        store.send(&[Bytes::from_static(b"a")], None).await.unwrap();
        drop(store);
        let old = DOWNGRADES[..versions].concat() + &format!("PRAGMA user_version = {}", LATEST - versions);
        Connection::open(rig.path()).unwrap().execute_batch(&old).unwrap();
        assert_ne!(schema_of(&rig), schema_of(&new));
        let all = (0..4).map(|_| rig.open_line("orders", SqliteOptions::default()));
        for store in futures_util::future::join_all(all).await {
            store.unwrap();
        }
        assert_eq!(rig.open().await.status().await.unwrap().waiting, 1);
        assert_eq!(
            rig.count("SELECT user_version FROM pragma_user_version"),
            i64::try_from(LATEST).unwrap()
        );
        assert_eq!(schema_of(&rig), schema_of(&new), "from version {}", LATEST - versions);
    }
}

#[tokio::test]
async fn a_path_without_a_directory_says_what_to_do() {
    let rig = Rig::new();
    let path = rig.directory.path().join("missing/conga.db");
    let opened = SqliteStore::open(&path, &"orders".parse().unwrap(), rig.options()).await;
    assert!(matches!(opened, Err(StoreError::Broken(why)) if why.contains("its directory exists")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_can_open_a_new_file_at_once() {
    let rig = Rig::new();
    let all = (0..8).map(|_| rig.open_line("orders", SqliteOptions::default()));
    for store in futures_util::future::join_all(all).await {
        store.unwrap();
    }
    assert_eq!(rig.count("SELECT count(*) FROM line"), 1);
}

#[tokio::test]
async fn a_lock_of_another_tool_is_waited_for_and_then_named() {
    let rig = Rig::new();
    let store = rig.open().await;
    let tool = Connection::open(rig.path()).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sent = store.send(&[Bytes::from_static(b"a")], None).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(why)) if why.contains("locked")));
    assert_eq!(store.status().await.unwrap().waiting, 0, "reads go on");
    tool.execute_batch("ROLLBACK").unwrap();
    store.send(&[Bytes::from_static(b"a")], None).await.unwrap();
    assert_eq!(store.status().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn what_is_no_file_says_what_to_do() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path()).unwrap();
    for (path, says) in [
        (rig.path(), "is a directory; name a file in it"),
        (PathBuf::from("/dev/null"), "is no regular file"),
    ] {
        let opened = SqliteStore::open(&path, &"orders".parse().unwrap(), rig.options()).await;
        assert!(
            matches!(&opened, Err(StoreError::Broken(why)) if why.contains(says)),
            "{opened:?}"
        );
    }
}

/// SQLite takes a file of no bytes for a new database, and deletes the log that is left of the old one.
#[tokio::test]
async fn a_log_without_its_file_is_not_deleted() {
    for gone in [false, true] {
        let rig = Rig::new();
        let log = rig.directory.path().join("conga.db-wal");
        let store = rig.open().await;
        store.send(&[Bytes::from_static(b"a")], None).await.unwrap();
        let bytes = std::fs::read(&log).unwrap();
        drop(store);
        std::fs::write(&log, &bytes).unwrap();
        if gone {
            std::fs::remove_file(rig.path()).unwrap();
        } else {
            std::fs::write(rig.path(), "").unwrap();
        }
        let Err(StoreError::Broken(why)) = rig.open_line("orders", rig.options()).await else {
            panic!("opened what is left of a store");
        };
        assert!(why.contains("is empty or gone, but its log"), "{why}");
        assert_eq!(std::fs::read(&log).unwrap(), bytes);
        assert_eq!(rig.path().exists(), !gone);
    }
}

/// The log of a file that is not for us stays beside it, with all that is in it.
#[tokio::test]
async fn a_newer_file_is_left_untouched_with_its_log() {
    let rig = Rig::new();
    let store = rig.open().await;
    store.send(&[Bytes::from_static(b"a")], None).await.unwrap();
    let tool = Connection::open(rig.path()).unwrap();
    tool.execute_batch("PRAGMA user_version = 99").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["conga.db", "conga.db-wal"] {
        std::fs::copy(rig.directory.path().join(name), elsewhere.path().join(name)).unwrap();
    }
    let read = |name| std::fs::read(elsewhere.path().join(name)).unwrap();
    let before = (read("conga.db"), read("conga.db-wal"));
    let copy = elsewhere.path().join("conga.db");
    let opened = SqliteStore::open(&copy, &"orders".parse().unwrap(), rig.options()).await;
    assert!(
        matches!(&opened, Err(StoreError::Broken(why)) if why.contains("newer conga (schema 99")),
        "{opened:?}"
    );
    assert_eq!((read("conga.db"), read("conga.db-wal")), before);
}

/// SQLite has the log beside the file and not beside the link; what is synced has to be the same.
#[tokio::test]
async fn a_link_leads_to_the_same_store_and_its_log() {
    let rig = Rig::new();
    let link = tempfile::tempdir().unwrap();
    let path = link.path().join("link.db");
    std::os::unix::fs::symlink(rig.path(), &path).unwrap();
    let store = rig.open().await;
    let mut hints = store.wakes().listen(&[Topic::Input]);
    let linked = SqliteStore::open(&path, &"orders".parse().unwrap(), rig.options())
        .await
        .unwrap();
    linked.send(&[Bytes::from_static(b"a")], None).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(20), hints.hinted()).await;
    assert!(heard.is_ok(), "nobody woke the one who came without the link");
    assert_eq!(store.status().await.unwrap().waiting, 1);
    let beside = std::fs::read_dir(link.path()).unwrap().count();
    assert_eq!(beside, 1, "nothing stands beside the link");
}

#[tokio::test]
async fn a_bell_that_could_not_be_hung_is_hung_later() {
    let rig = Rig::new();
    let in_its_place = rig.directory.path().join("conga.db-wake");
    std::fs::create_dir(&in_its_place).unwrap();
    let (one, two) = (rig.open().await, rig.open().await);
    std::fs::remove_dir(&in_its_place).unwrap();
    let mut input = two.wakes().listen(&[Topic::Input]);
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        one.send(&[Bytes::from_static(b"a")], None).await.unwrap();
        two.status().await.unwrap();
        if tokio::time::timeout(Duration::from_millis(20), input.hinted())
            .await
            .is_ok()
        {
            break;
        }
        assert!(std::time::Instant::now() < limit, "still deaf");
    }
}
