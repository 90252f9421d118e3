//! Carrying one connection: two directions, each with a queue of what is on its way.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::{Shared, Trick, Weather};

/// At most so many bytes of one direction of one connection are held here; the rest stays with TCP.
const QUEUE_BYTES: usize = 1 << 20;
/// And at most so many pieces of them.
const QUEUE_PIECES: usize = 4_096;
/// At most so many bytes in one piece.
const PIECE_BYTES: usize = 16 << 10;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

impl Weather {
    fn passes(self, way: Way) -> bool {
        match (self, way) {
            (Self::BlackHole { to_server, .. }, Way::ToServer) => !to_server,
            (Self::BlackHole { to_client, .. }, Way::ToClient) => !to_client,
            _ => true,
        }
    }
}

/// Carries one connection to its end.
pub(super) async fn carry(mut client: TcpStream, shared: &Shared, born: u64) {
    let mut control = shared.control.subscribe();
    let reset = async {
        // An error means that the proxy is gone, and with it this task.
        let _ = control.wait_for(|control| control.resets > born).await;
    };
    tokio::pin!(reset);
    let may = tokio::select! {
        biased;
        () = &mut reset => false,
        () = passable(shared, Way::ToServer) => true,
    };
    // Once begun it is not given up: a call that the server has taken already would end without a reset.
    let server = if may {
        TcpStream::connect(shared.server).await.ok()
    } else {
        None
    };
    let Some(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let both_ended = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let asked = AtomicBool::new(false);
        let up = pump(from_client, to_server, Way::ToServer, shared, &asked);
        let down = pump(from_server, to_client, Way::ToClient, shared, &asked);
        // A reset comes first, whatever the weather has become since.
        tokio::select! {
            biased;
            () = &mut reset => false,
            ended = async { tokio::try_join!(up, down) } => ended.is_ok(),
        }
    };
    if !both_ended {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Returns when bytes pass this way.
async fn passable(shared: &Shared, way: Way) {
    let mut control = shared.control.subscribe();
    let _ = control.wait_for(|control| control.weather.passes(way)).await;
}

/// The connection has to be reset.
struct Broken;

/// What is on its way, and when it may arrive.
struct Piece {
    due: Option<Instant>,
    what: What,
}

enum What {
    /// Bytes, and how many of them have arrived.
    Bytes(Vec<u8>, usize),
    End,
    Reset,
}

/// Carries one direction until its end has arrived.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    shared: &Shared,
    asked: &AtomicBool,
) -> Result<(), Broken> {
    let mut control = shared.control.subscribe();
    // Only what the client says makes the server's words a reply.
    let saying = (way == Way::ToServer).then_some((shared, asked));
    let mut queue: VecDeque<Piece> = VecDeque::new();
    let (mut held, mut ended) = (0, false);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let passes = control.borrow_and_update().weather.passes(way);
        tokio::select! {
            biased;
            changed = control.changed() => changed.map_err(|_| Broken)?,
            written = arrive(&mut to, queue.front(), saying), if passes && !queue.is_empty() => {
                let Ok(count) = written else {
                    // The other side hears of it when anything gets there.
                    passable(shared, way.back()).await;
                    return Err(Broken);
                };
                held -= count;
                match &mut queue[0].what {
                    What::End => return Ok(()),
                    What::Reset => return Err(Broken),
                    What::Bytes(bytes, done) => {
                        *done += count;
                        if *done == bytes.len() {
                            queue.pop_front();
                        }
                    }
                }
            }
            read = from.read(&mut buffer), if !ended && held < QUEUE_BYTES && queue.len() < QUEUE_PIECES => {
                let due = match shared.control.borrow().weather {
                    Weather::Delay(time) => Some(Instant::now() + time),
                    _ => None,
                };
                let (bytes, end) = match read {
                    Ok(0) => (&[][..], Some(What::End)),
                    Err(_) => (&[][..], Some(What::Reset)),
                    Ok(count) => play(way, shared, asked, &buffer[..count]),
                };
                if !bytes.is_empty() {
                    held += bytes.len();
                    queue.push_back(Piece { due, what: What::Bytes(bytes.to_vec(), 0) });
                }
                if let Some(what) = end {
                    ended = true;
                    queue.push_back(Piece { due, what });
                }
            }
        }
    }
}

/// What the trick in store, if there is one, leaves of what was read.
fn play<'a>(way: Way, shared: &Shared, asked: &AtomicBool, read: &'a [u8]) -> (&'a [u8], Option<What>) {
    if way == Way::ToServer || !asked.swap(false, Ordering::SeqCst) {
        return (read, None);
    }
    match shared.trick.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => (read, None),
        Some((Trick::Cut, _)) => (&read[..read.len() / 2], Some(What::Reset)),
        Some((Trick::Drop, _)) => (&[], Some(What::Reset)),
    }
}

/// Lets the first piece arrive, or a part of it. How many bytes. Cancel-safe.
async fn arrive(
    to: &mut WriteHalf<'_>,
    piece: Option<&Piece>,
    saying: Option<(&Shared, &AtomicBool)>,
) -> io::Result<usize> {
    let Some(piece) = piece else {
        return std::future::pending().await;
    };
    if let Some(due) = piece.due {
        sleep_until(due).await;
    }
    match &piece.what {
        What::Bytes(bytes, done) => {
            if let Some((shared, asked)) = saying
                && shared.is_meant(&bytes[*done..])
            {
                asked.store(true, Ordering::SeqCst);
            }
            to.write(&bytes[*done..]).await
        }
        What::End => to.shutdown().await.map(|()| 0),
        What::Reset => Ok(0),
    }
}
