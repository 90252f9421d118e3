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
    let sent = store.send(&[Bytes::from_static(b"a")]).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(why)) if why.contains("locked")));
    assert_eq!(store.status().await.unwrap().waiting, 0, "reads go on");
    tool.execute_batch("ROLLBACK").unwrap();
    store.send(&[Bytes::from_static(b"a")]).await.unwrap();
    assert_eq!(store.status().await.unwrap().waiting, 1);
}
