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

/// The listening socket that systemd passed, if it passed any.
pub(super) fn listening_socket() -> Result<Option<OwnedFd>, StartError> {
    let fail = |text: String| Err(StartError::Listen(text));
    let passed = match activation::take_listen_descriptors() {
        Ok(passed) => passed,
        Err(error) => return fail(format!("cannot use the sockets that systemd passed: {error}")),
    };
    let count = passed.len();
    let mut passed = passed.into_iter();
    match (passed.next(), passed.next()) {
        (None, _) => Ok(None),
        (Some(only), None) if socket::is_unix_listener(only.as_fd()) => Ok(Some(only)),
        (Some(_), None) => fail(
            "systemd passed a descriptor that is not a listening Unix stream socket: use ListenStream= with a path"
                .to_owned(),
        ),
        (Some(_), Some(_)) => {
            fail(format!("systemd passed {count} sockets, and the broker serves one: keep a single ListenStream="))
        }
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
