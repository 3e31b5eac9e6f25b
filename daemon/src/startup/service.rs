//! The broker as a service of systemd: sockets it was started with, readiness, watchdog
//! (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`).
//!
//! Without systemd these functions do nothing.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;
use sockbroker_sys::activation::Passed;
use sockbroker_sys::service_manager::ServiceManager;
use sockbroker_sys::{activation, socket};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::error::StartError;

/// The name of the sockets for clients on other machines (`FileDescriptorName=` of `systemd.socket(5)`).
const REMOTE: &str = "remote";
/// What the names of the descriptors begin with that the broker stores (`FDSTORE`).
const STORED: &str = "lots-";
/// The name of a descriptor that was stored without one (`sd_pid_notify_with_fds(3)`).
const UNNAMED: &str = "stored";

/// What the service manager passed.
#[derive(Debug, Default)]
pub(super) struct PassedDescriptors {
    /// The control socket, which listens.
    pub(super) listener: Option<OwnedFd>,
    /// Listening sockets for clients on other machines.
    pub(super) remote: Vec<OwnedFd>,
    /// What an earlier broker stored, with names.
    pub(super) stored: Vec<(String, OwnedFd)>,
    /// What nobody knows any more. Closing it may wait.
    pub(super) unknown: Vec<OwnedFd>,
}

/// Takes what the service manager passed: the listening sockets, and the contents of its store
/// (`FileDescriptorStoreMax=` of `systemd.service(5)`). What is not known there is discarded, with a line in the log.
pub(super) fn passed_descriptors() -> Result<PassedDescriptors, StartError> {
    let fail = |text: String| Err(StartError::Listen(text));
    let all = match activation::take_listen_descriptors() {
        Ok(all) => all,
        Err(error) => return fail(format!("cannot use the sockets that systemd passed: {error}")),
    };
    let mut passed = PassedDescriptors::default();
    let (mut listeners, mut others) = (Vec::new(), Vec::new());
    for Passed { name, descriptor } in all {
        if name.starts_with(STORED) {
            passed.stored.push((name, descriptor));
        } else if name == REMOTE {
            passed.remote.push(descriptor);
        } else if name != UNNAMED && socket::is_unix_listener(descriptor.as_fd()) {
            listeners.push(descriptor);
        } else {
            others.push((name, descriptor));
        }
    }
    if passed.remote.iter().any(|socket| !socket::is_tcp_listener(socket.as_fd())) {
        return fail(format!(
            "systemd passed a socket named {REMOTE} that is not a listening TCP socket: use ListenStream= with a port"
        ));
    }
    if listeners.len() > 1 {
        let count = listeners.len();
        return fail(format!(
            "systemd passed {count} sockets, and the broker serves one: keep a single ListenStream= with a path"
        ));
    }
    passed.listener = listeners.pop();
    for (name, descriptor) in others {
        // Without a listening socket, this can be what the administrator means to be one.
        if passed.listener.is_none() && name != UNNAMED {
            return fail(format!(
                "systemd passed a descriptor that is not a listening Unix stream socket: use ListenStream= with a path, \
                 or FileDescriptorName={REMOTE} for a TCP port"
            ));
        }
        discard(&name);
        passed.unknown.push(descriptor);
    }
    Ok(passed)
}

/// The listening sockets that the service manager passed to a broker that keeps no sockets: the control socket, and those
/// for clients on other machines. Discards what is stored.
pub(super) fn listening_sockets() -> Result<(Option<OwnedFd>, Vec<OwnedFd>), StartError> {
    let PassedDescriptors { listener, remote, stored, unknown } = passed_descriptors()?;
    for (name, _) in &stored {
        discard(name);
    }
    drop((stored, unknown));
    Ok((listener, remote))
}

/// The service manager, and the number of descriptors that it states to keep (`$FDSTORE`, since systemd 254).
pub(super) fn store() -> (Option<ServiceManager>, Option<u64>) {
    let manager = ServiceManager::connect().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot connect to the service manager");
        None
    });
    let places = std::env::var("FDSTORE").ok().and_then(|number| number.parse().ok());
    (manager, places)
}

/// Removes a descriptor from the store of the service manager.
fn discard(name: &str) {
    tracing::warn!(name, "discarded a stored descriptor that this broker does not know");
    let sent = ServiceManager::connect().and_then(|manager| match manager {
        Some(manager) => manager.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]),
        None => Ok(()),
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Notifies the service manager that the broker serves.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies the service manager that the broker reads its files again; [`ready`] ends that state.
/// `Type=notify-reload` needs the time, which other types ignore.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot notify the service manager of the reload"),
    }
}

/// Notifies the service manager that the broker ends.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("shutting down: accepting no new calls")]);
}

/// How often the service manager wants to hear that the broker makes progress.
pub(super) fn watchdog() -> Option<Duration> {
    // Half of the limit, as sd_watchdog_enabled(3) recommends.
    sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(Duration::from_millis(1)))
}

/// Notifies the service manager that the broker makes progress.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Pings the watchdog for as long as the event loop makes progress: each ping follows a task that
/// went through the runtime's workers. Never returns.
pub(super) async fn keep_watchdog() -> Infallible {
    let Some(every) = watchdog() else {
        return std::future::pending().await;
    };
    let mut beat = interval(every);
    let mut probes = JoinSet::new();
    loop {
        beat.tick().await;
        probes.spawn(tokio::task::yield_now());
        while probes.join_next().await.is_some() {}
        alive();
    }
}

/// Best effort: the broker does not depend on the service manager.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
