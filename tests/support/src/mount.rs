//! Mounts in the mount namespace of this process: a file system that hangs, an empty one, and a file over another.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a FUSE file system whose requests are never answered, so that every access hangs.
pub fn fuse(target: &Path, device: BorrowedFd<'_>) -> io::Result<()> {
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("stuck"), target, Some("fuse"), flags, Some(options.as_str()))?)
}

/// Mounts an empty tmpfs over a folder.
pub fn empty(target: &Path) -> io::Result<()> {
    Ok(mount(Some("empty"), target, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

/// Mounts a file over another one, which must exist.
pub fn file(target: &Path, source: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Unmounts a file system, even while processes wait for it.
pub fn detach(target: &Path) {
    // An error means that nothing is mounted.
    umount2(target, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE).ok();
}
