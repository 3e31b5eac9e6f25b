//! `[remote]`: clients on other machines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sockbroker_gateway::settings::{ClientCertificates, NameKind, RevocationExpired, Settings};

use crate::config::limits::Limits;
use crate::config::paths::{absolute_path, optional_path};

/// How long a client has to read the last bytes of a connection that ends.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// `[remote]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Remote {
    /// Addresses with ports; none for a broker without clients on other machines, unless the service manager passes a
    /// socket for them.
    pub listen: Vec<SocketAddr>,
    #[serde(deserialize_with = "absolute_path")]
    pub certificate: PathBuf,
    #[serde(deserialize_with = "absolute_path")]
    pub key: PathBuf,
    /// The authorities of client certificates.
    #[serde(deserialize_with = "optional_path")]
    pub client_ca: Option<PathBuf>,
    pub client_certificates: ClientCertificates,
    pub subject_from: Vec<NameKind>,
    /// Revocation lists.
    #[serde(deserialize_with = "optional_path")]
    pub revocation: Option<PathBuf>,
    pub revocation_expired: RevocationExpired,
    #[serde(deserialize_with = "optional_path")]
    pub tokens: Option<PathBuf>,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            certificate: PathBuf::from("/etc/sockbroker/tls/server.pem"),
            key: PathBuf::from("/etc/sockbroker/tls/server.key"),
            client_ca: None,
            client_certificates: ClientCertificates::default(),
            subject_from: vec![NameKind::Uri, NameKind::Dns, NameKind::Email],
            revocation: None,
            revocation_expired: RevocationExpired::default(),
            tokens: None,
        }
    }
}

impl Remote {
    /// Whether the configuration has addresses.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    /// The files by their kinds, which are also the names of credentials of the service manager after `remote.`.
    pub fn files(&self) -> [(&'static str, Option<&PathBuf>); 5] {
        [
            ("certificate", Some(&self.certificate)),
            ("key", Some(&self.key)),
            ("client_ca", self.client_ca.as_ref()),
            ("revocation", self.revocation.as_ref()),
            ("tokens", self.tokens.as_ref()),
        ]
    }

    /// What the gateway serves by.
    pub fn settings(&self, limits: &Limits) -> Settings {
        Settings {
            client_certificates: self.client_certificates,
            subject_from: self.subject_from.clone(),
            revocation_expired: self.revocation_expired,
            handshakes: limits.handshakes,
            handshakes_per_address: limits.handshakes_per_address,
            handshake: Duration::from_secs(limits.handshake_seconds),
            connections: limits.remote_connections.saturating_add(limits.handshakes),
            last_bytes: LAST_BYTES,
            refusal_lines: limits.refusal_lines_per_minute,
        }
    }
}
