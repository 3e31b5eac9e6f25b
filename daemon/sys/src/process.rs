//! The process itself: limits, memory, identity, and the descriptors that it inherited.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::prctl::{set_no_new_privs, set_timerslack};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, SFlag, fchmod};
use nix::unistd::{Gid, getegid, geteuid, getgroups, setgroups};

use crate::call::invalid;
use crate::file;

/// Lets the allocator keep and reuse buffers up to 64 MiB, or 32 MiB if glibc allows no more
/// (`mallopt(3)`, `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`): a bulk response then does not map and
/// unmap its pages each time.
pub fn keep_large_buffers() {
    const MIB: libc::c_int = 1 << 20;
    if !set_allocator(libc::M_MMAP_THRESHOLD, 64 * MIB) {
        set_allocator(libc::M_MMAP_THRESHOLD, 32 * MIB);
    }
    set_allocator(libc::M_TRIM_THRESHOLD, 64 * MIB);
}

fn set_allocator(parameter: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: no pointers; mallopt takes the allocator's own lock and refuses bad values.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// Lets the sleeps of this thread end in time: the kernel otherwise delays them by up to 50 microseconds
/// (`PR_SET_TIMERSLACK`, `prctl(2)`).
pub fn use_exact_timers() -> io::Result<()> {
    Ok(set_timerslack(1000)?)
}

/// Raises the soft limit of open files to the hard limit (`RLIMIT_NOFILE`, `getrlimit(2)`) and returns
/// it.
pub fn raise_open_files() -> io::Result<u64> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Lowers the limit of open files (`RLIMIT_NOFILE`) by a sixteenth, and returns what it was. The kernel compares the
/// descriptors in flight of all processes of a user with the limit of the one that sends (`unix(7)`,
/// `ETOOMANYREFS`): a process with a higher limit can still send when this one cannot.
pub fn lower_open_files() -> io::Result<u64> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let lower = (hard - hard / 16).max(1);
    setrlimit(Resource::RLIMIT_NOFILE, lower, lower)?;
    Ok(hard)
}

/// Lowers the limit of open files (`RLIMIT_NOFILE`) to at most this number.
pub fn limit_open_files(most: u64) -> io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = most.min(hard);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Limits the memory that this process can allocate (`RLIMIT_DATA`), and prevents that a core is written
/// (`RLIMIT_CORE`). A lower limit that is in force already stays.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    let bytes = bytes.min(hard);
    setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Limits the threads of this process's user (`RLIMIT_NPROC`), which has no other process.
pub fn limit_threads(most: u64) -> io::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    let most = most.min(hard);
    Ok(setrlimit(Resource::RLIMIT_NPROC, most, most)?)
}

/// Prevents programs that this thread, or a thread that it starts, runs later from gaining privileges
/// (`PR_SET_NO_NEW_PRIVS`, `prctl(2)`). A filter of system calls requires it.
pub fn refuse_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs()?)
}

/// Runs a function when the process exits (`atexit(3)`). A panic in it aborts the process.
pub fn at_exit(run: extern "C" fn()) -> io::Result<()> {
    // SAFETY: no pointers except `run`, a function of this program that exists until the process ends.
    match unsafe { libc::atexit(run) } {
        0 => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
    }
}

/// The effective user id (`geteuid(2)`).
pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// The effective group id (`getegid(2)`).
pub fn effective_gid() -> u32 {
    getegid().as_raw()
}

/// Adds a group to the groups of this process if it is root. Other users keep their groups: only root
/// is allowed to set them.
pub fn join_group(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    let mut groups = getgroups()?;
    if !geteuid().is_root() || getegid() == gid || groups.contains(&gid) {
        return Ok(());
    }
    groups.push(gid);
    Ok(setgroups(&groups)?)
}

/// Sets the permission bits of a socket (`fchmod(2)`): the lowest 12 bits of `mode`. On Linux, a
/// later `bind(2)` of an `AF_UNIX` socket creates its path with these bits less the umask, so that the
/// path is never open to all. The call does not change the path of a bound socket.
pub fn set_socket_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(fchmod(fd, Mode::from_bits_truncate(mode))?)
}

/// A duplicate of standard input (0) or output (1), close-on-exec, for the stdio transport.
/// `InvalidInput` for another number.
pub fn inherited_descriptor(number: i32) -> io::Result<OwnedFd> {
    match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        _ => Err(invalid("only descriptors 0 and 1 are inherited")),
    }
}

pub fn is_socket(fd: BorrowedFd<'_>) -> bool {
    file::is(fd, SFlag::S_IFSOCK).unwrap_or(false)
}

/// Whether the descriptor is a pipe or FIFO.
pub fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    file::is(fd, SFlag::S_IFIFO).unwrap_or(false)
}

/// Whether two descriptors refer to the same file, pipe or socket (`fstat(2)`).
pub fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    file::is_same(one, other)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::socket::bind;
    use crate::testing::{TempDir, assert_refused, socket, unix_address, unix_pair};

    #[test]
    fn allocator_accepts_the_thresholds() {
        keep_large_buffers();
        keep_large_buffers();
        assert_eq!(vec![1u8; 48 << 20].len(), 48 << 20);
    }

    #[test]
    fn soft_limit_of_open_files_becomes_the_hard_limit() {
        let hard = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }

    #[test]
    fn effective_ids_are_those_of_the_process() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let effective = |key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(effective_uid(), effective("Uid:"));
        assert_eq!(effective_gid(), effective("Gid:"));
    }

    #[test]
    fn bind_creates_the_path_with_the_mode_of_the_socket() {
        let directory = TempDir::new();
        let path = directory.path("s");
        let listener = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        set_socket_mode(listener.as_fd(), 0o600).unwrap();
        bind(listener.as_fd(), &unix_address(&path)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // From here on the path has its own permission bits.
        set_socket_mode(listener.as_fd(), 0o666).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn only_standard_input_and_output_are_inherited() {
        assert_refused(inherited_descriptor(2));
        assert_refused(inherited_descriptor(-1));
        let output = inherited_descriptor(1).unwrap();
        assert_ne!(std::os::fd::AsRawFd::as_raw_fd(&output), 1);
    }

    #[test]
    fn duplicates_are_the_same_file_and_ends_of_a_pair_are_not() {
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let copy = a.try_clone().unwrap();
        assert!(is_same_file(a.as_fd(), copy.as_fd()).unwrap());
        assert!(!is_same_file(a.as_fd(), b.as_fd()).unwrap());
    }

    #[test]
    fn is_socket_and_is_pipe_distinguish_files() {
        let (a, _b) = unix_pair(libc::SOCK_STREAM);
        let (read, _write) = io::pipe().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        assert!(is_socket(a.as_fd()) && !is_pipe(a.as_fd()));
        assert!(is_pipe(read.as_fd()) && !is_socket(read.as_fd()));
        assert!(!is_pipe(null.as_fd()) && !is_socket(null.as_fd()));
    }
}
