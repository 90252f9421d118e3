//! What Redis's errors mean for the caller: whether the step was done, and whether trying again can help.

use ::redis::{ErrorKind, RedisError};

use super::target::Address;
use crate::store::StoreError;

/// Why a command has no reply.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The server does not know the script: it was restarted or flushed. Nothing was done.
    NoScript,
    /// A key is not what it should be. Nothing was done: scripts read every key before they write the first.
    WrongType,
    /// The slot of the line's keys is another node's. Nothing was done.
    Moved(Option<Address>),
    /// The slot is on its way to another node, where this has to be asked for. Nothing was done.
    Ask(Option<Address>),
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The server refuses for now. It says so before it does anything; within a script, before the first write.
const PASSING: [&str; 10] = [
    "LOADING",
    "BUSY",
    "OOM",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "UNKILLABLE",
];

/// What a node of a cluster says to who takes it for a single server.
const CLUSTER: &str = "this Redis is a cluster, and the URL is that of a single server: use \
                       redis+cluster://user:password@host1:6379,host2:6379";

/// What a person has to do.
const LASTING: [(&str, &str); 5] = [
    (
        "NOAUTH",
        "Redis wants a password: put it into the URL, as in redis://user:password@host:6379",
    ),
    ("WRONGPASS", "Redis refuses the user or the password that the URL gives"),
    (
        "NOPERM",
        "this Redis user lacks a permission: it needs the line's keys and channels, `~{line}:*` and `&{line}:*`, and \
         the commands EVALSHA and SCRIPT LOAD and those that the scripts use",
    ),
    ("CROSSSLOT", CLUSTER),
    (
        "CONGA",
        "what is stored contradicts itself, so somebody else has changed it",
    ),
];

/// The meaning of an error on a command that was sent.
pub(super) fn of_command(error: &RedisError) -> Failure {
    if is_unanswered(error) {
        return StoreError::Unknown(error.to_string()).into();
    }
    of_reply(error)
}

/// The meaning of an error while connecting: nothing was sent.
pub(super) fn of_connecting(error: &RedisError) -> StoreError {
    if is_lost(error) {
        return StoreError::Unavailable(error.to_string());
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        // The reason is in the text only; a server that still loads also refuses to authenticate.
        let text = error.to_string();
        return match PASSING.iter().find(|code| text.contains(**code)) {
            Some(_) => StoreError::Unavailable(text),
            None => StoreError::Broken(format!(
                "Redis refuses the user or the password that the URL gives ({text})"
            )),
        };
    }
    match of_reply(error) {
        Failure::Store(error) => error,
        Failure::NoScript | Failure::WrongType | Failure::Moved(_) | Failure::Ask(_) => {
            StoreError::Unavailable(error.to_string())
        }
    }
}

/// Whether the connection broke or was silent for too long.
pub(super) fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}

/// Whether a command that was sent has no answer, and its connection can't be trusted with another: it broke, or what
/// came back can't be read.
pub(super) fn is_unanswered(error: &RedisError) -> bool {
    is_lost(error) || matches!(error.kind(), ErrorKind::Parse | ErrorKind::Client)
}

/// Whether another connection may reach a server that does not refuse: behind a name, the primary may be another now.
/// Where others say who it is, they are asked in more cases.
pub(super) fn is_elsewhere(error: &RedisError, movable: bool) -> bool {
    words(error).any(|word| match word.as_str() {
        "READONLY" | "MASTERDOWN" => true,
        "CLUSTERDOWN" | "NOREPLICAS" | "LOADING" => movable,
        _ => false,
    })
}

/// Whether the server refuses for now.
pub(super) fn is_passing(code: &str) -> bool {
    PASSING.contains(&code)
}

/// What to tell those who take a cluster for a single server; and those whose slot is on its way, as long as it is.
pub(super) fn of_redirection(address: Option<&Address>, is_cluster: bool) -> StoreError {
    if !is_cluster {
        return StoreError::Broken(CLUSTER.to_owned());
    }
    let to = address.map(|address| format!(" to {address}")).unwrap_or_default();
    StoreError::Unavailable(format!("the line's slot of the cluster is being moved{to}"))
}

