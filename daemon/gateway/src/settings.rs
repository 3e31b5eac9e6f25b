//! What the configuration says about remote principals.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Without one the handshake fails.
    Required,
    /// A client without one needs a token.
    #[default]
    Optional,
    /// Clients are not asked for one.
    Off,
}

/// A kind of name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameKind {
    Uri,
    Dns,
    Email,
    /// The common name of the subject, which many authorities do not check.
    Cn,
}

/// What happens after the time of the next update of a revocation list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationExpired {
    #[default]
    Refuse,
    Warn,
}

/// The settings of the gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    pub client_certificates: ClientCertificates,
    pub subject_from: Vec<NameKind>,
    pub revocation_expired: RevocationExpired,
    /// Handshakes at a time.
    pub handshakes: u64,
    /// Those of one address.
    pub handshakes_per_address: u64,
    /// How long a connection may take until it has authenticated itself.
    pub handshake: Duration,
    /// Connections at a time, with those in a handshake.
    pub connections: u64,
    /// How long the client has to read the last bytes of a connection that ends.
    pub last_bytes: Duration,
    /// Lines a minute about refused clients.
    pub refusal_lines: u64,
}

impl Settings {
    /// Settings by which files can be checked.
    pub fn for_check(client_certificates: ClientCertificates) -> Self {
        Self {
            client_certificates,
            subject_from: Vec::new(),
            revocation_expired: RevocationExpired::Warn,
            handshakes: 0,
            handshakes_per_address: 0,
            handshake: Duration::ZERO,
            connections: 0,
            last_bytes: Duration::ZERO,
            refusal_lines: 0,
        }
    }
}

/// The contents of the files, as PEM and TOML.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Credentials {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub client_ca: Option<Vec<u8>>,
    pub revocation: Option<Vec<u8>>,
    pub tokens: Option<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}
