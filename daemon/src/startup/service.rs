//! The broker as a service of systemd: sockets it was started with, readiness, watchdog
//! (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_watchdog_enabled(3)`).
//!
//! Without systemd these functions do nothing.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;
use sockbroker_sys::{activation, socket};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::error::StartError;

/// The name of the sockets for clients on other machines (`FileDescriptorName=` of `systemd.socket(5)`).
const REMOTE: &str = "remote";

/// The listening sockets that systemd passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// The control socket.
    pub(super) control: Option<OwnedFd>,
    /// Those for clients on other machines.
    pub(super) remote: Vec<OwnedFd>,
}

/// The listening sockets that systemd passed, if it passed any.
pub(super) fn listening_sockets() -> Result<Passed, StartError> {
    let fail = |text: String| Err(StartError::Listen(text));
    let passed = match activation::take_listen_descriptors() {
        Ok(passed) => passed,
        Err(error) => return fail(format!("cannot use the sockets that systemd passed: {error}")),
    };
    let (remote, local): (Vec<_>, Vec<_>) =
        passed.into_iter().partition(|(_, name)| name == REMOTE);
    let remote: Vec<_> = remote.into_iter().map(|(socket, _)| socket).collect();
    if remote.iter().any(|socket| !socket::is_tcp_listener(socket.as_fd())) {
        return fail(format!(
            "systemd passed a socket named {REMOTE} that is not a listening TCP socket: use ListenStream= with a port"
        ));
    }
    let count = local.len();
    let mut local = local.into_iter().map(|(socket, _)| socket);
    let control = match (local.next(), local.next()) {
        (None, _) => None,
        (Some(only), None) if socket::is_unix_listener(only.as_fd()) => Some(only),
        (Some(_), None) => {
            return fail(format!(
                "systemd passed a descriptor that is not a listening Unix stream socket: use ListenStream= with a path, \
                 or FileDescriptorName={REMOTE} for a TCP port"
            ));
        }
        (Some(_), Some(_)) => {
            return fail(format!(
                "systemd passed {count} sockets, and the broker serves one: keep a single ListenStream= with a path"
            ));
        }
    };
    Ok(Passed { control, remote })
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
