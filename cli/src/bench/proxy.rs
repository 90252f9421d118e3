//! A proxy in front of one server that does to its connections what networks do: nothing at all, delay, silence one way
//! or both, refusal, resets, replies that are cut off or lost.
//!
//! std and tokio only (features net, io-util, sync, time, macros, rt): the tests of all crates take this same file, and
//! with it those in proxy/, through `#[path]`. noxious, the crate for this, is a Toxiproxy with an HTTP interface and
//! named "toxics"; it can't hit one reply, hold bytes back to deliver them late, or reset all connections in one go.
//!
//! Bytes never change places and none vanish: what is held back stays in a queue of bounded size, then in the kernel's
//! buffers, then with the sender, as behind a real network that is gone. Only a reset loses bytes. An end of a
//! connection travels like bytes do, so behind a black hole the other side does not hear of it either.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

// The path is said so that it also holds for who includes this file through a path of its own.
#[path = "proxy/carry.rs"]
mod carry;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// What the network is like.
#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Weather {
    /// Bytes pass at once.
    #[default]
    Fair,
    /// No bytes pass, and nobody is told. When it is over they arrive, late.
    BlackHole {
        /// No bytes pass from the client to the server.
        to_server: bool,
        /// No bytes pass from the server to the client.
        to_client: bool,
        /// What becomes of new connections.
        door: Door,
    },
    /// Bytes, and ends of connections, take this long each way.
    Delay(Duration),
    /// Nobody listens: new connections are refused. Those that there are go on; [`Proxy::reset`] ends them.
    Refuse,
}

/// New connections in a black hole.
#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// They are made, and swallowed like the others.
    Open,
    /// Nobody answers the call: it runs into the client's timeout (on Linux; elsewhere as [`Door::Open`]).
    Shut,
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl Weather {
    /// A black hole both ways that swallows new connections.
    pub(crate) const BLACK_HOLE: Self = Self::BlackHole {
        to_server: true,
        to_client: true,
        door: Door::Open,
    };

    fn is_shut(self) -> bool {
        matches!(self, Self::BlackHole { door: Door::Shut, .. })
    }
}

/// What is done to the next reply, once.
#[derive(Debug, Clone, Copy)]
enum Trick {
    Cut,
    Drop,
}

#[derive(Debug, Clone, Copy, Default)]
struct Control {
    weather: Weather,
    /// How often everybody was reset.
    resets: u64,
}

/// What the proxy and its connections share.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    control: watch::Sender<Control>,
    /// What is done, and to the reply to what.
    trick: Mutex<Option<(Trick, String)>>,
    connections: AtomicUsize,
}

