//! Each weather, seen from both ends of a connection.

#![allow(clippy::unwrap_used, reason = "tests")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::*;

/// How long it is looked whether nothing comes.
const NOTHING: Duration = Duration::from_millis(100);

/// Runs to its end, or fails: nothing here may hang.
fn bounded(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(20), test).await.expect("it does not hang") });
}

/// A server, a proxy in front of it, and the two ends of a connection through it.
async fn connected() -> (TcpListener, Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (listener, proxy, client, server)
}

async fn hears(stream: &mut TcpStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, words);
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(NOTHING, stream.read(&mut byte)).await.is_err());
}

async fn is_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn black(to_server: bool, to_client: bool) -> Weather {
    Weather::BlackHole {
        to_server,
        to_client,
        door: Door::Open,
    }
}

#[test]
fn all_bytes_pass_in_order_and_so_does_the_end() {
    bounded(async {
        let (_listener, proxy, mut client, mut server) = connected().await;
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        let write = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, ()) = tokio::join!(async { server.read_to_end(&mut read).await.unwrap() }, write);
        assert!(read == bytes, "the same, in the same order");
        // Half closed: the other way goes on.
        server.write_all(b"bye").await.unwrap();
        drop(server);
        hears(&mut client, b"bye").await;
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        while proxy.connections() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_black_hole_holds_back_what_it_is_told_to_and_delivers_it_late() {
    for (to_server, to_client) in [(true, true), (true, false), (false, true)] {
        bounded(async {
            let (_listener, proxy, mut client, mut server) = connected().await;
            proxy.set(black(to_server, to_client)).await.unwrap();
            client.write_all(b"question").await.unwrap();
            server.write_all(b"answer").await.unwrap();
            for (held, stream, words) in [
                (to_server, &mut server, &b"question"[..]),
                (to_client, &mut client, b"answer"),
            ] {
                if held {
                    hears_nothing(stream).await;
                } else {
                    hears(stream, words).await;
                }
            }
            proxy.heal().await.unwrap();
            if to_server {
                hears(&mut server, b"question").await;
            }
            if to_client {
                hears(&mut client, b"answer").await;
            }
        });
    }
}

#[test]
fn what_a_black_hole_holds_is_bounded_and_none_of_it_is_lost() {
    bounded(async {
        let (_listener, proxy, mut client, mut server) = connected().await;
        proxy.set(Weather::BLACK_HOLE).await.unwrap();
        let (chunk, mut sent) = (vec![7; 64 << 10], 0);
        while let Ok(count) = timeout(NOTHING, client.write(&chunk)).await {
            sent += count.unwrap();
            assert!(sent < 64 << 20, "the sender is held up");
        }
        proxy.heal().await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), sent);
    });
}

#[test]
fn nobody_hears_of_an_end_behind_a_black_hole() {
    bounded(async {
        let (_listener, proxy, client, mut server) = connected().await;
        proxy.set(Weather::BLACK_HOLE).await.unwrap();
        drop(client);
        hears_nothing(&mut server).await;
        proxy.heal().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn new_connections_in_a_black_hole_are_swallowed_or_not_made() {
    bounded(async {
        let (listener, proxy, _client, _server) = connected().await;
        proxy.set(Weather::BLACK_HOLE).await.unwrap();
        let mut swallowed = TcpStream::connect(proxy.address()).await.unwrap();
        swallowed.write_all(b"late").await.unwrap();
        assert!(timeout(NOTHING, listener.accept()).await.is_err());
        proxy.heal().await.unwrap();
        hears(&mut listener.accept().await.unwrap().0, b"late").await;
        if cfg!(target_os = "linux") {
            let door = Door::Shut;
            proxy
                .set(Weather::BlackHole {
                    to_server: true,
                    to_client: true,
                    door,
                })
                .await
                .unwrap();
            assert!(timeout(NOTHING, TcpStream::connect(proxy.address())).await.is_err());
            proxy.heal().await.unwrap();
        }
        TcpStream::connect(proxy.address()).await.unwrap();
        listener.accept().await.unwrap();
    });
}

#[test]
fn delay_counts_each_way_and_not_for_each_piece() {
    bounded(async {
        let (_listener, proxy, mut client, mut server) = connected().await;
        let delay = Duration::from_millis(50);
        proxy.set(Weather::Delay(delay)).await.unwrap();
        let start = Instant::now();
        for _ in 0..20 {
            client.write_all(b"x").await.unwrap();
            // Otherwise they are one piece.
            sleep(Duration::from_millis(1)).await;
        }
        hears(&mut server, &[b'x'; 20]).await;
        assert!(
            start.elapsed() >= delay && start.elapsed() < 10 * delay,
            "{:?}",
            start.elapsed()
        );
        let start = Instant::now();
        server.write_all(b"y").await.unwrap();
        hears(&mut client, b"y").await;
        assert!(start.elapsed() >= delay);
    });
}

#[test]
fn refused_is_only_who_comes_new() {
    bounded(async {
        let (listener, proxy, mut client, mut server) = connected().await;
        proxy.set(Weather::Refuse).await.unwrap();
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        client.write_all(b"x").await.unwrap();
        hears(&mut server, b"x").await;
        proxy.heal().await.unwrap();
        TcpStream::connect(proxy.address()).await.unwrap();
        listener.accept().await.unwrap();
        let address = proxy.address();
        drop(proxy);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_reset_is_one_for_both_sides_and_only_for_those_there_are() {
    bounded(async {
        let (listener, proxy, mut client, mut server) = connected().await;
        assert_eq!(proxy.reset(), 1);
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        // In a black hole too.
        proxy.set(Weather::BLACK_HOLE).await.unwrap();
        assert_eq!(proxy.reset(), 1);
        is_reset(&mut client).await;
        is_reset(&mut server).await;
    });
}

#[test]
fn one_reply_is_cut_or_lost_and_what_is_no_reply_passes() {
    for (cut, arrives) in [(true, &b"ans"[..]), (false, b"")] {
        bounded(async {
            let (_listener, proxy, mut client, mut server) = connected().await;
            if cut {
                proxy.cut_next_reply();
            } else {
                proxy.drop_next_reply();
            }
            server.write_all(b"pushed").await.unwrap();
            hears(&mut client, b"pushed").await;
            assert!(proxy.is_armed());
            client.write_all(b"question").await.unwrap();
            hears(&mut server, b"question").await;
            server.write_all(b"answer").await.unwrap();
            let mut heard = Vec::new();
            let error = client.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), &heard[..]), (io::ErrorKind::ConnectionReset, arrives));
            is_reset(&mut server).await;
            assert!(!proxy.is_armed());
        });
    }
}
