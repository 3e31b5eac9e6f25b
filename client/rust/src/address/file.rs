//! Paths of `AF_UNIX`, opened by this process: they mean its own files, whatever the broker sees.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use sockbroker_proto::address::{AddressValue, BytesValue, FileValue, PathValue};
use sockbroker_proto::bytes::encode_base64;

use super::Address;
use crate::error::{Error, Result};

/// The longest path of `sockaddr_un`, which the broker refuses in its own words.
const LONGEST: usize = 107;

/// What a call does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reaches the socket that is there: `connect`, `sendto`, `sendmsg`.
    Reach,
    /// Makes a file: `bind`.
    Make,
}

/// Descriptors of a request, the last of which may be a file that its address names.
#[derive(Debug, Default)]
pub(crate) struct RequestDescriptors<'a> {
    /// Those that the caller passes.
    pub(crate) passed: &'a [BorrowedFd<'a>],
    /// A file, or why it cannot be opened.
    pub(crate) file: Option<Result<OwnedFd>>,
}

impl RequestDescriptors<'_> {
    /// All of them, in order; the error of a file that cannot be opened.
    pub(crate) fn all(&self) -> Result<Cow<'_, [BorrowedFd<'_>]>> {
        match &self.file {
            None => Ok(Cow::Borrowed(self.passed)),
            Some(Ok(file)) => {
                let own = [file.as_fd()];
                Ok(Cow::Owned(self.passed.iter().copied().chain(own).collect()))
            }
            Some(Err(error)) => Err(error.clone()),
        }
    }
}

impl Address {
    /// The address as a request has it, with the file that it names. `before` descriptors come first.
    pub(crate) fn opened(
        self,
        call: &str,
        purpose: Purpose,
        before: usize,
    ) -> (Self, Option<Result<OwnedFd>>) {
        let Some(path) = self.to_unix_name().filter(|name| !name.is_empty()) else {
            return (self, None);
        };
        // Abstract names are no files; what is too long or has a NUL in it has its own error.
        if path.contains(&0) || path.len() > LONGEST {
            return (self, None);
        }
        let whole = Path::new(OsStr::from_bytes(&path));
        let descriptor = u32::try_from(before).unwrap_or(u32::MAX);
        let (file, name) = match purpose {
            Purpose::Reach => (open_file(whole, OFlags::PATH), None),
            Purpose::Make => {
                let folder = whole.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                let Some(name) = whole.file_name() else { return (self, None) };
                (open_file(folder, OFlags::PATH | OFlags::DIRECTORY), Some(name.as_bytes()))
            }
        };
        let value = FileValue {
            descriptor,
            name: name.map(part),
            path: name.is_some().then(|| part(&path)),
        };
        let file = file.map_err(|error| Error::native(call, &error));
        (Self(AddressValue::File(value)), Some(file))
    }
}

fn open_file(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

fn part(bytes: &[u8]) -> PathValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => PathValue::Text(text.to_owned()),
        Err(_) => PathValue::Bytes(BytesValue { base64: encode_base64(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(address: Address, purpose: Purpose) -> (serde_json::Value, Option<Result<OwnedFd>>) {
        let (address, file) = address.opened("connect", purpose, 2);
        (serde_json::to_value(address).unwrap(), file)
    }

    #[test]
    fn a_path_is_sent_as_the_file_that_it_means_here() {
        let (value, file) = sent(Address::unix_path("/"), Purpose::Reach);
        assert_eq!(value, json!({ "descriptor": 2 }));
        assert!(file.unwrap().is_ok());
        let (value, file) = sent(Address::unix_path("new.sock"), Purpose::Make);
        let expected = json!({ "descriptor": 2, "name": "new.sock", "path": "new.sock" });
        assert_eq!(value, expected);
        assert!(file.unwrap().is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_the_calls_own_error() {
        let (_, file) = sent(Address::unix_path("/no/such/folder/s"), Purpose::Make);
        let error = file.unwrap().unwrap_err();
        assert_eq!(error.errno(), Some(2), "{error}");
    }

    #[test]
    fn names_without_a_file_stay_as_they_are() {
        for (address, value) in [
            (Address::unix_abstract("x"), json!("\u{0}x")),
            (Address::unix_unnamed(), json!("")),
            (Address::host("127.0.0.1", 9), json!(["127.0.0.1", 9])),
        ] {
            let (sent, file) = sent(address, Purpose::Reach);
            assert!(sent == value && file.is_none(), "{sent}");
        }
    }
}
