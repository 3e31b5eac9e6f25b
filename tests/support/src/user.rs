//! Other users: in a process of root, threads act as them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use nix::unistd::geteuid;
use sockbroker_sys::identity::{Identity, spawn_as};

use crate::daemon::Daemon;
use crate::lsp::LspClient;
use crate::skip;
use crate::watch::HANG;

/// The user and group ID of `nobody` on Debian, an unprivileged user of every machine.
pub const NOBODY: u32 = 65534;

/// A user other than that of the test process.
#[derive(Debug, Clone)]
pub struct User(Arc<Identity>);

impl User {
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self(Arc::new(Identity { uid, gid, groups: groups.into() }))
    }

    /// An unprivileged user without supplementary groups.
    /// The effective user of this process.
    pub fn own() -> u32 {
        geteuid().as_raw()
    }

    pub fn nobody() -> Self {
        Self::new(NOBODY, NOBODY, &[])
    }

    /// An unprivileged user without an account. Each number is another user, with its own group.
    pub fn unrelated(number: u32) -> Self {
        Self::new(4_200_000 + number, 4_200_000 + number, &[])
    }

    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Runs `job` on a thread as this user, without privileges.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        spawn_as(self.0.clone(), job, move |result| drop(sender.send(result))).unwrap();
        result.recv_timeout(HANG).unwrap().unwrap()
    }

    /// Connects to a broker as this user.
    pub fn connect(&self, broker: &Daemon) -> UnixStream {
        let path = broker.socket().to_owned();
        self.run(move || UnixStream::connect(path)).unwrap()
    }

    /// Connects to a broker as this user, with LSP framing.
    pub fn lsp(&self, broker: &Daemon) -> LspClient {
        LspClient::over(self.connect(broker))
    }
}

/// Whether threads of this process can act as other users, which requires root with all user IDs. Otherwise
/// counts the test as skipped.
pub fn other_users_or_skip(test: &str) -> bool {
    let able = can_act_as_other_users();
    if !able {
        skip::skip("needs root with a second user", test);
    }
    able
}

/// Whether threads of this process can act as other users.
pub(crate) fn can_act_as_other_users() -> bool {
    if !geteuid().is_root() {
        return false;
    }
    let (sender, result) = mpsc::channel();
    let nobody = User::nobody();
    spawn_as(nobody.0, || (), move |result| drop(sender.send(result))).is_ok()
        && result.recv_timeout(HANG).is_ok_and(|result| result.is_ok())
}
