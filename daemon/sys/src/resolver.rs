//! The C library's resolver: `getaddrinfo(3)` and `getnameinfo(3)`. These calls block.

use std::ffi::{CStr, c_char};
use std::io;
use std::ptr;

use crate::address::RawAddress;
use crate::call::socklen;

/// One result of [`address_info`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInfo {
    pub family: i32,
    pub kind: i32,
    pub proto: i32,
    /// The canonical name in the first result, if `AI_CANONNAME` is set; else empty.
    pub canonical_name: String,
    pub address: RawAddress,
}

/// Why a look-up failed. Each variant has its own number space, distinct from errno.
#[derive(Debug)]
pub enum ResolverError {
    /// An `EAI_` code ([`gai_message`]): Python's `gaierror`.
    Gai(i32),
    /// An `h_errno` code ([`host_message`]): Python's `herror`.
    Host(i32),
    /// A system error (`EAI_SYSTEM`).
    System(io::Error),
}

impl std::fmt::Display for ResolverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gai(code) => f.write_str(&gai_message(*code)),
            Self::Host(code) => f.write_str(&host_message(*code)),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ResolverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gai(_) | Self::Host(_) => None,
            Self::System(error) => Some(error),
        }
    }
}

/// `getaddrinfo(3)`: the addresses of a host and service; one of the two can be absent. `family`,
/// `kind` and `proto` are hints, 0 for any; `flags` are `AI_` bits.
pub fn address_info(
    host: Option<&CStr>,
    service: Option<&CStr>,
    family: i32,
    kind: i32,
    proto: i32,
    flags: i32,
) -> Result<Vec<AddressInfo>, ResolverError> {
    let hints = libc::addrinfo {
        ai_flags: flags,
        ai_family: family,
        ai_socktype: kind,
        ai_protocol: proto,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let (host, service) = (text_argument(host), text_argument(service));
    let mut first = ptr::null_mut();
    // SAFETY: `host` and `service` are null or NUL-terminated and borrowed for the call; `hints` is
    // initialised; the library writes one pointer to `first`.
    let code = unsafe { libc::getaddrinfo(host, service, &raw const hints, &raw mut first) };
    check(code)?;
    let list = List(first);
    Ok(list.entries())
}

/// `getnameinfo(3)`: host and service of an address, as names or, by `NI_` flags, as numbers.
pub fn name_info(address: &RawAddress, flags: i32) -> Result<(String, String), ResolverError> {
    let (name, length) = address.argument();
    let mut host = [0u8; NI_MAXHOST];
    let mut service = [0u8; NI_MAXSERV];
    // SAFETY: `name` points to `length` initialised bytes, aligned as sockaddr_storage; the library
    // writes NUL-terminated text to `host` and `service` within their lengths. All of these outlive the
    // call.
    let code = unsafe {
        libc::getnameinfo(
            name,
            length,
            host.as_mut_ptr().cast(),
            socklen(NI_MAXHOST),
            service.as_mut_ptr().cast(),
            socklen(NI_MAXSERV),
            flags,
        )
    };
    check(code)?;
    Ok((text_of(&host), text_of(&service)))
}

/// The text of an `EAI_` code (`gai_strerror(3)`).
pub fn gai_message(code: i32) -> String {
    // SAFETY: no pointer arguments; the library returns a static text for any code.
    let text = unsafe { libc::gai_strerror(code) };
    // SAFETY: the text is NUL-terminated and static.
    unsafe { owned_text(text) }
}

/// The text of an `h_errno` code, as glibc's `hstrerror(3)` returns it.
pub fn host_message(code: i32) -> String {
    let text = match code {
        i32::MIN..0 => "Resolver internal error",
        0 => "Resolver Error 0 (no error)",
        1 => "Unknown host",
        2 => "Host name lookup failure",
        3 => "Unknown server error",
        4 => "No address associated with name",
        _ => "Unknown resolver error",
    };
    text.to_owned()
}

/// The list that `getaddrinfo` allocated; freed on drop.
struct List(*mut libc::addrinfo);

impl List {
    fn entries(&self) -> Vec<AddressInfo> {
        let mut entries = Vec::new();
        let mut next = self.0;
        // SAFETY: `next` is null or an entry of the list, which is aligned, initialised and lives
        // as long as `self`.
        while let Some(entry) = unsafe { next.as_ref() } {
            // SAFETY: the library fills `ai_addr` with `ai_addrlen` bytes and `ai_canonname` with
            // null or NUL-terminated text; both live as long as the list.
            entries.push(unsafe { copy(entry) });
            next = entry.ai_next;
        }
        entries
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from a successful getaddrinfo, and this is its only owner.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

/// Copies one entry of the list.
///
/// # Safety
/// `ai_addr` must be null or point to `ai_addrlen` bytes, `ai_canonname` be null or NUL-terminated.
unsafe fn copy(entry: &libc::addrinfo) -> AddressInfo {
    let length = usize::try_from(entry.ai_addrlen).unwrap_or(0);
    let bytes = if entry.ai_addr.is_null() {
        &[]
    } else {
        // SAFETY: the caller guarantees `length` initialised bytes.
        unsafe { std::slice::from_raw_parts(entry.ai_addr.cast::<u8>(), length) }
    };
    AddressInfo {
        family: entry.ai_family,
        kind: entry.ai_socktype,
        proto: entry.ai_protocol,
        // SAFETY: the caller guarantees null or NUL-terminated text.
        canonical_name: unsafe { owned_text(entry.ai_canonname) },
        address: RawAddress::from_bytes(bytes).unwrap_or_default(),
    }
}

/// A copy of C text, with U+FFFD in place of bytes that are not UTF-8; empty for null.
///
/// # Safety
/// `text` must be null or NUL-terminated, and unchanged during the call.
pub(crate) unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees NUL-terminated text.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The pointer of an optional text, valid while it is borrowed.
pub(crate) fn text_argument(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

fn text_of(buffer: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(buffer).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

fn check(code: i32) -> Result<(), ResolverError> {
    match code {
        0 => Ok(()),
        libc::EAI_SYSTEM => Err(ResolverError::System(io::Error::last_os_error())),
        code => Err(ResolverError::Gai(code)),
    }
}

/// From `netdb.h`: the longest host name.
const NI_MAXHOST: usize = 1025;
/// From `netdb.h`: the longest service name.
const NI_MAXSERV: usize = 32;

#[cfg(test)]
mod tests;
