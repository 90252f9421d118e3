//! A Redis server of its own: on a free port of the loopback, in a folder of its own, without persistence unless it is
//! asked for. It ends when the value is dropped.
//!
//! The standard library only, and blocking: the tests of all crates take this same file through `#[path]`.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer its first command.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs, or was killed and can be started again.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    /// Removed after the server has ended.
    folder: tempfile::TempDir,
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl RedisServer {
    /// Starts a server with further arguments, as in `["--maxmemory", "10mb"]`, and waits until it answers.
    ///
    /// # Errors
    /// If `redis-server` is not installed, or does not come up.
    pub(crate) fn start(arguments: &[&str]) -> io::Result<Self> {
        let mut last = None;
        // Between finding a port free and the server's bind somebody else may take it.
        for _ in 0..5 {
            match Self::try_start(arguments) {
                Ok(server) => return Ok(server),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("redis-server was not started")))
    }

    /// Ends it at once, by SIGKILL. What it has in memory is gone.
    ///
    /// # Errors
    /// If it can't be killed.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again on the same port, in the same folder, and waits until it answers.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub(crate) fn start_again(&mut self) -> io::Result<()> {
        self.kill()?;
        self.child = spawn(self.port, &self.folder, &self.arguments)?;
        self.comes_up()
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

    fn try_start(arguments: &[&str]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("conga-redis-").tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self {
            child: spawn(port, &folder, &arguments)?,
            port,
            arguments,
            folder,
        };
        server.comes_up().map(|()| server)
    }

    fn comes_up(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "redis-server {:?} ended with {status}",
                    self.arguments
                )));
            }
            if self.answers() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let what = format!("the server with {:?} did not answer in {PATIENCE:?}", self.arguments);
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// Whether it answers a PING, be it with an error that asks for a password.
    fn answers(&self) -> bool {
        let ping = || -> io::Result<u8> {
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

/// The server's program: `redis-server`, or what the environment says, as `CONGA_REDIS_SERVER=valkey-server`.
pub(crate) fn program() -> OsString {
    std::env::var_os("CONGA_REDIS_SERVER")
        .filter(|program| !program.is_empty())
        .unwrap_or_else(|| "redis-server".into())
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> io::Result<Child> {
    Command::new(program())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            let what = format!(
                "can't start {} ({error}): `apt install redis-server` (Debian, Ubuntu), `brew install redis` (macOS), \
                 `dnf install redis` (Fedora); another one, as Valkey's, is named by CONGA_REDIS_SERVER",
                program().display()
            );
            io::Error::new(error.kind(), what)
        })
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