fn of_reply(error: &RedisError) -> Failure {
    let text = error.to_string();
    for word in words(error) {
        if word == "NOSCRIPT" {
            return Failure::NoScript;
        }
        if word == "WRONGTYPE" {
            return Failure::WrongType;
        }
        if word == "MOVED" {
            return Failure::Moved(redirection(error));
        }
        if word == "ASK" {
            return Failure::Ask(redirection(error));
        }
        if word == "TRYAGAIN" {
            return of_redirection(None, true).into();
        }
        if PASSING.contains(&word.as_str()) {
            return StoreError::Unavailable(text).into();
        }
        if let Some((_, advice)) = LASTING.iter().find(|(code, _)| *code == word) {
            return StoreError::Broken(format!("{advice} ({text})")).into();
        }
    }
    if text.contains("max number of clients") || text.contains("killed by user") {
        return StoreError::Unavailable(text).into();
    }
    StoreError::Broken(format!(
        "Redis refuses a command; Conga needs Redis 6.2 or Valkey 7.2 or newer ({text})"
    ))
    .into()
}

/// Where MOVED and ASK send us: the slot, then the address.
fn redirection(error: &RedisError) -> Option<Address> {
    let errors = error.clone().into_server_errors()?;
    let mut details = errors.iter().filter_map(|(_, error)| {
        let redirects = matches!(error.code(), "MOVED" | "ASK");
        error.details().filter(|_| redirects)
    });
    details.find_map(|details| Address::read(details.split_ascii_whitespace().nth(1)?))
}

/// The error's code first. A script's error has it further on in servers before Redis 7, and a transaction has one
/// for each of its commands.
fn words(error: &RedisError) -> impl Iterator<Item = String> + use<> {
    let mut words = Vec::new();
    words.extend(error.code().map(str::to_owned));
    let errors = error.clone().into_server_errors();
    for (_, error) in errors.iter().flat_map(|errors| errors.iter()) {
        words.push(error.code().to_owned());
        let details = error.details().unwrap_or_default();
        if error.code() == "ERR" && details.contains("user_script") {
            words.extend(details.split([' ', ':', '-']).map(str::to_owned));
        }
    }
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: &str, detail: &str) -> RedisError {
        ::redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    #[test]
    fn a_server_that_refuses_for_now_has_done_nothing() {
        for code in PASSING {
            let failure = of_command(&reply(code, "and why"));
            assert!(
                matches!(failure, Failure::Store(StoreError::Unavailable(_))),
                "{code}: {failure:?}"
            );
        }
    }

    #[test]
    fn a_script_error_of_an_older_server_has_its_code_inside() {
        let old = "Error running script (call to f_1): @user_script:7: OOM command not allowed";
        assert!(matches!(
            of_command(&reply("ERR", old)),
            Failure::Store(StoreError::Unavailable(_))
        ));
        let old = "Error running script (call to f_1): @user_script:7: WRONGTYPE Operation";
        assert!(matches!(of_command(&reply("ERR", old)), Failure::WrongType));
    }

    #[test]
    fn a_lost_connection_is_unknown_once_something_was_sent() {
        let lost = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(of_command(&lost), Failure::Store(StoreError::Unknown(_))));
        assert!(matches!(of_connecting(&lost), StoreError::Unavailable(_)));
    }

    #[test]
    fn what_can_not_be_read_is_unknown_and_ends_the_connection() {
        for kind in [ErrorKind::Parse, ErrorKind::Client] {
            let garbled = RedisError::from((kind, "garbled"));
            let failure = of_command(&garbled);
            assert!(
                matches!(failure, Failure::Store(StoreError::Unknown(_))),
                "{kind:?}: {failure:?}"
            );
            assert!(is_unanswered(&garbled), "{kind:?}");
        }
    }

    #[test]
    fn what_stays_refused_says_what_to_do() {
        let Failure::Store(StoreError::Broken(text)) = of_command(&reply("NOAUTH", "Authentication required.")) else {
            panic!("not broken");
        };
        assert!(text.contains("password"), "{text}");
    }
}
