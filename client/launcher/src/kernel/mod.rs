//! The system calls that no crate makes safe. All unsafe code of this crate is here.
//!
//! A block contains one operation, with a proof. No safe function can make the kernel read or write memory that the
//! call does not own. Descriptors are owned or borrowed, except those that the process inherited ([`inherited`]).
#![expect(unsafe_code, reason = "these calls have no safe form; see the rules of daemon/sys")]
#![expect(
    clippy::disallowed_methods,
    reason = "this module converts descriptor numbers into owned descriptors"
)]

pub(crate) mod notify;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod at_start;
pub(crate) mod inherited;
pub(crate) mod memory;
pub(crate) mod shared;

use std::io;

/// The result of a C function that returns -1 for an error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
