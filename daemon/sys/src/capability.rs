//! Capabilities of this thread (`capabilities(7)`): reads them, passes some to programs that the thread runs, and
//! drops them permanently.

use std::io;

use nix::sys::prctl::set_no_new_privs;

use crate::call::check;

/// A capability, with its number in `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Capability {
    /// `CAP_DAC_OVERRIDE`: bypasses the permission bits of files.
    DacOverride = 1,
    /// `CAP_DAC_READ_SEARCH`: bypasses the permission bits for reading files and searching directories.
    DacReadSearch = 2,
    /// `CAP_KILL`: sends signals to processes of other users.
    Kill = 5,
    /// `CAP_SETGID`: sets any group id, also in socket credentials.
    SetGid = 6,
    /// `CAP_SETUID`: sets any user id, also in socket credentials.
    SetUid = 7,
    /// `CAP_NET_BIND_SERVICE`: binds to ports below 1024.
    NetBindService = 10,
    /// `CAP_NET_BROADCAST`: some address families require it for broadcasts.
    NetBroadcast = 11,
    /// `CAP_NET_ADMIN`: promiscuous mode, transparent sockets, some options.
    NetAdmin = 12,
    /// `CAP_NET_RAW`: raw and packet sockets.
    NetRaw = 13,
    /// `CAP_IPC_LOCK`: locks memory, which `AF_XDP` and zero-copy rings need.
    IpcLock = 14,
    /// `CAP_SYS_ADMIN`: sets the host name, creates network namespaces, sends credentials of any process.
    SysAdmin = 21,
    /// `CAP_AUDIT_READ`: reads the multicast group of the kernel's audit.
    AuditRead = 37,
}

/// Every capability that a call of the broker can use.
pub const ALL: [Capability; 12] = [
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Kill,
    Capability::SetGid,
    Capability::SetUid,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::SysAdmin,
    Capability::AuditRead,
];

impl Capability {
    /// The name in `capabilities(7)`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
            Self::SetGid => "CAP_SETGID",
            Self::SetUid => "CAP_SETUID",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetBroadcast => "CAP_NET_BROADCAST",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::AuditRead => "CAP_AUDIT_READ",
        }
    }

    fn bit(self) -> u64 {
        1 << (self as u32)
    }
}

/// The three sets of a thread, one bit for each capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// Whether this thread has a capability in effect.
pub fn has(capability: Capability) -> io::Result<bool> {
    Ok(get()?.effective & capability.bit() != 0)
}

/// Puts all permitted capabilities of this thread into effect: a program with capabilities in its file can be started with
/// none in effect (`capabilities(7)`, "File capabilities").
pub fn use_permitted() -> io::Result<()> {
    let sets = get()?;
    set(Sets { effective: sets.permitted, ..sets })
}

/// Clears the effective, permitted and inheritable sets of this thread; the kernel then clears the ambient set.
pub fn drop_all() -> io::Result<()> {
    set(Sets { effective: 0, permitted: 0, inheritable: 0 })
}

/// Whether this thread has no capability in any set, its bounding and ambient sets included.
pub fn has_none() -> io::Result<bool> {
    let Sets { effective, permitted, inheritable } = get()?;
    let mut left = effective | permitted | inheritable;
    for number in 0..=last()? {
        left |= u64::from(in_bounding(number)?) << number;
    }
    Ok(left == 0)
}

/// Whether this thread has no capability except in its bounding set.
pub fn holds_none() -> io::Result<bool> {
    // The ambient set is a part of the permitted and the inheritable one.
    Ok(get()? == Sets { effective: 0, permitted: 0, inheritable: 0 })
}

/// Clears the bounding set, as far as this thread is allowed to: without `CAP_SETPCAP` the set stays, and has no
/// effect once `no_new_privs` is set.
pub fn clear_bounding() -> io::Result<()> {
    drop_bounding(0)
}

/// Adds capabilities to the ambient set (`PR_CAP_AMBIENT_RAISE`): programs that this thread runs have
/// these and no others. `EPERM` for a capability that is not permitted.
pub fn raise_ambient(capabilities: &[Capability]) -> io::Result<()> {
    let wanted = capabilities.iter().fold(0, |bits, capability| bits | capability.bit());
    set(Sets { inheritable: wanted, ..get()? })?;
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for capability in capabilities {
        control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, *capability as libc::c_int)?;
    }
    Ok(())
}

/// Drops all capabilities of this thread but these from every set, the bounding and ambient sets
/// included; returns those that remain. Threads that exist already keep their capabilities.
pub fn keep_only(kept: &[Capability]) -> io::Result<Vec<Capability>> {
    let bits = kept.iter().fold(0, |bits, capability| bits | capability.bit());
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    drop_bounding(bits)?;
    let permitted = get()?.permitted & bits;
    set(Sets { effective: permitted, permitted, inheritable: 0 })?;
    Ok(ALL.into_iter().filter(|capability| permitted & capability.bit() != 0).collect())
}

/// Drops these capabilities of this thread from every set, and leaves the others in effect; the ambient set is
/// cleared. Threads that exist already keep their capabilities.
pub fn drop_these(dropped: &[Capability]) -> io::Result<()> {
    let bits = dropped.iter().fold(0, |bits, capability| bits | capability.bit());
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    drop_bounding(!bits)?;
    let Sets { effective, permitted, inheritable } = get()?;
    set(Sets {
        effective: effective & !bits,
        permitted: permitted & !bits,
        inheritable: inheritable & !bits,
    })
}

