//! A folder that only this user can enter, for the socket of ssh.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The longest path of the folder in bytes: the path of a socket in it must fit into `sun_path` (unix(7)).
const PATH_BYTES_MAX: usize = 90;
/// How often another name is tried if the folder exists.
const ATTEMPTS: usize = 8;

/// A folder with mode 0700. Dropping this value removes it.
#[derive(Debug)]
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Creates a folder in `$XDG_RUNTIME_DIR`, in the folder for temporary files, or in `/tmp`: in the first one whose
    /// path is short and has no character with a meaning for ssh.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::new_in(runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]))
    }

    fn new_in(candidates: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates.into_iter().filter(|parent| is_suitable(parent)) {
            for _ in 0..ATTEMPTS {
                let name =
                    format!("sockbroker-ssh-{:016x}", RandomState::new().build_hasher().finish());
                let folder = parent.join(name);
                match DirBuilder::new().mode(0o700).create(&folder) {
                    Ok(()) => return Ok(Self(folder)),
                    Err(error) => {
                        let text = format!("cannot create {}: {error}", folder.display());
                        last = io::Error::new(error.kind(), text);
                    }
                }
                if last.kind() != io::ErrorKind::AlreadyExists {
                    break;
                }
            }
        }
        Err(last)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

fn is_suitable(parent: &Path) -> bool {
    let Some(text) = parent.to_str() else { return false };
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "/._+-".contains(one);
    parent.is_absolute() && text.len() + 32 <= PATH_BYTES_MAX && text.chars().all(is_plain)
}

impl Drop for PrivateFolder {
    /// Best effort: an error has no receiver.
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_its_user_can_enter_the_folder_which_ends_with_the_value() {
        let folder = PrivateFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(PrivateFolder::new().unwrap().path(), path);
        fs::write(path.join("log"), "").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn the_last_folder_that_cannot_be_created_is_named() {
        let error = PrivateFolder::new_in(["/proc/self".into(), "/proc".into(), "/%h".into()]);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("cannot create /proc/sockbroker-ssh-"), "{error}");
    }

    #[test]
    fn folders_that_ssh_would_expand_are_not_used() {
        assert!(is_suitable(Path::new("/run/user/1000")));
        let long = format!("/{}", "a".repeat(80));
        for parent in ["tmp", "/a b", "/%h", "/${x}", "/a:b", &long] {
            assert!(!is_suitable(Path::new(parent)), "{parent}");
        }
    }
}
