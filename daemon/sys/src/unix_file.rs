//! Socket files of `AF_UNIX`, each opened as a descriptor with `O_PATH`, so that the path cannot lead to another
//! file between a check and the kernel's own look-up.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlink};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, fstat, fstatat, stat};
use nix::unistd::fchdir;
use sockbroker_proto::address::Address;

use crate::address::RawAddress;
use crate::socket;

mod diagnosis;

pub use diagnosis::{BoundFile, FileId, bound_file};

/// The type of the file that a descriptor refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Socket,
    Directory,
    Other,
}

/// Opens a socket file. Follows symbolic links except those of `/proc` that lead to open files and
/// directories of this process (`openat2(2)`, `RESOLVE_NO_MAGICLINKS`). Does not read the file; needs search
/// permission on the path, and no permission on the file.
pub fn open(path: &[u8]) -> io::Result<OwnedFd> {
    open_with(path, OFlag::O_PATH)
}

/// Opens a directory like [`open`]; `ENOTDIR` for anything else.
pub fn open_directory(path: &[u8]) -> io::Result<OwnedFd> {
    open_with(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

fn open_with(path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    let how =
        OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(nix::fcntl::AT_FDCWD, OsStr::from_bytes(path), how)?)
}

/// The identity and type of an open file (`fstat(2)`).
pub fn identify(file: BorrowedFd<'_>) -> io::Result<(FileId, FileKind)> {
    let found = fstat(file)?;
    let kind = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK => FileKind::Socket,
        SFlag::S_IFDIR => FileKind::Directory,
        _ => FileKind::Other,
    };
    Ok(((found.st_dev, found.st_ino), kind))
}

/// The kernel's path of an open file (`proc_pid_fd(5)`): canonical, in the mount namespace in which
/// it was opened.
pub fn path_of(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(readlink(own_entry(file).as_str())?.into_vec())
}

/// The number of the mount through which a file was opened (`mnt_id` of `proc_pid_fdinfo(5)`), as in
/// `proc_pid_mountinfo(5)`.
pub fn mount_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    let shown = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let number = shown.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let number = number.and_then(|number| number.trim().parse().ok());
    number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// An address of exactly this socket file, valid while the descriptor is open in this process.
pub fn address_of(file: BorrowedFd<'_>) -> RawAddress {
    RawAddress::encode(&Address::UnixPath(own_entry(file).into_bytes()))
}

fn own_entry(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Binds a socket to `name` in a directory, and returns the name that the kernel then reports for it.
///
/// This is `written`, the path from the program, if this process finds the same directory by it, otherwise `name`
/// alone. Changes the working directory of the calling thread, which must end afterwards.
///
/// `ESTALE` if the path led elsewhere in the meantime: the socket is then bound to a file that was not checked.
pub fn bind(
    socket: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    name: &[u8],
    written: Option<&[u8]>,
) -> io::Result<Vec<u8>> {
    // If the kernel does not report bound files, the bound file could not be checked afterwards.
    let checked = bound_file(socket).is_ok();
    if let Some(path) = written.filter(|path| checked && leads_to(path, folder, name)) {
        socket::bind(socket, &RawAddress::encode(&Address::UnixPath(path.to_vec())))?;
        check_bound(socket, folder, name)?;
        return Ok(path.to_vec());
    }
    unshare(CloneFlags::CLONE_FS)?;
    fchdir(folder)?;
    socket::bind(socket, &RawAddress::encode(&Address::UnixPath(name.to_vec())))?;
    Ok(name.to_vec())
}

/// Whether an absolute path is `name` in exactly this directory.
fn leads_to(path: &[u8], folder: BorrowedFd<'_>, name: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    let same = || -> io::Result<bool> {
        let Some(parent) = path.parent() else { return Ok(false) };
        let (seen, own) = (stat(parent)?, fstat(folder)?);
        Ok((seen.st_dev, seen.st_ino) == (own.st_dev, own.st_ino))
    };
    path.is_absolute()
        && path.file_name() == Some(OsStr::from_bytes(name))
        && same().unwrap_or(false)
}

/// Compares the file that the socket is bound to with the file in the directory.
fn check_bound(socket: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let elsewhere = || io::Error::from_raw_os_error(libc::ESTALE);
    let found = fstatat(folder, OsStr::from_bytes(name), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|_error| elsewhere())?;
    match bound_file(socket)? {
        Some(bound) if bound == BoundFile::of((found.st_dev, found.st_ino)) => Ok(()),
        Some(_) | None => Err(elsewhere()),
    }
}

#[cfg(test)]
mod tests;
