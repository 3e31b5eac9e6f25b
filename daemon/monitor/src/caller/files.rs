//! Finds the names that rules use for a file.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sockbroker_sys::unix_file::{self, FileId, FileKind};

use super::message::Examined;
use super::mounts::{MountedPath, Mounts};

/// Examines the file of a socket, or a directory with a name in it.
pub(super) fn examine(
    file: BorrowedFd<'_>,
    name: Option<&[u8]>,
    paths: &[String],
) -> io::Result<Examined> {
    let (found, kind) = unix_file::identify(file)?;
    match (kind, name) {
        (FileKind::Socket, None) | (FileKind::Directory, Some(_)) => {}
        // The kernel's errors for such files (unix_find_bsd, unix_bind_bsd).
        (_, None) => return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        (_, Some(_)) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
    compare(file, found, name, paths)
}

/// The names of a file: its own, and the paths of rules that lead to it.
fn compare(
    file: BorrowedFd<'_>,
    found: FileId,
    name: Option<&[u8]>,
    paths: &[String],
) -> io::Result<Examined> {
    let own = PathBuf::from(OsStr::from_bytes(&unix_file::path_of(file)?));
    let visible =
        own.is_absolute() && fs::symlink_metadata(&own).is_ok_and(|seen| id(&seen) == found);
    let (file_id, names) = (found, vec![join(&own, name)]);
    let mut facts = Examined { file: file_id, names, possible: Vec::new(), visible };
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
    use std::os::fd::AsFd as _;
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

    fn names(path: &Path, rules: &[&Path]) -> Examined {
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
