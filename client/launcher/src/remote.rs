//! What the supervisor reads of a program: its memory, its descriptors, its name, its network namespace.
//!
//! All of it by the id of a thread, which is reused after the thread has ended. So a caller checks afterwards that the
//! call still waits ([`Listener::is_valid`](crate::kernel::notify::Listener::is_valid)).

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::kernel::memory::read_of_process;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// More than the name of a thread has, with its newline (`TASK_COMM_LEN`; workers of the kernel have longer ones).
const NAME_BYTES: usize = 64;

/// `PIDFD_THREAD` (Linux 6.9): the descriptor is one of a thread, not of a process.
const OF_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0o200);

/// Reads memory of a program: as many bytes as are there, at most those of `buffer`.
pub(crate) fn read_memory(tid: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    // In one system call, if all of it is there.
    if read_of_process(tid, address, buffer).is_ok_and(|read| read == buffer.len()) {
        return Ok(buffer.len());
    }
    let memory = File::open(format!("/proc/{tid}/mem"))?;
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let from = address.checked_add(read as u64).ok_or(io::ErrorKind::InvalidInput)?;
        match memory.read_at(rest, from) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if read == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(read)
}

/// A copy of a descriptor of a program.
pub(crate) fn descriptor(tid: u32, number: i32) -> io::Result<OwnedFd> {
    let thread = match pidfd_open(pid(tid)?, OF_THREAD) {
        // Before Linux 6.9 only a process has a descriptor. Its threads share their descriptors.
        Err(rustix::io::Errno::INVAL) => {
            let process = process_of(tid).ok_or(io::ErrorKind::NotFound)?;
            pidfd_open(pid(process)?, PidfdFlags::empty())?
        }
        other => other?,
    };
    Ok(pidfd_getfd(thread, number, PidfdGetfdFlags::empty())?)
}

fn pid(number: u32) -> io::Result<Pid> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The id of the process of a thread.
pub(crate) fn process_of(tid: u32) -> Option<u32> {
    // A first thread has the id of its process, and only such a thread has a descriptor of a process.
    if pidfd_open(pid(tid).ok()?, PidfdFlags::empty()).is_ok() {
        return Some(tid);
    }
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The name of a thread (`comm` in `proc_pid_comm(5)`).
pub(crate) fn name_of(tid: u32) -> String {
    let mut name = [0; NAME_BYTES];
    let file = File::open(format!("/proc/{tid}/comm"));
    let read = file.and_then(|file| file.read_at(&mut name, 0)).unwrap_or_default();
    let name = name.get(..read).unwrap_or_default().trim_ascii_end();
    let name = String::from_utf8_lossy(name).into_owned();
    if name.is_empty() { "?".to_owned() } else { name }
}

/// A network namespace, as `/proc` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network(PathBuf);

impl Network {
    /// That of a process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        fs::read_link(format!("/proc/{pid}/ns/net")).map(Self)
    }

    /// Whether a program is in this namespace. A program that this process must not inspect is not.
    pub(crate) fn contains(&self, tid: u32) -> bool {
        fs::read_link(format!("/proc/{tid}/ns/net")).is_ok_and(|other| other == self.0)
    }
}

/// The first port that a program without privileges can bind (`ip_unprivileged_port_start` in `ip(7)`).
pub(crate) fn first_unprivileged_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn memory_is_read_up_to_where_it_ends() {
        let data = *b"sockaddr";
        let address = data.as_ptr().expose_provenance() as u64;
        let mut buffer = [0; 8];
        let own = std::process::id();
        assert_eq!(read_memory(own, address, &mut buffer).unwrap(), 8);
        assert_eq!(buffer, data);
        for nothing in [0, 8, u64::MAX - 3] {
            assert!(read_memory(own, nothing, &mut buffer).is_err(), "{nothing:#x}");
        }
    }

    #[test]
    fn a_descriptor_of_a_thread_is_copied() {
        let file = tempfile();
        let number =
            rustix::fs::readlink(format!("/proc/self/fd/{}", number_of(&file)), Vec::new())
                .unwrap();
        let copy = descriptor(std::process::id(), number_of(&file)).unwrap();
        let copied = format!("/proc/self/fd/{}", number_of(&copy));
        assert_eq!(rustix::fs::readlink(copied, Vec::new()).unwrap(), number);
        assert!(descriptor(std::process::id(), 9999).is_err());
        assert!(descriptor(0, 0).is_err());
    }

    fn tempfile() -> OwnedFd {
        File::open("/dev/zero").unwrap().into()
    }

    /// The number of a descriptor, which only `kernel` converts otherwise.
    fn number_of(fd: &OwnedFd) -> i32 {
        let text = format!("{:?}", fd.as_fd());
        text.split(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty())
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn a_thread_has_a_name_a_process_and_a_network() {
        let own = std::process::id();
        assert_eq!(process_of(own), Some(own));
        assert_eq!(process_of(0), None);
        assert_eq!(name_of(0), "?");
        assert!(Network::of(own).unwrap().contains(own));
        assert!(!Network::of(own).unwrap().contains(0));
        assert!(Network::of(0).is_err());
    }
}
