//! TLS, and how much of it: `sslmode` and `sslrootcert` as libpq has them.
//! Source: the PostgreSQL manual, libpq, "SSL Support".

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ledger::{LedgerError, Result};

/// What is asked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    /// Nothing: the line is encrypted, but nobody knows to whom.
    Nothing,
    /// That one of the roots has signed it.
    Signed,
    /// And that it is this host's.
    Host,
}

/// What a URL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trust {
    mode: SslMode,
    check: Check,
    roots: Roots,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roots {
    /// The system's.
    System,
    File(PathBuf),
}

impl Trust {
    /// Takes what is about TLS out of a URL, and gives back the rest of it.
    pub(super) fn read(url: &str) -> Result<(String, Self)> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots) = (None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => roots = Some(value),
                _ => rest.push(pair),
            }
        }
        let given = roots.is_some();
        let (mode, check) = match mode.unwrap_or(if roots == Some("system") {
            "verify-full"
        } else {
            "prefer"
        }) {
            "disable" => (SslMode::Disable, Check::Nothing),
            "prefer" => (SslMode::Prefer, Check::Nothing),
            // As libpq: who names a root means it.
            "require" if given => (SslMode::Require, Check::Signed),
            "require" => (SslMode::Require, Check::Nothing),
            "verify-ca" => (SslMode::Require, Check::Signed),
            "verify-full" => (SslMode::Require, Check::Host),
            other => {
                return Err(LedgerError::Broken(format!(
                    "sslmode={other} is not known: use disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        let roots = match roots {
            None | Some("system") => Roots::System,
            Some(path) => Roots::File(unescape(path).into()),
        };
        let url = if rest.is_empty() {
            address.to_owned()
        } else {
            format!("{address}?{}", rest.join("&"))
        };
        Ok((url, Self { mode, check, roots }))
    }

    pub(super) fn mode(&self) -> SslMode {
        self.mode
    }
}

/// `%2F` and its like.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        if let Some(value) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What speaks TLS; nothing where that is not wanted.
pub(super) fn connector(trust: &Trust) -> Result<Option<MakeRustlsConnect>> {
    if trust.mode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let inner = match trust.check {
        Check::Nothing => None,
        Check::Signed | Check::Host => {
            let roots = Arc::new(roots(&trust.roots)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            Some(verifier.map_err(|error| LedgerError::Broken(format!("sslrootcert: {error}")))?)
        }
    };
    let verifier = Verifier {
        check: trust.check,
        inner,
        provider: provider.clone(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| LedgerError::Broken(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn roots(from: &Roots) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match from {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(LedgerError::Broken(
                    "the system has no root certificates: name some by sslrootcert=FILE".to_owned(),
                ));
            }
        }
        Roots::File(path) => {
            let bad = |error: String| LedgerError::Broken(format!("sslrootcert {}: {error}", path.display()));
            let text = fs::read(path).map_err(|error| bad(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.map_err(|error| bad(format!("{error:?}")))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad("no certificate is in it".to_owned()));
            }
        }
    }
    Ok(roots)
}

/// Checks what was asked for, and no more. That the other side has the key of its certificate is always checked.
#[derive(Debug)]
struct Verifier {
    check: Check,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // It is looked at last: all else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Signed => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> (String, SslMode, Check, Roots) {
        let (url, trust) = Trust::read(url).unwrap();
        (url, trust.mode, trust.check, trust.roots)
    }

    #[test]
    fn sslmode_is_read_as_libpq_has_it() {
        use Check::{Host, Nothing, Signed};
        for (query, mode, check) in [
            ("", SslMode::Prefer, Nothing),
            ("?sslmode=disable", SslMode::Disable, Nothing),
            ("?sslmode=prefer", SslMode::Prefer, Nothing),
            ("?sslmode=require", SslMode::Require, Nothing),
            ("?sslmode=require&sslrootcert=a.pem", SslMode::Require, Signed),
            ("?sslmode=verify-ca", SslMode::Require, Signed),
            ("?sslmode=verify-full", SslMode::Require, Host),
            ("?sslrootcert=system", SslMode::Require, Host),
        ] {
            let (url, is_mode, is_check, _) = read(&format!("postgres://h/d{query}"));
            assert_eq!(
                (url.as_str(), is_mode, is_check),
                ("postgres://h/d", mode, check),
                "{query}"
            );
        }
        assert!(Trust::read("postgres://h/d?sslmode=allow").is_err());
    }

    #[test]
    fn what_is_not_about_tls_stays() {
        let (url, _, _, roots) = read("postgres://h/d?a=1&sslmode=verify-ca&sslrootcert=%2Fx%20y.pem&b=2");
        assert_eq!(url, "postgres://h/d?a=1&b=2");
        assert_eq!(roots, Roots::File("/x y.pem".into()));
    }
}
