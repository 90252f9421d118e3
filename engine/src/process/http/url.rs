//! Where messages are posted.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;

/// An `http://` or `https://` URL. What stands before an `@` in it, as in `https://USER:PASSWORD@HOST/`, is sent as basic
/// authentication, and never printed; nor is a query.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    uri: Uri,
    /// The value of the `authorization` header.
    login: Option<String>,
}

/// A URL that messages can't be posted to. What was given is not told: a part of it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "what is given is no URL to post to: use http://HOST:PORT/PATH or https://…, with what is special in it percent-encoded"
)]
pub struct BadHttpUrl;

impl FromStr for HttpUrl {
    type Err = BadHttpUrl;

    fn from_str(url: &str) -> Result<Self, BadHttpUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(BadHttpUrl)?;
        if !matches!(scheme, "http" | "https") {
            return Err(BadHttpUrl);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(basic(login)?), host),
            None => (None, authority),
        };
        let uri: Uri = format!("{scheme}://{host}{path}").parse().map_err(|_| BadHttpUrl)?;
        let named = uri.host().is_some_and(|host| !host.is_empty());
        // An @ after the first slash may be the end of a password that has a slash in it.
        let doubtful = login.is_none() && path.contains('@') && host.contains(':');
        let with_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if !named || doubtful || (with_port && uri.port_u16().is_none()) {
            return Err(BadHttpUrl);
        }
        Ok(Self { uri, login })
    }
}

impl HttpUrl {
    /// Without what is sent as basic authentication.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// Whether the way there is encrypted.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

/// Without the password, the user and the query.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(
            f,
            "{}://{host}{}",
            self.uri.scheme_str().unwrap_or("http"),
            self.uri.path()
        )
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Basic authentication. Source: RFC 7617.
fn basic(login: &str) -> Result<String, BadHttpUrl> {
    let mut plain = decode(login)?;
    if !login.contains(':') {
        plain.push(b':');
    }
    Ok(format!("Basic {}", STANDARD.encode(plain)))
}

/// Takes percent-encoding off. Source: RFC 3986, 2.1.
fn decode(text: &str) -> Result<Vec<u8>, BadHttpUrl> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(bytes.next()), digit(bytes.next()));
        let (Some(high), Some(low)) = (high, low) else {
            return Err(BadHttpUrl);
        };
        plain.push(u8::try_from(high * 16 + low).map_err(|_| BadHttpUrl)?);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written_without_what_is_secret() {
        for (url, shown, login) in [
            ("http://h", "http://h/", None),
            ("https://h:1/a/b?token=secret", "https://h:1/a/b", None),
            ("http://[::1]:80/", "http://[::1]:80/", None),
            ("http://u:p@h/a", "http://h/a", Some("u:p")),
            ("http://u:p%40%2Fsecret@h/a", "http://h/a", Some("u:p@/secret")),
            ("http://u@h/a", "http://h/a", Some("u:")),
        ] {
            let read: HttpUrl = url.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(format!("{read:?}"), shown);
            let login = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
            assert_eq!(read.login(), login.as_deref());
        }
        let exposed: HttpUrl = "http://h/a?token=secret".parse().unwrap();
        assert_eq!(exposed.uri().to_string(), "http://h/a?token=secret");
    }

    #[test]
    fn what_is_no_url_is_refused_without_telling_it() {
        for bad in [
            "",
            "http://",
            "http:///a",
            "ftp://h/",
            "http//h",
            "http://u:%zz@h/",
            "http://h:x/",
            "http://u:sec/ret@h/",
            "http://a b/",
        ] {
            let error = bad.parse::<HttpUrl>().expect_err(bad);
            assert!(!error.to_string().contains("sec"));
        }
    }
}
