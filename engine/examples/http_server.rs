//! A handler for `http://`: a `CloudEvent` comes in, the body of the answer is the result. HTTP/1.1, and HTTP/2 for `--http2`.
//!
//! `cargo run --release --example http_server -- [PORT] [MILLISECONDS]`: waits so long over each message. Prints its port.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpSocket};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(8080), |port| port.parse())?;
    let work = arguments.next().map_or(Ok(0), |work| work.parse())?;
    let listener = listen(port)?;
    println!("{}", listener.local_addr()?.port());
    serve(listener, Duration::from_millis(work)).await?;
    Ok(())
}

/// Has room for a burst: over HTTP/1.1 that is as many connections at once, and what does not fit tries again after a second.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(4_096)
}

pub(crate) async fn serve(listener: TcpListener, work: Duration) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut server = Builder::new(TokioExecutor::new());
            // All messages of a processor come over one connection.
            server.http2().max_concurrent_streams(10_000);
            let answer = service_fn(move |request| answer(request, work));
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    work: Duration,
) -> Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    tokio::time::sleep(work).await;
    let mut answer = Response::new(Full::new(body));
    if let Some(kind) = head.headers.get("content-type") {
        answer.headers_mut().insert("content-type", kind.clone());
    }
    Ok(answer)
}
