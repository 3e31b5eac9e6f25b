//! Files of `AF_UNIX` sockets: identifies them, and finds the names that rules use for them.
//!
//! A client opens the file and passes the descriptor. The file that the client means, the file that the policy
//! judges and the file that the kernel uses CANNOT differ. The broker looks up a path in its own view of the file
//! system only for callers that a rule allows to do so.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sockbroker_proto::address::Address;
use sockbroker_sys::socket;
use sockbroker_sys::unix_file::{self, BoundFile, FileId, FileKind};

use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::ops::mounts::{MountedPath, Mounts};
use sockbroker_policy::target::{CarriedDescriptor, FileFacts, FileTarget};
use sockbroker_proto::socket_spec::SocketSpec;

/// The file of the broker's control socket: the file that the socket is bound to, and the file at its path. On some
/// file systems, such as overlayfs, these have different devices.
#[derive(Debug, Clone, Copy)]
pub struct ControlFile {
    bound: Option<BoundFile>,
    seen: Option<FileId>,
}

impl ControlFile {
    /// The file of a listening socket; `None` if it has none. Fails if the file cannot be identified.
    pub fn of(listener: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let bound = unix_file::bound_file(listener);
        let Some(Address::UnixPath(path)) = socket::local_address(listener)?.decode(0) else {
            return Ok(None);
        };
        let seen = fs::metadata(OsStr::from_bytes(&path)).map(|found| id(&found));
        match (bound, seen) {
            (Err(_), Err(error)) => Err(error),
            (bound, seen) => Ok(Some(Self { bound: bound.ok().flatten(), seen: seen.ok() })),
        }
    }

    fn is(self, file: FileId) -> bool {
        self.bound == Some(BoundFile::of(file)) || self.seen == Some(file)
    }
}

/// What a file is compared with.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The paths of rules.
    pub paths: Vec<String>,
    pub control: Option<ControlFile>,
}

/// A file that a client passed: the file of a socket, or a directory with a name in it.
#[derive(Debug)]
pub struct Passed {
    pub descriptor: Descriptor,
    /// For `bind`: the name in the directory.
    pub name: Option<Vec<u8>>,
    /// For `bind`: the path as the client wrote it.
    pub written: Option<Vec<u8>>,
}

/// Examines a file that a client passed.
pub async fn examine(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    passed: Passed,
    search: Search,
) -> OpResult<FileTarget> {
    let Passed { descriptor, name, written } = passed;
    let examine = move || target(Arc::new(descriptor), name, written, false, &search);
    caller.run(call, socket, examine).await
}

/// Looks a path up in the broker's view of the file system, with the identity of the caller.
pub async fn look_up(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    path: Vec<u8>,
    search: Search,
) -> OpResult<FileTarget> {
    if !path.starts_with(b"/") {
        // The working directory of the broker has no meaning for clients.
        return Err(OpError::Os { call, errno: libc::ENOENT });
    }
    let makes = call == "bind";
    let look_up = move || {
        if !makes {
            return target(Arc::new(unix_file::open(&path)?), None, None, true, &search);
        }
        let whole = Path::new(OsStr::from_bytes(&path));
        let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        };
        let descriptor = unix_file::open_directory(folder.as_os_str().as_bytes())?;
        let name = name.as_bytes().to_vec();
        target(Arc::new(descriptor), Some(name), Some(path.clone()), true, &search)
    };
    caller.run(call, socket, look_up).await
}

/// Whether a path leads to the control socket of this broker.
pub async fn leads_to_control(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    path: Vec<u8>,
    control: ControlFile,
) -> OpResult<bool> {
    let look = move || {
        let found = fs::metadata(OsStr::from_bytes(&path));
        Ok(found.is_ok_and(|found| control.is(id(&found))))
    };
    caller.run(call, socket, look).await
}

