//! A command to a Redis server and its answer, blocking and with the standard library only: for those who set up
//! servers. The tests of all crates take this same file through `#[path]`.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer. An error is an [`io::Error`] with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Answer>),
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl Answer {
    /// The text, or the number in digits; empty for anything else.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Nothing | Self::List(_) => String::new(),
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }
}

/// Sends a command to the server at `port` of the loopback.
///
/// # Errors
/// If the server can't be reached, does not answer in time, or answers with an error.
pub(crate) fn ask(port: u16, words: &[&str]) -> io::Result<Answer> {
    let named = |error: io::Error| {
        let what = format!("{} to the Redis server at port {port}: {error}", words.join(" "));
        io::Error::new(error.kind(), what)
    };
    let send = || -> io::Result<Answer> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        stream.write_all(&command)?;
        read(&mut BufReader::new(stream))
    };
    send().map_err(named)
}

/// Waits until `is` says so.
///
/// # Errors
/// If it does not within the limit; the error names `what` was waited for.
#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
pub(crate) fn wait_until(what: &str, limit: Duration, mut is: impl FnMut() -> bool) -> io::Result<()> {
    let start = Instant::now();
    while !is() {
        if start.elapsed() > limit {
            let what = format!("{what}: not within {limit:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn read(from: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("`{line}` is no answer of Redis"));
    let rest = line.get(1..).ok_or_else(strange)?;
    let number = || rest.parse::<i64>().map_err(|_| strange());
    match line.as_bytes().first() {
        Some(b'+') => Ok(Answer::Text(rest.to_owned())),
        Some(b'-') => Err(io::Error::other(rest.to_owned())),
        Some(b':') => number().map(Answer::Number),
        Some(b'$') => {
            let Ok(length) = usize::try_from(number()?) else {
                return Ok(Answer::Nothing);
            };
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Answer::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Some(b'*') => {
            let Ok(length) = usize::try_from(number()?) else {
                return Ok(Answer::Nothing);
            };
            (0..length)
                .map(|_| read(from))
                .collect::<io::Result<_>>()
                .map(Answer::List)
        }
        _ => Err(strange()),
    }
}
