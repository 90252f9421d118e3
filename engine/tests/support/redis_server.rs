//! A Redis server of its own for a test: on a free port of the loopback, in a directory of its own, without
//! persistence. It ends when the value is dropped. For use by other test crates through `#[path]`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer its first command.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    /// Removed after the server has ended.
    _directory: tempfile::TempDir,
}

#[allow(dead_code, reason = "not every test crate that includes this uses all of it")]
impl RedisServer {
    /// Starts a server.
    ///
    /// # Panics
    /// If `redis-server` is not installed or does not come up.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments, as in `["--maxmemory", "10mb"]`.
    ///
    /// # Panics
    /// If `redis-server` is not installed or does not come up.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        // Between finding a port free and the server's bind somebody else may take it.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(arguments) {
                return server;
            }
        }
        panic!("redis-server did not come up within {PATIENCE:?}, five times over, with {arguments:?}");
    }

    /// The URL without a database.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port on the loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process, to send signals to.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn try_start(arguments: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port on the loopback")
            .port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "can't start redis-server ({error}). These tests need it: `apt install redis-server` (Debian, \
                     Ubuntu), `brew install redis` (macOS), `dnf install redis` (Fedora)"
                )
            });
        let mut server = Self {
            child,
            port,
            _directory: directory,
        };
        server.comes_up().then_some(server)
    }

    fn comes_up(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether it answers a PING, be it with an error that asks for a password.
    fn answers(&self) -> bool {
        let ping = || -> std::io::Result<u8> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut first = [0; 8];
            let length = stream.read(&mut first)?;
            Ok(if first[..length].starts_with(b"-LOADING") {
                0
            } else {
                first[0]
            })
        };
        matches!(ping(), Ok(b'+' | b'-'))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
