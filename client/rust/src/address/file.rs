//! Paths of `AF_UNIX` addresses. This process opens them, because the broker may see other files under
//! the same names.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use sockbroker_proto::address::{AddressValue, BytesValue, FileValue, PathValue};
use sockbroker_proto::bytes::encode_base64;

use super::Address;
use crate::error::{Error, Result};

/// The longest path that fits into `sockaddr_un`, in bytes. The broker refuses a longer one.
const PATH_BYTES_MAX: usize = 107;

/// What a call does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathUse {
    /// Sends to the socket that exists there: `connect`, `sendto`, `sendmsg`.
    Connect,
    /// Creates a socket file: `bind`.
    Bind,
}

impl Address {
    /// Opens the file that the address names, if `path_use` says what for and the address is a path.
    ///
    /// Returns the address as the request has it, and the file or why it cannot be opened. The file is
    /// the descriptor with index `index` of the request. `call` is the system call for errors.
    pub(crate) fn with_opened_file(
        self,
        call: &str,
        path_use: Option<PathUse>,
        index: usize,
    ) -> (Self, Option<Result<OwnedFd>>) {
        let Some(path_use) = path_use else { return (self, None) };
        let Some(path) = self.to_unix_name().filter(|name| !name.is_empty()) else {
            return (self, None);
        };
        // An abstract name is not a file. The broker returns the error for a path that is too long or
        // contains a NUL.
        if path.contains(&0) || path.len() > PATH_BYTES_MAX {
            return (self, None);
        }
        let full = Path::new(OsStr::from_bytes(&path));
        let descriptor = u32::try_from(index).unwrap_or(u32::MAX);
        let (file, name) = match path_use {
            PathUse::Connect => (open_path(full, OFlags::PATH), None),
            PathUse::Bind => {
                let folder = full.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                let Some(name) = full.file_name() else { return (self, None) };
                (open_path(folder, OFlags::PATH | OFlags::DIRECTORY), Some(name.as_bytes()))
            }
        };
        let value = FileValue {
            descriptor,
            name: name.map(path_value),
            path: name.is_some().then(|| path_value(&path)),
        };
        let file = file.map_err(|error| Error::native(call, &error));
        (Self::from(AddressValue::File(value)), Some(file))
    }
}

fn open_path(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

fn path_value(bytes: &[u8]) -> PathValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => PathValue::Text(text.to_owned()),
        Err(_) => PathValue::Bytes(BytesValue { base64: encode_base64(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(address: Address, path_use: PathUse) -> (serde_json::Value, Option<Result<OwnedFd>>) {
        let (address, file) = address.with_opened_file("connect", Some(path_use), 2);
        (serde_json::to_value(address).unwrap(), file)
    }

    #[test]
    fn path_is_sent_as_an_opened_file() {
        let (value, file) = sent(Address::unix_path("/"), PathUse::Connect);
        assert_eq!(value, json!({ "descriptor": 2 }));
        assert!(file.unwrap().is_ok());
        let (value, file) = sent(Address::unix_path("new.sock"), PathUse::Bind);
        let expected = json!({ "descriptor": 2, "name": "new.sock", "path": "new.sock" });
        assert_eq!(value, expected);
        assert!(file.unwrap().is_ok());
    }

    #[test]
    fn file_that_cannot_be_opened_fails_the_call() {
        let (_, file) = sent(Address::unix_path("/no/such/folder/s"), PathUse::Bind);
        let error = file.unwrap().unwrap_err();
        assert_eq!(error.errno(), Some(2), "{error}");
    }

    #[test]
    fn addresses_without_a_file_are_sent_unchanged() {
        for (address, value) in [
            (Address::unix_abstract("x"), json!("\u{0}x")),
            (Address::unix_unnamed(), json!("")),
            (Address::host("127.0.0.1", 9), json!(["127.0.0.1", 9])),
        ] {
            let (sent, file) = sent(address, PathUse::Connect);
            assert!(sent == value && file.is_none(), "{sent}");
        }
    }
}
