//! The paths of files within their file systems, to compare paths when the same directory is mounted at several
//! places.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sockbroker_sys::unix_file::{self, FileId};

/// The mounts of this process (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    number: u64,
    device: String,
    root: PathBuf,
    point: PathBuf,
}

/// A file within its file system. It is the same through every mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inner {
    device: String,
    path: PathBuf,
}

/// A path of a rule, or its last directory that exists.
#[derive(Debug)]
pub(super) struct MountedPath {
    /// The path as the rule has it.
    pub(super) written: PathBuf,
    /// The path without symbolic links.
    pub(super) canonical: PathBuf,
    pub(super) id: FileId,
    pub(super) inner: Option<Inner>,
}

impl Mounts {
    /// Reads the current mounts.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let text = fs::read("/proc/self/mountinfo")?;
        Ok(Self(text.split(|byte| *byte == b'\n').filter_map(Mount::read).collect()))
    }

    /// The path of an open file within its file system; `None` if it was opened through another mount.
    pub(super) fn inner(&self, file: BorrowedFd<'_>, path: &Path) -> Option<Inner> {
        let number = unix_file::mount_of(file).ok()?;
        let mount = self.0.iter().find(|mount| mount.number == number)?;
        let rest = path.strip_prefix(&mount.point).ok()?;
        let path = mount.root.components().chain(rest.components()).collect();
        Some(Inner { device: mount.device.clone(), path })
    }
}

impl Mount {
    /// Reads a line: number, parent, device, root within the file system, mount point, and other fields.
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = String::from_utf8_lossy(fields.nth(1)?).into_owned();
        let (root, point) = (path(fields.next()?), path(fields.next()?));
        Some(Self { number, device, root, point })
    }
}

/// Decodes a path, in which spaces, tabs, line ends and backslashes are octal numbers.
fn path(mut field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    while let Some((first, rest)) = field.split_first() {
        let octal = rest.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(*first));
        field = rest.get(if octal.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

impl Inner {
    /// The path of this file relative to a directory; `None` if it is not below it.
    pub(super) fn below(&self, folder: &Self) -> Option<PathBuf> {
        let rest = self.path.strip_prefix(&folder.path).ok()?;
        (self.device == folder.device).then(|| rest.to_owned())
    }
}

impl MountedPath {
    /// Finds the last directory of a path that exists.
    pub(super) fn nearest(path: &Path, mounts: &Mounts) -> io::Result<Self> {
        let mut written = path;
        let file = loop {
            match unix_file::open(written.as_os_str().as_bytes()) {
                Ok(file) => break file,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    written = written.parent().ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        };
        let canonical =
            PathBuf::from(std::ffi::OsString::from_vec(unix_file::path_of(file.as_fd())?));
        let (id, _) = unix_file::identify(file.as_fd())?;
        let inner = mounts.inner(file.as_fd(), &canonical);
        Ok(Self { written: written.to_owned(), canonical, id, inner })
    }

    /// Whether a file of this device may be below a path of a rule that exists: in the file system of the
    /// directory, or in one that is mounted below it.
    pub(super) fn may_hold(&self, rule: &Path, device: u64, mounts: &Mounts) -> bool {
        if self.written != rule {
            return false;
        }
        let is_folder = fs::metadata(&self.canonical).is_ok_and(|seen| seen.is_dir());
        let below = mounts.0.iter().filter(|mount| mount.point.starts_with(&self.canonical));
        let devices = below.filter_map(|mount| fs::metadata(&mount.point).ok());
        let mut devices = devices.map(|seen| std::os::unix::fs::MetadataExt::dev(&seen));
        is_folder && (self.id.0 == device || devices.any(|found| found == device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_decodes_the_escapes_of_a_mount_line() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = Mount::read(line).unwrap();
        assert_eq!((mount.number, mount.device.as_str()), (36, "98:0"));
        assert_eq!((mount.root, mount.point), ("/mnt1".into(), "/mnt 2".into()));
        assert!(Mount::read(b"").is_none());
    }

    #[test]
    fn below_compares_paths_within_one_file_system() {
        let mounts = Mounts::of_this_process().unwrap();
        let place = MountedPath::nearest(Path::new("/proc/self/no/such/file"), &mounts).unwrap();
        assert!(place.canonical.starts_with("/proc") && place.inner.is_some());
        let inner = |path: &str| Inner { device: "1:2".to_owned(), path: path.into() };
        assert_eq!(inner("/a/b/c").below(&inner("/a/b")), Some("c".into()));
        assert_eq!(inner("/a/bc").below(&inner("/a/b")), None);
        let other = Inner { device: "1:3".to_owned(), path: "/a".into() };
        assert_eq!(inner("/a/b").below(&other), None);
    }
}
