//! Other users: threads that act as them, in a process of root.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use nix::unistd::geteuid;
use sockbroker_sys::identity::{Identity, spawn_as};

use crate::daemon::Daemon;
use crate::lsp::LspClient;
use crate::skip;
use crate::watch::HANG;

/// Debian's nobody, and its group: an ordinary user that every machine has.
pub const NOBODY: u32 = 65534;

/// Somebody else.
#[derive(Debug, Clone)]
pub struct User(Arc<Identity>);

impl User {
    /// A user with these groups.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self(Arc::new(Identity { uid, gid, groups: groups.into() }))
    }

    /// An ordinary user that is in no group but its own.
    pub fn nobody() -> Self {
        Self::new(NOBODY, NOBODY, &[])
    }

    /// A user that has nothing to do with any other, named by a small number.
    pub fn stranger(number: u32) -> Self {
        Self::new(4_200_000 + number, 4_200_000 + number, &[])
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// Does something as this user, without any privilege.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (told, result) = mpsc::channel();
        spawn_as(self.0.clone(), job, move |result| drop(told.send(result))).unwrap();
        result.recv_timeout(HANG).unwrap().unwrap()
    }

    /// A connection of this user to a broker.
    pub fn connect(&self, broker: &Daemon) -> UnixStream {
        let path = broker.socket().to_owned();
        self.run(move || UnixStream::connect(path)).unwrap()
    }

    /// A connection of this user with LSP framing.
    pub fn lsp(&self, broker: &Daemon) -> LspClient {
        LspClient::over(self.connect(broker))
    }
}

/// Whether threads of this process can act as other users: whether it is root, with the whole range of
/// ids. Says that the test is skipped otherwise.
pub fn others_or_skip(test: &str) -> bool {
    let able = others_are_possible();
    if !able {
        skip::skip("needs root with a second user", test);
    }
    able
}

/// Whether threads of this process can act as other users.
pub(crate) fn others_are_possible() -> bool {
    if !geteuid().is_root() {
        return false;
    }
    let (told, result) = mpsc::channel();
    let nobody = User::nobody();
    spawn_as(nobody.0, || (), move |result| drop(told.send(result))).is_ok()
        && result.recv_timeout(HANG).is_ok_and(|result| result.is_ok())
}
