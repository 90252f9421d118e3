//! A PostgreSQL server of its own: on a free port of the loopback, in a folder of its own, without a password and without a
//! socket in the file system. It ends when the value is dropped.
//!
//! The standard library only, and blocking: the tests of all crates take this same file through `#[path]`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer, or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Who runs it, where we are root, for it refuses to run as that.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A server that runs, or was ended and can be started again.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    child: Child,
    port: u16,
    programs: Programs,
    arguments: Vec<String>,
    /// Removed after the server has ended.
    folder: tempfile::TempDir,
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl PostgresServer {
    /// Makes a database and starts a server with further settings, as in `["fsync=off"]`; waits until it answers.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or does not come up.
    pub(crate) fn start(settings: &[&str]) -> io::Result<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("conga-postgres-").tempdir()?;
        programs.own(folder.path())?;
        programs.make(&folder.path().join("data"))?;
        let arguments: Vec<String> = settings
            .iter()
            .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
            .collect();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = programs.serve(folder.path(), port, &arguments)?;
        let mut server = Self {
            child,
            port,
            programs,
            arguments,
            folder,
        };
        server.comes_up()?;
        Ok(server)
    }

    /// Ends it at once, by SIGKILL, as a crash would.
    ///
    /// # Errors
    /// If it can't be killed.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends it as an administrator would, without waiting for who is connected (fast shutdown).
    ///
    /// # Errors
    /// If it does not end.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        self.signal("-INT")?;
        self.ends()
    }

    /// Starts it again on the same port, in the same folder, and waits until it answers.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub(crate) fn start_again(&mut self) -> io::Result<()> {
        self.kill()?;
        let start = Instant::now();
        loop {
            self.child = self.programs.serve(self.folder.path(), self.port, &self.arguments)?;
            match self.comes_up() {
                // Who served a connection has not yet noticed that the server is gone.
                Err(error) if start.elapsed() > PATIENCE || error.kind() == io::ErrorKind::TimedOut => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Further settings, from its next start on.
    pub(crate) fn set(&mut self, settings: &[&str]) {
        for setting in settings {
            self.arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://conga@127.0.0.1:{}/postgres", self.port)
    }

    /// The port on the loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process, to send signals to.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A folder that the server can read.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives what is in the folder to the user who runs the server.
    ///
    /// # Errors
    /// If that is not allowed.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        self.programs.own(path)
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        done(Command::new("kill").args([name, &self.child.id().to_string()]))
    }

    fn ends(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "postgres did not end"))
    }

    fn comes_up(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "postgres ended with {status}: {}",
                    self.said()
                )));
            }
            if self.answers() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let what = format!("postgres did not answer in {PATIENCE:?}: {}", self.said());
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// The end of its log.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// Whether it takes a connection: while it recovers it answers by an error.
    /// Source: the manual, "Frontend/Backend Protocol", "Start-up".
    fn answers(&self) -> bool {
        let ask = || -> io::Result<u8> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let words = b"user\0conga\0database\0postgres\0\0";
            let length = u32::try_from(words.len() + 8).unwrap_or(0);
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(&196_608_u32.to_be_bytes())?;
            stream.write_all(words)?;
            let mut first = [0];
            stream.read_exact(&mut first)?;
            Ok(first[0])
        };
        matches!(ask(), Ok(b'R'))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It ends all its processes, which SIGKILL would leave.
            let _ = self.signal("-CONT");
            let _ = self.signal("-QUIT");
            if self.ends().is_err() {
                let _ = self.kill();
            }
        }
    }
}

/// Where PostgreSQL's programs are, and who runs them.
#[derive(Debug, Clone)]
struct Programs {
    folder: PathBuf,
    /// Where we are root.
    user: Option<&'static str>,
}

impl Programs {
    fn find() -> io::Result<Self> {
        let root = text(Command::new("id").arg("-u"))? == "0";
        let user = if root {
            let known = USERS
                .into_iter()
                .find(|user| text(Command::new("id").args(["-u", *user])).is_ok());
            Some(known.ok_or_else(|| io::Error::other("PostgreSQL does not run as root, and there is no other user"))?)
        } else {
            None
        };
        // Debian keeps them out of the PATH, one folder a version.
        let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .collect();
        folders.sort_by_key(|folder| {
            let version = folder.parent().and_then(Path::file_name)?.to_str()?;
            version.parse::<u32>().ok()
        });
        let paths = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&paths));
        let found = folders
            .into_iter()
            .rev()
            .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
        match found {
            Some(folder) => Ok(Self { folder, user }),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "can't find PostgreSQL's initdb and postgres: `apt install postgresql` (Debian, Ubuntu), \
                 `brew install postgresql` (macOS), `dnf install postgresql-server` (Fedora)",
            )),
        }
    }

    fn command(&self, program: &str) -> Command {
        let path = self.folder.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid"]).arg(group(user));
                command.args(["--clear-groups", "--"]).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C");
        command
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(user) => done(Command::new("chown").args(["-R", user]).arg(path)),
            None => Ok(()),
        }
    }

    fn make(&self, data: &Path) -> io::Result<()> {
        let mut command = self.command("initdb");
        command.arg("-D").arg(data);
        command.args([
            "-U",
            "conga",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        done(command.stdout(Stdio::null()))
    }

    fn serve(&self, folder: &Path, port: u16, arguments: &[String]) -> io::Result<Child> {
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(folder.join("data"));
        command.args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ]);
        command.args(arguments).stdout(Stdio::null()).stderr(log).spawn()
    }
}

fn group(user: &str) -> String {
    text(Command::new("id").args(["-g", user])).unwrap_or_else(|_| user.to_owned())
}

fn text(command: &mut Command) -> io::Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(io::Error::other(format!("{command:?} ended with {}", output.status)))
    }
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "{command:?} ended with {}: {said}",
        output.status
    )))
}
