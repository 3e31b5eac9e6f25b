//! Socket addresses: one variant for each family, in JSON in the form of Python's tuples.
//!
//! Three steps lead from JSON to the kernel: [`AddressValue`] is the JSON value,
//! [`AddressValue::read`] checks it for a family and returns [`Parsed`], and a caller with access to the
//! resolver or the interface table turns it into an [`Address`], which needs no further look-up.
//! The byte layouts of the kernel are in `daemon/sys`.

pub mod family;
mod resolved;
mod value;
mod read;
mod write;
#[cfg(test)]
mod tests;

pub use read::{AddressError, Exception, FileAddress, HostAddress, InterfaceAddress, Parsed};
pub use resolved::{Address, BluetoothAddress, ipv6_text};
pub use value::{AddressItem, AddressValue, BytesValue, FileValue, OpaqueValue, PathValue};
