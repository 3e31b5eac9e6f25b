//! The C library's databases of hosts, services and protocols. These calls block.
//!
//! The reentrant functions are glibc's (`gethostbyname(3)`, `getservent_r(3)`, `getprotoent_r(3)`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::net::IpAddr;
use std::ptr;

use crate::call::socklen;
use crate::resolver::{ResolverError, owned_text, text_argument};

/// An entry of the host database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The official name.
    pub name: String,
    /// The aliases.
    pub aliases: Vec<String>,
    /// The addresses, all of one family.
    pub addresses: Vec<IpAddr>,
}

/// The IPv4 entry of a host by name (`gethostbyname_r`); [`ResolverError::Host`] if there is none.
pub fn host_by_name(name: &CStr) -> Result<HostEntry, ResolverError> {
    look_up_host(|entry, buffer, found, error| {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `name` is NUL-terminated; the library writes one entry, `length` bytes from
        // `start`, one pointer and one int, and all of these outlive the call.
        unsafe { gethostbyname_r(name.as_ptr(), entry, start, length, found, error) }
    })
}

/// The entry of a host by address (`gethostbyaddr_r`); [`ResolverError::Host`] if there is none.
pub fn host_by_address(address: IpAddr) -> Result<HostEntry, ResolverError> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let (key, size) = (octets.as_ptr().cast(), socklen(octets.len()));
    look_up_host(|entry, buffer, found, error| {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `key` points to `size` bytes of `octets`; the library writes one entry, `length`
        // bytes from `start`, one pointer and one int, and all of these outlive the call.
        unsafe { gethostbyaddr_r(key, size, family, entry, start, length, found, error) }
    })
}

/// The port of a service in host order; without `proto`, of any protocol (`getservbyname_r`).
pub fn service_by_name(name: &CStr, proto: Option<&CStr>) -> Option<u16> {
    let proto = text_argument(proto);
    let found = look_up(EMPTY_SERVICE, |entry, buffer, found| {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `name` is NUL-terminated, `proto` too or null; the library writes one entry,
        // `length` bytes from `start` and one pointer, and all of these outlive the call.
        unsafe { getservbyname_r(name.as_ptr(), proto, entry, start, length, found) }
    })?;
    // An int that holds 16 bits in network order.
    u16::try_from(found.entry.s_port & 0xffff).ok().map(u16::from_be)
}

/// The name of the service on a port in host order; without `proto`, of any protocol
/// (`getservbyport_r`).
pub fn service_by_port(port: u16, proto: Option<&CStr>) -> Option<String> {
    let (port, proto) = (c_int::from(port.to_be()), text_argument(proto));
    let found = look_up(EMPTY_SERVICE, |entry, buffer, found| {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `proto` is NUL-terminated or null; the library writes one entry, `length` bytes
        // from `start` and one pointer, and all of these outlive the call.
        unsafe { getservbyport_r(port, proto, entry, start, length, found) }
    })?;
    // SAFETY: the library has set the name to NUL-terminated text in the buffer, which `found`
    // owns.
    Some(unsafe { owned_text(found.entry.s_name) })
}

/// The number of an IP protocol (`getprotobyname_r`).
pub fn protocol_by_name(name: &CStr) -> Option<i32> {
    let empty = libc::protoent { p_name: ptr::null_mut(), p_aliases: ptr::null_mut(), p_proto: 0 };
    let found = look_up(empty, |entry, buffer, found| {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `name` is NUL-terminated; the library writes one entry, `length` bytes from
        // `start` and one pointer, and all of these outlive the call.
        unsafe { getprotobyname_r(name.as_ptr(), entry, start, length, found) }
    })?;
    Some(found.entry.p_proto)
}

/// An entry and the buffer that its pointers point into.
struct Found<E> {
    entry: E,
    _buffer: Vec<u8>,
}

/// Repeats a call with a larger buffer while it returns `ERANGE`. `None` if there is no such entry.
fn look_up<E: Copy>(
    empty: E,
    mut call: impl FnMut(*mut E, &mut Vec<u8>, *mut *mut E) -> c_int,
) -> Option<Found<E>> {
    let mut buffer = vec![0; BUFFER_START];
    loop {
        let mut entry = empty;
        let mut found = ptr::null_mut();
        let code = call(&raw mut entry, &mut buffer, &raw mut found);
        if code != libc::ERANGE || buffer.len() >= BUFFER_MAX {
            return (code == 0 && !found.is_null()).then_some(Found { entry, _buffer: buffer });
        }
        buffer = vec![0; buffer.len() * 2];
    }
}