fn target(
    descriptor: Arc<dyn CarriedDescriptor>,
    name: Option<Vec<u8>>,
    written: Option<Vec<u8>>,
    as_text: bool,
    search: &Search,
) -> io::Result<FileTarget> {
    let (found, kind) = unix_file::identify(descriptor.as_fd())?;
    match (kind, &name) {
        (FileKind::Socket, None) | (FileKind::Directory, Some(_)) => {}
        // The kernel's errors for such files (unix_find_bsd, unix_bind_bsd).
        (_, None) => return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        (_, Some(_)) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
    let mut facts = compare(descriptor.as_fd(), found, name.as_deref(), &search.paths)?;
    facts.as_text = as_text;
    facts.is_control = search.control.is_some_and(|control| control.is(found));
    Ok(FileTarget { descriptor, name, written, facts: Arc::new(facts) })
}

/// The names of a file: its own, and the paths of rules that lead to it.
fn compare(
    file: BorrowedFd<'_>,
    found: FileId,
    name: Option<&[u8]>,
    paths: &[String],
) -> io::Result<FileFacts> {
    let own = PathBuf::from(OsStr::from_bytes(&unix_file::path_of(file)?));
    let visible =
        own.is_absolute() && fs::symlink_metadata(&own).is_ok_and(|seen| id(&seen) == found);
    let mut facts = FileFacts { visible, names: vec![join(&own, name)], ..FileFacts::default() };
    if paths.is_empty() {
        return Ok(facts);
    }
    if !visible && own.as_os_str().as_bytes().ends_with(b" (deleted)") {
        // The file has no name any more, and may have had any of the names before.
        facts.possible = paths.to_vec();
        return Ok(facts);
    }
    let mounts = Mounts::of_this_process()?;
    let inner = mounts.inner(file, &own);
    for path in paths {
        match MountedPath::nearest(Path::new(path), &mounts) {
            Ok(place) => {
                let same = (place.id == found).then(PathBuf::new);
                let named = || own.strip_prefix(&place.canonical).ok().map(Path::to_owned);
                let within = || inner.as_ref()?.below(place.inner.as_ref()?);
                if let Some(rest) = same.or_else(named).or_else(within) {
                    let parts = place.written.components().chain(rest.components());
                    facts.names.push(join(&parts.collect::<PathBuf>(), name));
                } else if inner.is_none() && place.may_hold(Path::new(path), found.0, &mounts) {
                    facts.possible.push(path.clone());
                }
            }
            // A file with a visible name is not below a path that cannot be read.
            Err(_) if visible => {}
            Err(_) => facts.possible.push(path.clone()),
        }
    }
    Ok(facts)
}

pub(super) fn id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

fn join(place: &Path, name: Option<&[u8]>) -> Vec<u8> {
    let whole = name.map_or_else(|| place.to_owned(), |name| place.join(OsStr::from_bytes(name)));
    whole.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let place =
                std::env::temp_dir().join(format!("unix-file-{}-{name}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            Self(fs::canonicalize(place).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn names(path: &Path, rules: &[&Path]) -> FileFacts {
        let file = unix_file::open(path.as_os_str().as_bytes()).unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| rule.display().to_string()).collect();
        let (found, _) = unix_file::identify(file.as_fd()).unwrap();
        compare(file.as_fd(), found, None, &rules).unwrap()
    }

    #[test]
    fn compare_finds_a_rule_path_through_a_symbolic_link() {
        let place = Folder::new("links");
        fs::create_dir(place.0.join("real")).unwrap();
        let socket = place.0.join("real/s");
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(place.0.join("real"), place.0.join("link")).unwrap();
        symlink(&socket, place.0.join("file")).unwrap();
        let facts = names(&socket, &[&place.0.join("link"), &place.0.join("file")]);
        let expected = [&socket, &place.0.join("link/s"), &place.0.join("file")];
        let expected: Vec<_> = expected.iter().map(|path| join(path, None)).collect();
        assert_eq!((facts.visible, facts.names, facts.possible.len()), (true, expected, 0));
        assert_eq!(names(&place.0.join("link/s"), &[]).names, [join(&socket, None)]);
    }

    #[test]
    fn compare_ignores_rule_paths_of_other_files() {
        let place = Folder::new("others");
        let (socket, other) = (place.0.join("s"), place.0.join("other"));
        let _listeners =
            [UnixListener::bind(&socket).unwrap(), UnixListener::bind(&other).unwrap()];
        let facts = names(&socket, &[&other, &place.0.join("missing/s"), Path::new("/proc")]);
        let below_folder = join(&place.0.join("s"), None);
        assert_eq!(facts.names, [below_folder.clone(), below_folder]);
        assert!(facts.visible && facts.possible.is_empty());
    }
}
