//! What processes a message, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use conga::process::http::HttpUrl;

use super::{parse_duration, wrong};

/// How a handler is asked.
#[derive(Debug, Clone)]
pub(crate) struct HandlingSettings {
    pub(crate) timeout: Option<Duration>,
    /// As it was asked for.
    pub(crate) workers: Option<usize>,
    pub(crate) at_once: usize,
    /// How long a child has to say that it is ready.
    pub(crate) ready: Option<Duration>,
    pub(crate) http_mode: conga::process::http::HttpMode,
    pub(crate) http2: bool,
}

/// What processes a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandlerSpec {
    /// Wait for a time between these, then answer with the payload; zero is `echo`.
    Sleep { least: Duration, most: Duration },
    /// Run the SQL of this file, in the transaction that records.
    Sql(PathBuf),
    /// Ask children that run this command.
    Exec(String),
    /// Post it there.
    Http(HttpUrl),
}

impl HandlerSpec {
    pub(super) const ECHO: Self = Self::Sleep {
        least: Duration::ZERO,
        most: Duration::ZERO,
    };
}

impl std::str::FromStr for HandlerSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            None if text == "echo" => Ok(Self::ECHO),
            Some(("sleep", time)) => {
                let (least, most) = time.split_once("..").unwrap_or((time, time));
                let (least, most) = (parse_duration(least)?, parse_duration(most)?);
                if least > most {
                    return Err(wrong(format!("`{text}`: the longer time goes last")));
                }
                Ok(Self::Sleep { least, most })
            }
            Some(("sql", path)) if !path.is_empty() => Ok(Self::Sql(PathBuf::from(path))),
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Self::Exec(command.to_owned())),
            Some(("http" | "https", _)) => text
                .parse()
                .map(Self::Http)
                .map_err(|error| wrong(format!("--handler: {error}"))),
            // It may be a URL with a password in it.
            _ if text.contains("://") => Err(wrong(
                "what is given is no handler: of URLs there are http://… and https://…",
            )),
            _ => Err(wrong(format!(
                "`{text}` is no handler: use exec:COMMAND, http://… or https://…, sql:FILE, echo, sleep:DURATION as in \
                 sleep:500ms, or a range as in sleep:5ms..50ms"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_read_or_refused_with_a_way_out() {
        let spec = |text: &str| text.parse::<HandlerSpec>();
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(50));
        assert_eq!(spec("echo").unwrap(), HandlerSpec::ECHO);
        assert_eq!(spec("sleep:50ms").unwrap(), HandlerSpec::Sleep { least: most, most });
        assert_eq!(spec("sleep:5ms..50ms").unwrap(), HandlerSpec::Sleep { least, most });
        assert_eq!(spec("sql:a/b:c.sql").unwrap(), HandlerSpec::Sql("a/b:c.sql".into()));
        for bad in [
            "",
            "slep:1s",
            "sleep",
            "sql:",
            "sleep:x",
            "sleep:2s..1s",
            "exec:",
            "exec: ",
            "http:",
            "http://",
            "ftp://h/",
        ] {
            assert!(spec(bad).is_err(), "{bad}");
        }
        assert_eq!(spec("exec:a | b:c").unwrap(), HandlerSpec::Exec("a | b:c".to_owned()));
        let secret = spec("https://u:secret@h/a?token=secret").unwrap();
        assert_eq!(format!("{secret:?}"), "Http(https://h/a)");
        for bad in ["https://u:secret@h:x/", "htps://u:secret@h/"] {
            assert!(!spec(bad).unwrap_err().to_string().contains("secret"));
        }
    }
}
