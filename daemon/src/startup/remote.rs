//! The sockets for clients on other machines.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use sockbroker_gateway::settings::ClientCertificates;
use sockbroker_monitor::monitor::RemoteSettings;

use super::error::StartError;
use super::sources::remote_files;
use crate::config::ConfigError;
use crate::config::limits::Limits;
use crate::config::remote::Remote;

/// Binds the addresses of the configuration, and adds sockets of the service manager. To be called before capabilities are
/// dropped: ports below 1024 need one.
pub(super) fn listeners(remote: &Remote, passed: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, StartError> {
    let mut listeners = passed;
    for address in &remote.listen {
        let listener = TcpListener::bind(address).and_then(|listener| {
            let bound = listener.local_addr()?;
            tracing::info!(%bound, "serving remote clients");
            Ok(listener)
        });
        let listener = listener
            .map_err(|error| StartError::Listen(format!("remote.listen: {address}: {error}")))?;
        listeners.push(listener.into());
    }
    Ok(listeners)
}

/// Checks what the files cannot show: settings that no client could satisfy.
pub(super) fn check(remote: &Remote) -> Result<(), ConfigError> {
    let has_authority = remote_files(remote).iter().any(|(kind, _)| *kind == "client_ca");
    if remote.client_certificates == ClientCertificates::Required && !has_authority {
        let text = "remote.client_certificates: \"required\" needs remote.client_ca, whose certificates clients have";
        return Err(ConfigError::given("configuration", text.to_owned()));
    }
    Ok(())
}

/// What the monitor gives to the gateway; `None` without sockets.
pub(super) fn settings(listeners: Vec<OwnedFd>, limits: &Limits) -> Option<RemoteSettings> {
    (!listeners.is_empty()).then_some(RemoteSettings {
        listeners,
        connections: limits.remote_connections,
        workers: limits.remote_workers,
        sessions: limits.remote_sessions,
    })
}
