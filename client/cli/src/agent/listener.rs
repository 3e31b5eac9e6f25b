//! The socket of the agent, and its file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sockbroker_sys::process::effective_uid;

/// The permissions of all users but the owner.
const OTHERS: u32 = 0o077;

/// Listens on a path. A file that no process listens on is replaced. The folder is created with mode 0700 if it does
/// not exist.
pub(super) fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let folder = folder(path);
    fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    let one_at_a_time = lock(path)?;
    if UnixStream::connect(path).is_err() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    drop(one_at_a_time);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != "").unwrap_or(Path::new("."))
}

/// Waits until no other agent replaces the file at this path. Programs of other users can lock a folder that they can
/// read, so that a file stands for such a folder.
fn lock(path: &Path) -> io::Result<File> {
    let folder = folder(path);
    let found = fs::metadata(folder)?;
    let is_own = found.uid() == effective_uid() && found.mode() & OTHERS == 0;
    let file = if is_own { File::open(folder)? } else { lock_file(path)? };
    file.lock()?;
    Ok(file)
}

/// A file beside the socket that only this user can open.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |reason: &dyn std::fmt::Display| {
        let text = format!("cannot use the lock file {}: {reason}", name.display());
        io::Error::new(ErrorKind::PermissionDenied, text)
    };
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(&name).map_err(|error| failed(&error))?;
    let found = file.metadata()?;
    if found.is_file() && found.uid() == effective_uid() && found.mode() & OTHERS == 0 {
        Ok(file)
    } else {
        Err(failed(&"it is not a file of this user alone: remove it, or choose another --listen"))
    }
}

/// What distinguishes the file at a path from its successors.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes the file of the socket at the end.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    /// Best effort: the next agent replaces it. The file of another agent, which replaced this one, stays.
    fn drop(&mut self) {
        let Ok(_one_at_a_time) = lock(&self.path) else { return };
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            drop(fs::remove_file(&self.path));
        }
    }
}