/// One listener on a port of its own, in front of one server. Dropped, it ends, and with it its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    door: mpsc::Sender<(Weather, oneshot::Sender<io::Result<()>>)>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl Proxy {
    /// Listens on a free port of the loopback for connections to `server`. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// If no port can be had.
    pub(crate) fn start(server: SocketAddr) -> io::Result<Self> {
        // It never listens: it holds the port while nobody else does.
        let holder = socket()?;
        holder.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = holder.local_addr()?;
        let entrance = Entrance::open(address)?;
        let shared = Arc::new(Shared {
            server,
            control: watch::Sender::new(Control::default()),
            trick: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let (door, orders) = mpsc::channel(1);
        let doorman = Doorman {
            shared: shared.clone(),
            address,
            entrance,
            _holder: holder,
        };
        Ok(Self {
            shared,
            address,
            door,
            task: tokio::spawn(doorman.run(orders)),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on the loopback.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections go through it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resets all connections, towards both sides: each gets an RST. How many there were. What was on its way is lost.
    pub(crate) fn reset(&self) -> usize {
        let count = self.connections();
        self.shared.control.send_modify(|control| control.resets += 1);
        count
    }

    /// Changes the weather. When this returns it holds for all bytes and for new connections.
    ///
    /// # Errors
    /// If the port can't be listened on any more.
    pub(crate) async fn set(&self, weather: Weather) -> io::Result<()> {
        self.shared.control.send_modify(|control| control.weather = weather);
        let (tell, told) = oneshot::channel();
        let gone = || io::Error::other("the proxy has ended");
        self.door.send((weather, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// Fair weather again, and no trick in store.
    ///
    /// # Errors
    /// As [`Proxy::set`].
    pub(crate) async fn heal(&self) -> io::Result<()> {
        self.play(None);
        self.set(Weather::Fair).await
    }

    /// Of the reply to what is said next only the first half arrives, then the connection is reset. A reply is what the
    /// server says after the client has said something: what a server pushes by itself (Pub/Sub) is none.
    pub(crate) fn cut_next_reply(&self) {
        self.cut_reply_to("");
    }

    /// As [`Proxy::cut_next_reply`]; of the replies to what has these words in it.
    pub(crate) fn cut_reply_to(&self, words: &str) {
        self.play(Some((Trick::Cut, words.to_owned())));
    }

    /// The reply to what is said next is lost and the connection reset: the request has got there.
    pub(crate) fn drop_next_reply(&self) {
        self.drop_reply_to("");
    }

    /// As [`Proxy::drop_next_reply`]; of the replies to what has these words in it.
    pub(crate) fn drop_reply_to(&self, words: &str) {
        self.play(Some((Trick::Drop, words.to_owned())));
    }

    /// Whether a reply is still waited for, to cut or drop it.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared
            .trick
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn play(&self, trick: Option<(Trick, String)>) {
        *self.shared.trick.lock().unwrap_or_else(PoisonError::into_inner) = trick;
    }
}

impl Shared {
    /// Whether the reply to what the client says here is to be cut or lost.
    fn is_meant(&self, said: &[u8]) -> bool {
        match &*self.trick.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((_, words)) => words.is_empty() || said.windows(words.len()).any(|part| part == words.as_bytes()),
            None => false,
        }
    }
}

/// A socket that may share its port with others of this user.
fn socket() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    Ok(socket)
}

/// Where connections come in.
#[derive(Debug)]
enum Entrance {
    Open(TcpListener),
    /// Its queue is full, so that the kernel drops further calls.
    Full(
        #[allow(dead_code, reason = "held")] TcpListener,
        #[allow(dead_code, reason = "held")] Vec<TcpStream>,
    ),
    None,
}

impl Entrance {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = socket()?;
        socket.bind(address)?;
        Ok(Self::Open(socket.listen(BACKLOG)?))
    }

    async fn full(address: SocketAddr) -> io::Result<Self> {
        let socket = socket()?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let mut queue = Vec::new();
        // One is enough on Linux. Where a queue is never full, give up.
        while queue.len() < 4 {
            match timeout(Duration::from_millis(20), TcpStream::connect(address)).await {
                Ok(stream) => queue.push(stream?),
                Err(_) => break,
            }
        }
        Ok(Self::Full(listener, queue))
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => Ok(listener.accept().await?.0),
            Self::Full(..) | Self::None => std::future::pending().await,
        }
    }
}

struct Doorman {
    shared: Arc<Shared>,
    address: SocketAddr,
    entrance: Entrance,
    _holder: TcpSocket,
}

impl Doorman {
    async fn run(mut self, mut orders: mpsc::Receiver<(Weather, oneshot::Sender<io::Result<()>>)>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some((weather, tell)) = order else { return };
                    // Nobody may wait for it any more.
                    let _ = tell.send(self.change(weather).await);
                }
                accepted = self.entrance.accept() => {
                    let Ok(client) = accepted else {
                        // The caller was gone again, or there is no room for another file: not a reason to spin.
                        sleep(Duration::from_millis(1)).await;
                        continue;
                    };
                    self.shared.connections.fetch_add(1, Ordering::SeqCst);
                    let shared = self.shared.clone();
                    let born = self.shared.control.borrow().resets;
                    connections.spawn(async move {
                        carry::carry(client, &shared, born).await;
                        shared.connections.fetch_sub(1, Ordering::SeqCst);
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn change(&mut self, weather: Weather) -> io::Result<()> {
        let fits = match &self.entrance {
            Entrance::Open(_) => weather != Weather::Refuse && !weather.is_shut(),
            Entrance::Full(..) => weather.is_shut(),
            Entrance::None => weather == Weather::Refuse,
        };
        if fits {
            return Ok(());
        }
        // The old one goes first: two that listen would share the calls.
        self.entrance = Entrance::None;
        if weather.is_shut() {
            self.entrance = Entrance::full(self.address).await?;
        } else if weather != Weather::Refuse {
            self.entrance = Entrance::open(self.address)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
