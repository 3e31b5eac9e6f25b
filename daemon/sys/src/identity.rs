//! Acting as somebody else, in a thread made for it.
//!
//! On Linux credentials belong to threads (`credentials(7)`); the C library's `setresuid(3)` changes
//! all of them, so the calls are made by number here. A thread that has taken on an identity never
//! gives it back: it runs one job and ends.
//!
//! Only the *effective* ids change, from which the kernel takes those for files, and those that
//! `SO_PEERCRED` tells. The real and saved ones stay the process's: with them a user could send the
//! thread a signal, and thereby end the process (`kill(2)`).

use std::io;
use std::ptr;
use std::sync::Arc;
use std::thread;

use nix::unistd::{getegid, geteuid};

use crate::call::check;
use crate::capability::{self, Capability};
use crate::peer;

// On 32-bit machines the numbers below name calls with 16-bit ids, which would be cut off.
const _: () = assert!(usize::BITS == 64, "port the calls of this module to setresuid32 and kin");

/// As whom a thread acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Arc<[u32]>,
}

impl Identity {
    /// That of this thread.
    pub fn own() -> io::Result<Self> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Ok(Self { uid, gid, groups: peer::own_groups()?.into() })
    }

    /// Whether both have the same user, group and groups. Whether the group is listed among the
    /// groups, and in which order they are, makes no difference to the kernel.
    pub fn is_same(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| {
            a.groups.iter().all(|group| *group == b.gid || b.groups.contains(group))
        };
        (self.uid, self.gid) == (other.uid, other.gid) && within(self, other) && within(other, self)
    }
}

/// Whether this thread may take on identities other than its own.
pub fn can_change() -> io::Result<bool> {
    Ok(capability::has(Capability::SetUid)? && capability::has(Capability::SetGid)?)
}

/// Whether files are open to this thread whatever their owner says.
pub fn overrides_files() -> io::Result<bool> {
    Ok(capability::has(Capability::DacOverride)? || capability::has(Capability::DacReadSearch)?)
}

/// Starts a thread that takes on `identity`, gives up every capability, does `job`, hands `tell` the
/// result and ends. `tell` gets an error where the identity cannot be had; then `job` did not run.
/// Fails with `EAGAIN` where the system has no more threads.
pub fn spawn_as<T>(
    identity: Arc<Identity>,
    job: impl FnOnce() -> T + Send + 'static,
    tell: impl FnOnce(io::Result<T>) + Send + 'static,
) -> io::Result<()> {
    let body = move || tell(take_on(&identity).map(|()| job()));
    thread::Builder::new().name("as-client".to_owned()).stack_size(STACK).spawn(body).map(drop)
}

/// A job is one system call.
const STACK: usize = 128 << 10;

/// Changes this thread for good. Groups first: without the user's privileges they could not be.
fn take_on(identity: &Identity) -> io::Result<()> {
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
    // Explicitly: a change of the user drops them only where it was 0, and where no securebits say
    // otherwise (PR_SET_KEEPCAPS). Ambient ones go with the permitted.
    capability::drop_all()
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    let start = if groups.is_empty() { ptr::null() } else { groups.as_ptr() };
    // SAFETY: `start` points to `groups.len()` initialised numbers, borrowed for the call, which only
    // reads them. By number, the call changes this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), start) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

/// `setresuid(2)` or `setresgid(2)` with an effective id alone.
fn set_effective(call: libc::c_long, id: u32) -> io::Result<()> {
    const KEEP: u32 = u32::MAX;
    if id == KEEP {
        // The number of "no id": the kernel would take it for "leave as it is".
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: no pointers; both calls take three ids. By number, they change this thread alone.
    let result = unsafe { libc::syscall(call, KEEP, id, KEEP) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

#[cfg(test)]
mod tests;
