//! Other users' ids: for one job in a thread of its own, or for the whole process ([`become_user`]).
//!
//! On Linux credentials belong to threads (`credentials(7)`); the C library's `setresuid(3)` changes
//! those of all threads, so this module makes the system calls by number. A thread that has assumed an
//! identity never returns to its old one: it runs one job and ends.
//!
//! Only the *effective* ids change. The kernel derives the ids for file access from them, and
//! `SO_PEERCRED` reports them. The real and saved ids remain those of the process: with a real or saved id
//! of a user, this user could send the thread a signal and thereby end the process (`kill(2)`).

use std::io;
use std::ptr;
use std::sync::Arc;
use std::thread;

use nix::sys::prctl::set_keepcaps;
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use crate::call::{check, invalid};
use crate::capability::{self, Capability};
use crate::{child, peer};

// On 32-bit machines the numbers below name calls with 16-bit ids, which would truncate the ids.
const _: () =
    assert!(usize::BITS == 64, "port the calls of this module to setresuid32 and setresgid32");

/// The credentials that a thread assumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Arc<[u32]>,
}

impl Identity {
    /// The identity of the calling thread.
    pub fn own() -> io::Result<Self> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Ok(Self { uid, gid, groups: peer::own_groups()?.into() })
    }

    /// Whether both have the same user, group and set of groups. The kernel ignores the order of the
    /// groups, and whether the group is listed among them.
    pub fn is_same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| {
            a.groups.iter().all(|group| *group == b.gid || b.groups.contains(group))
        };
        (self.uid, self.gid) == (other.uid, other.gid) && within(self, other) && within(other, self)
    }
}

/// Whether this thread is privileged to assume other identities.
pub fn can_change() -> io::Result<bool> {
    Ok(capability::has(Capability::SetUid)? && capability::has(Capability::SetGid)?)
}

/// Whether this thread bypasses the permission bits of files.
pub fn overrides_files() -> io::Result<bool> {
    Ok(capability::has(Capability::DacOverride)? || capability::has(Capability::DacReadSearch)?)
}

/// Gives this process, which has one thread, these ids, permanently: real, effective and saved. The caller drops the
/// capabilities afterwards: while they are permitted, no process of the new user can trace this one, whatever
/// `fs.suid_dumpable` (`proc(5)`) is. The change resets what `end_with_parent` of [`child`] sets. `EPERM`
/// without `CAP_SETUID` and `CAP_SETGID`.
pub fn become_user(identity: &Identity) -> io::Result<()> {
    const NONE: u32 = u32::MAX;
    let Identity { uid, gid, groups } = identity;
    if [*uid, *gid].contains(&NONE) {
        // The kernel would read it as "unchanged".
        return Err(invalid("no user or group has this number"));
    }
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    set_keepcaps(true)?;
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    child::refuse_tracing()?;
    set_keepcaps(false)?;
    let (uids, gids) = (getresuid()?, getresgid()?);
    let all = [uids.real, uids.effective, uids.saved].iter().all(|id| *id == uid)
        && [gids.real, gids.effective, gids.saved].iter().all(|id| *id == gid)
        && Identity::own()?.is_same(identity);
    if all { Ok(()) } else { Err(io::Error::other("the ids are not those that were set")) }
}

/// Starts a thread that assumes `identity`, drops every capability, runs `job`, passes the result to `report`,
/// and ends. If the thread cannot assume the identity, `report` gets the error, and `job` does not run.
/// Fails with `EAGAIN` if the system cannot create more threads.
pub fn spawn_as<T>(
    identity: Arc<Identity>,
    job: impl FnOnce() -> T + Send + 'static,
    report: impl FnOnce(io::Result<T>) + Send + 'static,
) -> io::Result<()> {
    let body = move || report(assume(&identity).map(|()| job()));
    thread::Builder::new().name("as-client".to_owned()).stack_size(STACK).spawn(body).map(drop)
}

/// The stack of such a thread: a job is one system call.
const STACK: usize = 128 << 10;

/// Changes the credentials of this thread permanently. Sets the groups first, which needs the privileges of the
/// old user.
fn assume(identity: &Identity) -> io::Result<()> {
    let own = Identity::own()?;
    if own.groups != identity.groups {
        set_groups(&identity.groups)?;
    }
    if own.gid != identity.gid {
        set_effective(libc::SYS_setresgid, identity.gid)?;
    }
    if own.uid != identity.uid {
        set_effective(libc::SYS_setresuid, identity.uid)?;
    }
    // Explicitly: a change of the user drops the capabilities only if it was 0, and if no securebits
    // prevent it (PR_SET_KEEPCAPS). The ambient set follows the permitted set.
    capability::drop_all()
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    let start = if groups.is_empty() { ptr::null() } else { groups.as_ptr() };
    // SAFETY: `start` points to `groups.len()` initialised numbers, borrowed for the call, which only
    // reads them. By number, the call changes only this thread.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), start) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

/// `setresuid(2)` or `setresgid(2)` with an effective id only.
fn set_effective(call: libc::c_long, id: u32) -> io::Result<()> {
    const KEEP: u32 = u32::MAX;
    if id == KEEP {
        // The value of "no id": the kernel would read it as "unchanged".
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: no pointers; both calls take three ids. By number, they change only this thread.
    let result = unsafe { libc::syscall(call, KEEP, id, KEEP) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

#[cfg(test)]
mod tests;
