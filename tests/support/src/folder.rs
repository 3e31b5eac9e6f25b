//! A temporary folder for one test.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A new folder with mode 0700 in the system's temporary folder. Dropping it removes the folder and its content.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("sockbroker-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self(path),
                // The folder of a killed test whose process had the same ID.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of an entry of the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in the folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Copies a program into the folder and returns its path. All users can execute it.
    ///
    /// Another process writes the copy. If this one did, a child that another test starts meanwhile would keep the copy open
    /// for writing, and executing it would fail with ETXTBSY (execve(2)).
    pub fn copy_program(&self, program: &Path, name: &str) -> PathBuf {
        let path = self.join(name);
        let status = Command::new("install").args(["-m", "755"]).args([program, &path]).status();
        assert!(status.unwrap().success(), "cannot copy {}", program.display());
        path
    }

    /// Writes a script that all users can execute, and returns its path. See [`Folder::copy_program`].
    pub fn write_program(&self, name: &str, text: &str) -> PathBuf {
        let script = self.write(&format!("{name}.text"), text);
        self.copy_program(&script, name)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: the test has ended.
        fs::remove_dir_all(&self.0).ok();
    }
}
