//! Socket addresses: one variant a family, spelt in JSON as Python spells its tuples.
//!
//! Three steps lead from JSON to the kernel: [`AddressValue`] is what was written,
//! [`AddressValue::read`] checks it for a family and gives [`Parsed`], and whoever may ask the
//! resolver or the interface table turns that into an [`Address`], which needs nothing more.
//! Byte layouts are the kernel's business and live in `daemon/sys`.

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
