//! The host name (`gethostname(2)`) and the memory of the machine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The host name of this UTS namespace: at most 64 bytes, in any encoding.
pub fn hostname() -> io::Result<Vec<u8>> {
    Ok(nix::unistd::gethostname()?.into_vec())
}

/// Sets the host name: `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for over 64 bytes.
pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::sethostname(OsStr::from_bytes(name))?)
}

/// The memory of the machine in bytes (`sysinfo(2)`).
pub fn memory() -> io::Result<u64> {
    Ok(nix::sys::sysinfo::sysinfo()?.ram_total())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{errno, skip};

    #[test]
    fn hostname_is_not_empty() {
        let name = hostname().unwrap();
        let kernels = std::fs::read("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(name, kernels.trim_ascii_end());
    }

    #[test]
    fn too_long_hostname_is_refused_and_changes_nothing() {
        let before = hostname().unwrap();
        let errno = errno(set_hostname(&[b'x'; 65]));
        if errno == libc::EPERM {
            skip("needs CAP_SYS_ADMIN");
        } else {
            assert_eq!(errno, libc::EINVAL);
        }
        assert_eq!(hostname().unwrap(), before);
    }
}
