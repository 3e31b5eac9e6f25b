//! The control socket. It is created with its final mode, and replaces only a stale socket of the same user.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::{accounts, process, socket};

use super::error::StartError;
use crate::config::{ConfigError, Mode};

/// The permissions of the group in a mode.
const GROUP_BITS: u32 = 0o070;
const BACKLOG: i32 = 128;

pub(super) const NO_SOCKET_PATH: &str = "no path for the socket: XDG_RUNTIME_DIR is not set; log in with a session that sets it, \
    or give --socket PATH";

/// A listening socket and its path.
#[derive(Debug)]
pub struct Bound {
    pub listener: OwnedFd,
    /// The path, which is removed at the end; `None` for a socket of the service manager.
    pub path: Option<BoundPath>,
}

impl Bound {
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.name(),
            None => "passed by systemd".to_owned(),
        }
    }
}

/// The path of the broker's socket, identified by its inode.
#[derive(Debug)]
pub struct BoundPath {
    path: PathBuf,
    inode: (u64, u64),
}

impl BoundPath {
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Removes the path if it is still the broker's socket.
    pub fn remove(&self) {
        let ours = identity(&self.path).is_ok_and(|inode| inode == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's path");
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// The mode of the path.
    pub mode: u32,
    /// The group of the path, if it differs from the broker's own.
    pub group: Option<u32>,
}

impl Access {
    /// Access by mode and by group, which is a name or a number. The broker joins the group if it is root,
    /// because an owner can give a file to its own groups without a capability.
    pub fn prepare(group: Option<&str>, mode: Mode) -> Result<Self, StartError> {
        let group = group.map(find_group).transpose()?;
        if let Some(group) = group {
            process::join_group(group).map_err(|error| {
                StartError::System(format!("cannot join the group {group} of the socket: {error}"))
            })?;
        }
        Ok(Self { mode: mode.0, group })
    }
}

fn find_group(name: &str) -> Result<u32, StartError> {
    let number = name.parse().ok();
    number.or_else(|| accounts::group(name)).ok_or_else(|| {
        let reason =
            format!("there is no group {name:?}: create it with `groupadd --system {name}`");
        StartError::Config(ConfigError::given("socket_group", reason))
    })
}

/// Adopts the listening socket of the service manager.
pub fn adopt(descriptor: OwnedFd) -> Result<Bound, StartError> {
    let prepare = || {
        socket::set_nonblocking(descriptor.as_fd(), true)?;
        Ok(descriptor)
    };
    let listener = prepare().map_err(|error: io::Error| {
        StartError::Listen(format!("cannot use the socket that systemd passed: {error}"))
    })?;
    Ok(Bound { listener, path: None })
}

/// Binds the control socket.
pub fn bind(path: &Path, access: Access) -> Result<Bound, StartError> {
    let fail = |what: &str, error: io::Error| {
        StartError::Listen(format!("{what} {}: {error}", path.display()))
    };
    remove_stale(path)?;
    let descriptor = socket::create(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)
        .map_err(|error| fail("cannot create a socket for", error))?;
    // Before bind(2), which gives the path this mode less the umask, so that access is never wider. The
    // group has no access until it is the right one.
    let first = if access.group.is_some() { access.mode & !GROUP_BITS } else { access.mode };
    process::set_socket_mode(descriptor.as_fd(), first)
        .map_err(|error| fail("cannot set the mode of", error))?;
    let name = Address::UnixPath(path.as_os_str().as_encoded_bytes().to_vec());
    let address = RawAddress::encode(&name);
    socket::bind(descriptor.as_fd(), &address).map_err(|error| fail("cannot bind", error))?;
    if let Some(group) = access.group {
        lchown(path, None, Some(group)).map_err(|error| {
            let why = "only root, or a member of the group, can set the group of";
            fail(why, error)
        })?;
    }
    let prepared = finish(path, descriptor, access.mode);
    prepared.map_err(|error| fail("cannot listen on", error))
}

/// Listens, and sets the permissions that the umask removed.
fn finish(path: &Path, descriptor: OwnedFd, mode: u32) -> io::Result<Bound> {
    let inode = identity(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket::listen(descriptor.as_fd(), BACKLOG)?;
    Ok(Bound { listener: descriptor, path: Some(BoundPath { path: path.to_owned(), inode }) })
}

/// Removes a socket of the broker's user on which no process listens. Anything else at the path stays and
/// is an error.
fn remove_stale(path: &Path) -> Result<(), StartError> {
    let refuse = |why: &str| {
        let place = path.display();
        Err(StartError::Listen(format!("{place} {why}: remove it or choose another path")))
    };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return refuse(&format!("cannot be examined ({error})")),
    };
    if !found.file_type().is_socket() {
        return refuse("exists and is not a socket");
    }
    if found.uid() != process::effective_uid() {
        return refuse("is a socket of another user");
    }
    match try_connect(path) {
        Ok(()) => refuse("is served by a running process"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .or_else(|error| refuse(&format!("cannot be removed ({error})")))
        }
        Err(error) => refuse(&format!("is a socket in an unclear state ({error})")),
    }
}

/// Connects without waiting: the backlog of another broker may be full.
fn try_connect(path: &Path) -> io::Result<()> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let end = socket::create(libc::AF_UNIX, kind, 0)?;
    let name = Address::UnixPath(path.as_os_str().as_encoded_bytes().to_vec());
    socket::connect(end.as_fd(), &RawAddress::encode(&name))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
