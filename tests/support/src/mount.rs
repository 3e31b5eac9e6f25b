//! Mounts of this process's own, for file systems that misbehave or are empty.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a FUSE file system of which nobody reads the requests.
pub fn fuse(place: &Path, device: BorrowedFd<'_>) -> io::Result<()> {
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("stuck"), place, Some("fuse"), flags, Some(options.as_str()))?)
}

/// Mounts an empty file system of memory over a folder.
pub fn empty(place: &Path) -> io::Result<()> {
    Ok(mount(Some("empty"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

/// Takes a mount away, whoever still waits in it.
pub fn detach(place: &Path) {
    // Without it there is nothing to take away.
    umount2(place, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE).ok();
}
