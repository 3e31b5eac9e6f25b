//! The privileges of this thread, as the kernel reports them (`proc_pid_status(5)`, `user_namespaces(7)`).

use std::fs;
use std::io;

/// The privileges of a thread; it passes them on to threads that it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// The effective capabilities, by their names in `capabilities(7)`.
    pub capabilities: Vec<String>,
    /// Whether programs that the thread runs gain no privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// Whether a filter checks system calls (`SECCOMP_MODE_FILTER`).
    pub filtered: bool,
    /// The number of filters; unknown before Linux 5.9.
    pub filters: Option<u32>,
    /// Whether the thread is in a user namespace other than the initial one.
    pub user_namespace: bool,
}

/// The names of `linux/capability.h`, by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The privileges of this thread. `InvalidData` if `/proc` lacks a field of `proc_pid_status(5)`.
pub fn of_this_thread() -> io::Result<Privileges> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    read(&fs::read_to_string("/proc/thread-self/status")?, &map)
}

fn read(status: &str, map: &str) -> io::Result<Privileges> {
    let find = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let field = |key: &str| {
        let absent = || io::Error::new(io::ErrorKind::InvalidData, format!("no {key} in status"));
        find(key).ok_or_else(absent)
    };
    let effective = u64::from_str_radix(field("CapEff:")?, 16).map_err(io::Error::other)?;
    Ok(Privileges {
        capabilities: names(effective),
        no_new_privs: field("NoNewPrivs:")? == "1",
        // A kernel without seccomp has no such line.
        filtered: find("Seccomp:") == Some("2"),
        filters: find("Seccomp_filters:").and_then(|number| number.parse().ok()),
        // The map of the initial namespace maps every id to itself.
        user_namespace: !map.split_whitespace().eq(["0", "0", "4294967295"]),
    })
}

/// The names of a set; a capability that this list does not know is named by its number.
fn names(set: u64) -> Vec<String> {
    let numbers = (0..u64::BITS as usize).filter(|number| set >> number & 1 == 1);
    let name = |number: usize| match NAMES.get(number) {
        Some(name) => (*name).to_owned(),
        None => format!("capability {number}"),
    };
    numbers.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::ALL;

    #[test]
    fn names_match_their_numbers() {
        for capability in ALL {
            assert_eq!(names(1 << capability as u32), [capability.name()]);
        }
        assert_eq!(names(1 << 40 | 1 << 63), ["CAP_CHECKPOINT_RESTORE", "capability 63"]);
        assert!(names(0).is_empty());
    }

    #[test]
    fn status_and_map_are_parsed() {
        let status =
            "CapEff:\t0000000000002000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let expected = Privileges {
            capabilities: vec!["CAP_NET_RAW".to_owned()],
            no_new_privs: true,
            filtered: true,
            filters: Some(3),
            user_namespace: false,
        };
        let first = "         0          0 4294967295\n";
        assert_eq!(read(status, first).unwrap(), expected);
        let nested = read(status, "0 1000 1\n").unwrap();
        assert!(nested.user_namespace);
        let old = read("CapEff:\t0\nNoNewPrivs:\t0\n", first).unwrap();
        assert_eq!((old.filtered, old.filters, old.no_new_privs), (false, None, false));
        assert_eq!(read("", first).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn thread_without_privileges_has_no_capabilities() {
        let given_up = || {
            crate::capability::drop_permanently().unwrap();
            of_this_thread().unwrap()
        };
        let privileges = std::thread::spawn(given_up).join().unwrap();
        assert!(privileges.capabilities.is_empty() && privileges.no_new_privs, "{privileges:?}");
    }
}
