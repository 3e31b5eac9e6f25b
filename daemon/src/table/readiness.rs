//! Registration of descriptors with the event loop.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an object that owns its descriptor as long as it lives, which the library requires:
/// a [`Descriptor`](crate::descriptor::Descriptor), an `OwnedFd`, or a type of `sockbroker-sys` that contains one.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe fn; this crate has no unsafe code, and every T here owns its descriptor"
)]
pub(crate) fn register<T: AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, interest)
}
