//! How a client uses its broker: whether its sockets outlive the broker's processes.

use std::time::Duration;

/// How long calls wait for the broker to return, unless [`Config::reconnect_seconds`] sets it.
const RECONNECT_SECONDS: u32 = 30;

/// The options of a connection to a broker.
///
/// ```
/// use sockbroker_client::Config;
///
/// let config = Config::new().persist(true).reconnect_seconds(60);
/// assert!(config.is_persistent());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    persist: bool,
    reconnect: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { persist: false, reconnect: Duration::from_secs(RECONNECT_SECONDS.into()) }
    }
}

impl Config {
    /// The default options: the session ends with the process that serves it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the session and its sockets outlive the processes of the broker: a crash, a restart, an upgrade.
    ///
    /// The client then connects again, and calls that wait go on waiting. A call that was in progress is repeated if
    /// that is safe, and answered if its effect can be found. Otherwise it fails with
    /// [`Error::Interrupted`](crate::Error::Interrupted). The policy must grant `persist`.
    ///
    /// This requires an endpoint that can be connected to again and that carries attachments: `unix:`, `tls://`, or
    /// `ssh://` where sshd forwards sockets.
    #[must_use]
    pub fn persist(self, persist: bool) -> Self {
        Self { persist, ..self }
    }

    /// How long calls wait for the broker to return before they fail. The default is 30. Positive timeouts of sockets
    /// and the limit of [`set_call_timeout`](crate::blocking::Broker::set_call_timeout) end the wait earlier.
    #[must_use]
    pub fn reconnect_seconds(self, seconds: u32) -> Self {
        Self { reconnect: Duration::from_secs(seconds.into()), ..self }
    }

    /// Whether sockets outlive the processes of the broker.
    pub fn is_persistent(&self) -> bool {
        self.persist
    }

    pub(crate) fn reconnect(&self) -> Duration {
        self.reconnect
    }
}
