//! TLS, against a server with a certificate of its own.

use std::path::Path;
use std::process::Command;

use conga::ledger::postgres::PostgresLedger;
use conga::ledger::{Ledger as _, LedgerError};
use tokio::task::block_in_place;

use crate::desk::text;
use crate::postgres_server::PostgresServer;

/// A certificate authority, and by it a certificate for `name`.
fn certify(folder: &Path, name: &str) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let root = [
        "-x509", "-days", "2", "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.pem",
    ];
    openssl(&[&new[..], &root].concat());
    openssl(
        &[
            &new[..],
            &["-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr"],
        ]
        .concat(),
    );
    std::fs::write(
        folder.join("names"),
        format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n"),
    )
    .unwrap();
    let sign =
        "x509 -req -days 2 -in server.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile names -out server.pem";
    openssl(&sign.split(' ').collect::<Vec<_>>());
}

async fn works(url: &str) -> Result<(), LedgerError> {
    let ledger = PostgresLedger::open(url, &"orders".parse().unwrap()).await?;
    ledger.record(&[text(1, "a", "x")]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_asks_for_what_it_says() {
    let (server, plain) = block_in_place(|| {
        let mut server = PostgresServer::start(&["fsync=off"]).unwrap();
        let plain = PostgresServer::start(&["fsync=off"]).unwrap();
        certify(server.folder(), "IP:127.0.0.1");
        server.own(server.folder()).unwrap();
        let path = |name: &str| server.folder().join(name).display().to_string();
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", path("server.pem")),
            format!("ssl_key_file={}", path("server.key")),
        ];
        server.set(&settings.each_ref().map(String::as_str));
        server.start_again().unwrap();
        (server, plain)
    });
    let root = server.folder().join("root.pem").display().to_string();
    let by_name = server.url().replace("127.0.0.1", "localhost");
    for query in [
        "sslmode=disable".to_owned(),
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={root}"),
        format!("sslmode=verify-full&sslrootcert={root}"),
    ] {
        works(&format!("{}?{query}", server.url())).await.unwrap();
    }
    // Its certificate is for the address, not for the name.
    works(&format!("{by_name}?sslmode=verify-ca&sslrootcert={root}"))
        .await
        .unwrap();
    for (url, query) in [
        (&by_name, format!("sslmode=verify-full&sslrootcert={root}")),
        (&server.url(), "sslmode=verify-ca&sslrootcert=system".to_owned()),
        (&plain.url(), "sslmode=require".to_owned()),
    ] {
        let refused = works(&format!("{url}?{query}")).await;
        assert!(matches!(refused, Err(LedgerError::Broken(_))), "{query}: {refused:?}");
    }
    works(&format!("{}?sslmode=prefer", plain.url())).await.unwrap();
}