/// Drops from the bounding set all capabilities but `kept`. Without `CAP_SETPCAP` the set stays, and
/// has no effect once `no_new_privs` is set.
fn drop_bounding(kept: u64) -> io::Result<()> {
    for number in (0..=last()?).filter(|number| kept & (1 << number) == 0) {
        match control(libc::PR_CAPBSET_DROP, libc::c_int::try_from(number).unwrap_or(-1), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            result => result?,
        };
    }
    Ok(())
}

/// Drops every capability permanently: those of this thread, and any that a program it runs could gain
/// from its file (the bounding set, `PR_SET_NO_NEW_PRIVS`). Threads that exist already keep their capabilities.
pub fn drop_permanently() -> io::Result<()> {
    set_no_new_privs()?;
    control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    drop_bounding(0)?;
    drop_all()
}

/// The highest capability number that the kernel knows.
fn last() -> io::Result<u32> {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
    text.trim().parse().map_err(io::Error::other)
}

fn in_bounding(number: u32) -> io::Result<bool> {
    let number = libc::c_int::try_from(number).unwrap_or(-1);
    Ok(control(libc::PR_CAPBSET_READ, number, 0)? == 1)
}

/// `prctl(2)` with operations that take no pointers.
fn control(operation: i32, second: i32, third: i32) -> io::Result<i32> {
    let (second, third) = (libc::c_long::from(second), libc::c_long::from(third));
    // SAFETY: every operation that this file passes takes numbers only; the last two arguments must be 0.
    check(unsafe { libc::prctl(operation, second, third, 0 as libc::c_long, 0 as libc::c_long) })
}

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

impl Header {
    /// Version 3, this thread.
    fn new() -> Self {
        Self { version: 0x2008_0522, pid: 0 }
    }
}

/// `struct __user_cap_data_struct`; version 3 has two, lower capabilities first.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn get() -> io::Result<Sets> {
    let mut header = Header::new();
    let mut data = [Data::default(); 2];
    let (head, parts) = (&raw mut header, data.as_mut_ptr());
    // SAFETY: the kernel reads and writes at most one header, and writes two data structures for version
    // 3; both are ours, initialised, and alive for the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, head, parts) };
    check(i32::try_from(result).unwrap_or(-1))?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

fn set(sets: Sets) -> io::Result<()> {
    let half = |bits: u64, shift: u32| u32::try_from(bits >> shift & u64::from(u32::MAX));
    let part = |shift: u32| -> Result<Data, std::num::TryFromIntError> {
        Ok(Data {
            effective: half(sets.effective, shift)?,
            permitted: half(sets.permitted, shift)?,
            inheritable: half(sets.inheritable, shift)?,
        })
    };
    let data = [part(0).map_err(io::Error::other)?, part(32).map_err(io::Error::other)?];
    let mut header = Header::new();
    let (head, parts) = (&raw mut header, data.as_ptr());
    // SAFETY: the kernel reads and writes at most one header, and reads two data structures for version
    // 3; both are ours, initialised, and alive for the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, head, parts) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs a test in a thread of its own, because capabilities belong to threads.
    fn in_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    fn status(key: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn sets_equal_those_in_proc_status() {
        let Sets { effective, permitted, inheritable } = get().unwrap();
        assert_eq!(effective, status("CapEff:"));
        assert_eq!(permitted, status("CapPrm:"));
        assert_eq!(inheritable, status("CapInh:"));
    }

    #[test]
    fn dropped_capabilities_cannot_be_regained() {
        in_a_thread(|| {
            let privileged = get().unwrap().permitted != 0;
            drop_permanently().unwrap();
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(status(set), 0, "{set}");
            }
            assert_eq!(status("NoNewPrivs:"), 1);
            if privileged {
                assert_eq!(status("CapBnd:"), 0);
                assert!(has_none().unwrap());
            }
            let error = raise_ambient(&[Capability::NetRaw]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            let raw = crate::socket::create(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap_err();
            assert_eq!(raw.raw_os_error(), Some(libc::EPERM));
        });
    }

    #[test]
    fn keep_only_clears_all_other_bits_of_every_set() {
        in_a_thread(|| {
            let before = get().unwrap().permitted;
            let kept = keep_only(&[Capability::NetRaw, Capability::SysAdmin]).unwrap();
            let bits = before & (Capability::NetRaw.bit() | Capability::SysAdmin.bit());
            assert_eq!(kept.iter().fold(0, |bits, capability| bits | capability.bit()), bits);
            assert_eq!((status("CapPrm:"), status("CapEff:")), (bits, bits));
            assert_eq!((status("CapInh:"), status("CapAmb:")), (0, 0));
            if before != 0 {
                assert_eq!(status("CapBnd:") & !bits, 0);
            }
        });
    }

    #[test]
    fn dropped_capabilities_leave_the_others() {
        in_a_thread(|| {
            let before = get().unwrap().effective;
            drop_these(&[Capability::NetRaw, Capability::SysAdmin]).unwrap();
            let bits = Capability::NetRaw.bit() | Capability::SysAdmin.bit();
            assert_eq!((status("CapEff:"), status("CapAmb:")), (before & !bits, 0));
            assert!(!has(Capability::NetRaw).unwrap());
            if before != 0 {
                assert_eq!(status("CapBnd:") & bits, 0);
            }
        });
    }

    #[test]
    fn programs_have_the_ambient_capabilities() {
        in_a_thread(|| {
            match raise_ambient(&[Capability::NetRaw]) {
                Ok(()) => {}
                // An ordinary user has no permitted capabilities to raise.
                Err(error) => return assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
            }
            assert_eq!(status("CapAmb:"), Capability::NetRaw.bit());
            let shown = Command::new("cat").arg("/proc/self/status").output().unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("CapAmb:\t0000000000002000"), "{shown}");
        });
    }
}
