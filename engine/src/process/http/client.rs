//! The connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::{HttpOptions, NoTls};

/// A connection that waits longer for its next message is closed. Some servers close theirs after 5 s, as Node does, and a
/// message that meets that would have failed.
const IDLE: Duration = Duration::from_secs(4);
/// A connection of HTTP/2 that is silent is asked so often whether it is still there, and has as long to answer. Else all
/// messages would go on into a connection that has gone silent.
const PING: Duration = Duration::from_secs(5);

pub(super) fn open(options: &HttpOptions) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, NoTls> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(options.connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(options)?)
        .https_or_http();
    let connector = if options.http2 {
        connector.enable_http2().wrap_connector(tcp)
    } else {
        connector.enable_all_versions().wrap_connector(tcp)
    };
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(options.connections)
        .http2_only(options.http2)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .build(connector);
    Ok(client)
}

fn tls(options: &HttpOptions) -> Result<ClientConfig, NoTls> {
    let mut roots = RootCertStore::empty();
    if options.url.is_https() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(NoTls(
                "the system has no root certificates, which https needs: install ca-certificates, or name a file by SSL_CERT_FILE"
                    .to_owned(),
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| NoTls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