type Host = libc::hostent;

fn look_up_host(
    mut call: impl FnMut(*mut Host, &mut Vec<u8>, *mut *mut Host, *mut c_int) -> c_int,
) -> Result<HostEntry, ResolverError> {
    let empty = libc::hostent {
        h_name: ptr::null_mut(),
        h_aliases: ptr::null_mut(),
        h_addrtype: 0,
        h_length: 0,
        h_addr_list: ptr::null_mut(),
    };
    let mut error: c_int = 0;
    let found = look_up(empty, |entry, buffer, found| call(entry, buffer, found, &raw mut error));
    let found = found.ok_or(ResolverError::Host(error))?;
    // SAFETY: the library has filled the entry with pointers into the buffer, which `found` owns.
    Ok(unsafe { copy(&found.entry) })
}

/// Copies an entry of the host database.
///
/// # Safety
/// Its pointers must be valid: text NUL-terminated, lists terminated by null, addresses of `h_length` bytes.
unsafe fn copy(entry: &libc::hostent) -> HostEntry {
    // SAFETY: the caller guarantees a list of NUL-terminated texts.
    let aliases = unsafe { list(entry.h_aliases) };
    // SAFETY: the caller guarantees the list.
    let addresses = unsafe { list(entry.h_addr_list) };
    let to_address = |address: *mut c_char| match entry.h_addrtype {
        libc::AF_INET => {
            // SAFETY: an address of this family has four bytes, readable at any alignment.
            let octets = unsafe { address.cast::<[u8; 4]>().read() };
            Some(IpAddr::from(octets))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family has sixteen bytes, readable at any alignment.
            let octets = unsafe { address.cast::<[u8; 16]>().read() };
            Some(IpAddr::from(octets))
        }
        _ => None,
    };
    HostEntry {
        // SAFETY: the caller guarantees the text.
        name: unsafe { owned_text(entry.h_name) },
        // SAFETY: the caller guarantees each text of the list.
        aliases: aliases.into_iter().map(|alias| unsafe { owned_text(alias) }).collect(),
        addresses: addresses.into_iter().filter_map(to_address).collect(),
    }
}

/// The pointers of a list.
///
/// # Safety
/// `start` must be null or point to an array of pointers that ends with null.
unsafe fn list(start: *mut *mut c_char) -> Vec<*mut c_char> {
    let mut entries = Vec::new();
    let mut next = start;
    // SAFETY: `next` is null or at an element of the array, at most at its final null.
    while let Some(entry) = unsafe { next.as_ref() }.filter(|entry| !entry.is_null()) {
        entries.push(*entry);
        // SAFETY: this element is not the last, so the next one is within the list.
        next = unsafe { next.add(1) };
    }
    entries
}

const EMPTY_SERVICE: libc::servent = libc::servent {
    s_name: ptr::null_mut(),
    s_aliases: ptr::null_mut(),
    s_port: 0,
    s_proto: ptr::null_mut(),
};
/// The first size of the buffer; enough for nearly all entries.
const BUFFER_START: usize = 4096;
/// The largest size of the buffer; a longer entry counts as absent.
const BUFFER_MAX: usize = 1 << 20;

// netdb.h of glibc; the libc crate lacks them.
unsafe extern "C" {
    fn gethostbyname_r(
        name: *const c_char,
        entry: *mut libc::hostent,
        buffer: *mut c_char,
        length: usize,
        found: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn gethostbyaddr_r(
        key: *const c_void,
        size: libc::socklen_t,
        family: c_int,
        entry: *mut libc::hostent,
        buffer: *mut c_char,
        length: usize,
        found: *mut *mut libc::hostent,
        error: *mut c_int,
    ) -> c_int;
    fn getservbyname_r(
        name: *const c_char,
        proto: *const c_char,
        entry: *mut libc::servent,
        buffer: *mut c_char,
        length: usize,
        found: *mut *mut libc::servent,
    ) -> c_int;
    fn getservbyport_r(
        port: c_int,
        proto: *const c_char,
        entry: *mut libc::servent,
        buffer: *mut c_char,
        length: usize,
        found: *mut *mut libc::servent,
    ) -> c_int;
    fn getprotobyname_r(
        name: *const c_char,
        entry: *mut libc::protoent,
        buffer: *mut c_char,
        length: usize,
        found: *mut *mut libc::protoent,
    ) -> c_int;
}

#[cfg(test)]
mod tests;
