//! The processes that make calls with the ids of a worker's caller, as the monitor knows them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::identity::{self, Identity};
use sockbroker_sys::{record, sealed};

use super::remote::is_remote;
use super::starts::Starts;
use crate::caller::message::{CallerIds, ToCaller};
use crate::channel::Channel;
use crate::message::{Build, Caller};
use crate::role::{self, Role};
use crate::user_names::UserNames;

/// The processes of one worker that have not ended. Earlier ones end soon, unless their user has stopped them, and the
/// monitor cannot kill them without `CAP_KILL`.
const UNENDED: usize = 4;

/// The processes, and what the monitor can do.
#[derive(Debug)]
pub(super) struct Callers {
    /// `None` if it is unknown: then no caller is taken for the broker's user.
    own: Option<Identity>,
    /// Whether this process can change ids.
    able: bool,
    /// Whether this process can access files that its user cannot.
    overrides_files: bool,
    pub(super) starts: Starts,
    /// The processes by the tokens of their workers.
    running: BTreeMap<u64, Vec<Child>>,
}

impl Callers {
    /// With at most this many starts a second for one user.
    pub(super) fn new(starts_per_second: u64) -> Self {
        Self {
            own: Identity::own().ok(),
            able: identity::can_change().unwrap_or(false),
            overrides_files: identity::overrides_files().unwrap_or(true),
            starts: Starts::new(starts_per_second),
            running: BTreeMap::new(),
        }
    }

    fn is_own(&self, peer: &Credentials) -> bool {
        let Credentials { uid, gid, groups, .. } = peer;
        let identity = Identity { uid: *uid, gid: *gid, groups: groups.as_slice().into() };
        self.own.as_ref().is_some_and(|own| own.is_same(&identity))
    }

    /// Whether the process of this principal has the rights of root.
    fn has_rights_of_root(&self, peer: &Credentials) -> bool {
        peer.uid == 0 && self.overrides_files && self.is_own(peer)
    }

    /// What a worker of this principal learns about its caller. A worker has no capability, and `has_own_id` if its
    /// user id is not the monitor's.
    pub(super) fn describe(&self, peer: &Credentials, has_own_id: bool) -> Caller {
        if is_remote(peer.uid) {
            Caller::Remote
        } else if !self.is_own(peer) {
            Caller::Other
        } else if has_own_id || self.has_rights_of_root(peer) {
            Caller::Broker
        } else {
            Caller::Same
        }
    }

    /// Whether a process with the ids of a principal can be started.
    pub(super) fn can_become(&self, peer: &Credentials) -> bool {
        self.able || self.is_own(peer)
    }

    /// Starts a process for a worker, in place of an earlier one. Returns the worker's ends of its channels: for calls,
    /// and for sends.
    pub(super) fn start(
        &mut self,
        token: u64,
        peer: &Credentials,
        names: &UserNames,
        configuration: BorrowedFd<'_>,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let earlier = self.running.entry(token).or_default();
        for process in &mut *earlier {
            // It may have ended already. Without its channels it ends by itself.
            drop(process.kill());
        }
        earlier.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        if earlier.len() >= UNENDED {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let Credentials { uid, gid, groups, .. } = peer.clone();
        let ids = CallerIds { uid, gid, groups };
        let ids = postcard::to_stdvec(&ids).map_err(io::Error::other)?;
        let ids = sealed::create("ids", &ids)?;
        let (calls, calls_of_process) = record::pair()?;
        let (sends, sends_of_process) = record::pair()?;
        // Before the start and before the worker has its end: nobody else can send the first messages.
        let first = Channel::<ToCaller, ToCaller>::over(calls);
        let begin = ToCaller::Begin { overrides_files: self.has_rights_of_root(peer) };
        first
            .send(&ToCaller::Hello(Build::OWN), &[])
            .and_then(|()| {
                first.send(&begin, &[configuration, ids.as_fd(), sends_of_process.as_fd()])
            })
            .map_err(io::Error::other)?;
        let name = names.process_name("caller", uid);
        let child = role::start(Role::Caller, &name, &[], calls_of_process, Stdio::null())?;
        tracing::debug!(uid, pid = child.id(), "started a process that acts as the caller");
        self.running.entry(token).or_default().push(child);
        Ok((first.into_socket(), sends))
    }

    /// Waits for processes that have ended.
    pub(super) fn collect(&mut self) {
        for processes in self.running.values_mut() {
            processes.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        }
        self.running.retain(|_, processes| !processes.is_empty());
    }

    /// The processes of a worker that has ended.
    pub(super) fn take(&mut self, token: u64) -> Vec<Child> {
        self.running.remove(&token).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(identity: &Identity) -> Credentials {
        let Identity { uid, gid, groups } = identity.clone();
        Credentials { uid, gid, groups: groups.to_vec(), network: None }
    }

    #[test]
    fn callers_are_described_by_ids_and_rights() {
        let mut callers = Callers::new(1);
        let own = Identity::own().unwrap();
        let other = Identity { uid: own.uid + 1, ..own.clone() };
        callers.overrides_files = true;
        let with_rights = if own.uid == 0 { Caller::Broker } else { Caller::Same };
        assert_eq!(callers.describe(&peer(&own), false), with_rights);
        assert_eq!(callers.describe(&peer(&own), true), Caller::Broker);
        assert_eq!(callers.describe(&peer(&other), false), Caller::Other);
        let remote = Identity { uid: u32::MAX - 1, ..own.clone() };
        assert_eq!(callers.describe(&peer(&remote), true), Caller::Remote);
        callers.overrides_files = false;
        assert_eq!(callers.describe(&peer(&own), false), Caller::Same);
        callers.able = false;
        assert!(callers.can_become(&peer(&own)) && !callers.can_become(&peer(&other)));
    }
}
