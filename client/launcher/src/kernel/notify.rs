//! Seccomp user notification: `seccomp(2)`, `seccomp_unotify(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sockbroker_bpf::Program;

use super::check;
use super::shared::Slot;
use crate::decision::RawCall;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` of `linux/seccomp.h`.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// The descriptor on which the kernel reports the calls of the programs under a filter.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The number of the notification.
    pub(crate) id: u64,
    /// The thread that made the call.
    pub(crate) tid: u32,
    pub(crate) call: RawCall,
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Puts this thread and what it executes under a filter. With `killable` only a fatal signal interrupts a call
    /// that was received (Linux 5.19). Needs `no_new_privs`.
    pub(crate) fn install(filter: &Program, killable: bool) -> io::Result<Self> {
        let instructions = filter.0.iter().map(|one| libc::sock_filter {
            code: one.code,
            jt: one.jump_true,
            jf: one.jump_false,
            k: one.k,
        });
        let mut filter: Vec<_> = instructions.collect();
        let wait = if killable { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | wait;
        let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        let operation = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: `program` points to `len` initialised instructions of `filter`, which lives for the call; the kernel
        // copies them. The result is a new descriptor or an error.
        let made =
            unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
        let made = check(libc::c_int::try_from(made).unwrap_or(-1))?;
        // SAFETY: the kernel has just returned this descriptor, which nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(made) }))
    }

    /// Lets the kernel wake the thread that receives a call, and the one that gets the answer, on the CPU of the other
    /// (Linux 6.6): one of both always waits, and waking another CPU takes longer than most calls.
    pub(crate) fn wake_on_same_cpu(&self) -> io::Result<()> {
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS);
        // SAFETY: the argument of this request is a number.
        let result = unsafe { libc::ioctl(fd, request, SYNC_WAKE_UP) };
        check(result).map(|_zero| ())
    }

    /// Whether no program is left.
    pub(crate) fn is_over(&self) -> bool {
        let mut entries = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::empty())];
        let polled = poll(&mut entries, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && !entries[0].revents().is_empty()
    }

    /// The next call; `None` if its thread no longer waits, a signal came, or no program is left. Blocks if there is
    /// none.
    pub(crate) fn receive(&self, slot: &mut Slot) -> io::Result<Option<Notification>> {
        // The kernel requires zeros.
        *slot = Slot::of(0);
        let Slot(found) = slot;
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV);
        // SAFETY: `found` is a writable structure of the size that the request contains, and lives for the call.
        let result = unsafe { libc::ioctl(fd, request, ptr::from_mut(found)) };
        match check(result) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let data = found.data;
        let call = RawCall { arch: data.arch, number: data.nr, args: data.args };
        Ok(Some(Notification { id: found.id, tid: found.pid, call }))
    }

    /// Whether the call still waits. Then its thread id still is that of the caller.
    pub(crate) fn is_valid(&self, id: u64) -> bool {
        let (fd, request) = (self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID);
        // SAFETY: `id` is an initialised integer of the size that the request contains; the kernel only reads it.
        let result = unsafe { libc::ioctl(fd, request, &raw const id) };
        check(result).is_ok()
    }

    /// Ends the call with 0 or with an error number. `ENOENT` if it no longer waits.
    pub(crate) fn answer(&self, id: u64, errno: Option<i32>) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp { id, val: 0, error: -errno.unwrap_or(0), flags: 0 })
    }

    /// Ends the call with a result.
    fn answer_with(&self, id: u64, result: i64) -> io::Result<()> {
        self.send(libc::seccomp_notif_resp { id, val: result, error: 0, flags: 0 })
    }

    /// Lets the kernel make the call, with the rights of the program.
    pub(crate) fn make_natively(&self, id: u64) -> io::Result<()> {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or_default();
        self.send(libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
    }

    /// Gives the program a descriptor, whose number is the result of the call. `ENOENT` if the call no longer waits;
    /// another error is one of the program, such as `EMFILE`.
    ///
    /// If signals can interrupt the call, this is one step of the kernel, so that the program has no descriptor that it
    /// does not know of. If not, it is two: when this process is stopped or frozen during the one step, the kernel has
    /// answered the call already, with 0, and gives no descriptor (`seccomp_notify_addfd` in `kernel/seccomp.c`).
    pub(crate) fn give(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        close_on_exec: bool,
        killable: bool,
    ) -> io::Result<()> {
        let send = u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or_default();
        let number = self.add(id, fd, close_on_exec, if killable { 0 } else { send })?;
        if killable { self.answer_with(id, number.into()) } else { Ok(()) }
    }

    /// Adds a descriptor to the program. Returns its number there.
    fn add(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        close_on_exec: bool,
        flags: u32,
    ) -> io::Result<libc::c_int> {
        let added = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        let request = libc::SECCOMP_IOCTL_NOTIF_ADDFD;
        // SAFETY: `added` is an initialised structure of the size that the request contains; the kernel only reads it,
        // and `fd` is open for the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw const added) };
        check(result)
    }

    fn send(&self, mut response: libc::seccomp_notif_resp) -> io::Result<()> {
        let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
        // SAFETY: `response` is an initialised structure of the size that the request contains, and lives for the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut response) };
        check(result).map(|_zero| ())
    }
}
