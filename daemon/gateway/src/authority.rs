//! The credentials in force: the server's certificate, and who is a remote principal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use sockbroker_policy::subject::RemoteIdentity;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::names;
use crate::settings::{ClientCertificates, Credentials, NameKind, RevocationExpired, Settings};
use crate::tokens::Tokens;

/// How early an operator learns that a revocation list expires.
const WARNED_BEFORE: Duration = Duration::from_hours(7 * 24);

/// The credentials, ready for use.
#[derive(Debug)]
pub struct Authority {
    pub(crate) tls: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tokens: Tokens,
    names: Vec<NameKind>,
    /// What an operator should know about the files.
    pub warnings: Vec<String>,
}

/// By what a client has authenticated itself: enough to judge it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Its certificate, and those between it and the authority.
    Certificate(Arc<[CertificateDer<'static>]>),
    /// The hash of its token, and the address that it came from.
    Token([u8; 32], IpAddr),
}

/// A client that has authenticated itself.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated {
    pub(crate) identity: RemoteIdentity,
    pub(crate) evidence: Evidence,
    /// When certificate or token expires.
    pub(crate) until: Option<SystemTime>,
}

impl Authority {
    /// Reads the contents of the files. An error names the setting whose file is wrong.
    pub fn new(credentials: &Credentials, settings: &Settings) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("certificate", &credentials.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&credentials.key)
            .map_err(|error| format!("remote.key: {error}"))?;
        let mut warnings = Vec::new();
        let verifier = match (&credentials.client_ca, settings.client_certificates) {
            (None, ClientCertificates::Required) => {
                return Err(
                    "remote.client_certificates: \"required\" needs remote.client_ca".to_owned()
                );
            }
            (None, _) | (_, ClientCertificates::Off) => None,
            (Some(authorities), wanted) => {
                let mut roots = RootCertStore::empty();
                for root in certificates("client_ca", authorities)? {
                    roots.add(root).map_err(|error| format!("remote.client_ca: {error}"))?;
                }
                let mut builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                if let Some(lists) = &credentials.revocation {
                    builder = builder.with_crls(revocations(lists, &mut warnings)?);
                    if settings.revocation_expired == RevocationExpired::Refuse {
                        builder = builder.enforce_revocation_expiration();
                    }
                }
                if wanted == ClientCertificates::Optional {
                    builder = builder.allow_unauthenticated();
                }
                let built = builder.build();
                Some(built.map_err(|error| format!("remote.client_ca: {error}"))?)
            }
        };
        let tokens = credentials.tokens.as_deref().map(Tokens::read).transpose()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| format!("TLS: {error}"))?;
        let config = match &verifier {
            Some(verifier) => config.with_client_cert_verifier(verifier.clone()),
            None => config.with_no_client_auth(),
        };
        let mut config = config
            .with_single_cert(chain, key)
            .map_err(|error| format!("remote.certificate, remote.key: {error}"))?;
        // A resumed connection would not be verified again, and saves no round trip.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let (tls, tokens) = (Arc::new(config), tokens.unwrap_or_default());
        Ok(Self { tls, verifier, tokens, names: settings.subject_from.clone(), warnings })
    }

    /// The client with a certificate that the handshake has verified.
    pub(crate) fn of_certificate(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Authenticated, String> {
        let first = chain.first().ok_or("no certificate came")?;
        let named = names::read(first, &self.names)?;
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Ok(Authenticated {
            identity: RemoteIdentity::Certificate { names: named.names },
            evidence: Evidence::Certificate(chain),
            until: Some(named.until),
        })
    }

    /// The bearer of a token.
    pub(crate) fn of_token(&self, token: &str, from: IpAddr) -> Result<Authenticated, String> {
        let (hash, (identity, until)) = self.tokens.find(token, from, SystemTime::now())?;
        Ok(Authenticated { identity, evidence: Evidence::Token(hash, from), until })
    }

    /// Judges a client again: until when it is admitted now, or the reason why it is not.
    pub(crate) fn judge_again(&self, client: &Authenticated) -> Result<Option<SystemTime>, String> {
        let (identity, until) = match &client.evidence {
            Evidence::Certificate(chain) => {
                let verifier = self.verifier.as_ref();
                let verifier = verifier.ok_or("the broker takes no client certificates now")?;
                let (first, others) = chain.split_first().ok_or("no certificate came")?;
                let verified = verifier.verify_client_cert(first, others, UnixTime::now());
                verified
                    .map_err(|error| format!("the client certificate is not valid: {error}"))?;
                let found = self.of_certificate(chain)?;
                (found.identity, found.until)
            }
            Evidence::Token(hash, from) => self.tokens.judge(hash, *from, SystemTime::now())?,
        };
        if identity == client.identity {
            Ok(until)
        } else {
            Err("the name or the rules of the client have changed: connect again".to_owned())
        }
    }

    /// Whether a client without a certificate can authenticate itself.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("remote.{name}: there is no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("remote.{name}: {error}")),
    }
}

fn revocations(
    pem: &[u8],
    warnings: &mut Vec<String>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("remote.revocation: {error}"))?;
    if found.is_empty() {
        return Err("remote.revocation: there is no revocation list".to_owned());
    }
    for list in &found {
        let next = CertificateRevocationList::from_der(list).ok();
        let next = next.and_then(|(_, list)| list.next_update().map(|time| time.timestamp()));
        let next = next.and_then(|seconds| u64::try_from(seconds).ok());
        let left = next.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        if left.is_some_and(|at| at < SystemTime::now() + WARNED_BEFORE) {
            warnings.push(
                "a list of remote.revocation has expired, or expires within a week".to_owned(),
            );
        }
    }
    Ok(found)
}
