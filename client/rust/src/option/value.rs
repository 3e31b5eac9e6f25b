//! The types of option values, and their form in the kernel's interface.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use sockbroker_proto::api::values::OptionValue;
use sockbroker_proto::bytes::Bytes;

/// The value of an option in the kernel's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawValue {
    /// A C `int`.
    Int(i32),
    /// Bytes in the kernel's layout and host byte order.
    Bytes(Vec<u8>),
}

/// The type of a socket option's value.
pub trait OptionType: Sized {
    /// The size of the buffer for reading in bytes; `None` for a C `int`.
    const LENGTH: Option<u32>;

    /// Converts the value for the kernel.
    fn into_raw(self) -> RawValue;

    /// Converts a value from the kernel; `None` if it is not of this type.
    fn from_raw(raw: RawValue) -> Option<Self>;
}

impl OptionType for i32 {
    const LENGTH: Option<u32> = None;

    fn into_raw(self) -> RawValue {
        RawValue::Int(self)
    }

    fn from_raw(raw: RawValue) -> Option<Self> {
        match raw {
            RawValue::Int(number) => Some(number),
            RawValue::Bytes(_) => None,
        }
    }
}

impl OptionType for bool {
    const LENGTH: Option<u32> = None;

    fn into_raw(self) -> RawValue {
        RawValue::Int(self.into())
    }

    fn from_raw(raw: RawValue) -> Option<Self> {
        i32::from_raw(raw).map(|number| number != 0)
    }
}

impl OptionType for Vec<u8> {
    const LENGTH: Option<u32> = Some(1024);

    fn into_raw(self) -> RawValue {
        RawValue::Bytes(self)
    }

    fn from_raw(raw: RawValue) -> Option<Self> {
        match raw {
            RawValue::Bytes(bytes) => Some(bytes),
            RawValue::Int(_) => None,
        }
    }
}

impl OptionType for String {
    const LENGTH: Option<u32> = Some(256);

    fn into_raw(self) -> RawValue {
        RawValue::Bytes(self.into_bytes())
    }

    /// Up to the first NUL.
    fn from_raw(raw: RawValue) -> Option<Self> {
        let mut bytes = Vec::from_raw(raw)?;
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        Self::from_utf8(bytes).ok()
    }
}

impl OptionType for Ipv4Addr {
    const LENGTH: Option<u32> = Some(4);

    fn into_raw(self) -> RawValue {
        RawValue::Bytes(self.octets().to_vec())
    }

    fn from_raw(raw: RawValue) -> Option<Self> {
        <[u8; 4]>::try_from(Vec::from_raw(raw)?).ok().map(Self::from)
    }
}

/// `SO_LINGER`: how long closing waits, in whole seconds; `None` does not wait.
impl OptionType for Option<Duration> {
    const LENGTH: Option<u32> = Some(8);

    fn into_raw(self) -> RawValue {
        let seconds = self.map_or(0, |time| i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
        let words = [i32::from(self.is_some()), seconds];
        RawValue::Bytes(words.into_iter().flat_map(i32::to_ne_bytes).collect())
    }

    fn from_raw(raw: RawValue) -> Option<Self> {
        let bytes = <[u8; 8]>::try_from(Vec::from_raw(raw)?).ok()?;
        let [a, b, c, d, rest @ ..] = bytes;
        let seconds = u64::try_from(i32::from_ne_bytes(rest)).ok()?;
        let on = i32::from_ne_bytes([a, b, c, d]) != 0;
        Some(on.then(|| Duration::from_secs(seconds)))
    }
}

/// An IPv4 multicast group and an interface, by its address (`struct ip_mreq`). Write-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership4 {
    /// The multicast group.
    pub group: Ipv4Addr,
    /// An address of the interface; with the unspecified address the kernel chooses.
    pub interface: Ipv4Addr,
}

impl OptionType for Membership4 {
    const LENGTH: Option<u32> = Some(8);

    fn into_raw(self) -> RawValue {
        RawValue::Bytes([self.group.octets(), self.interface.octets()].concat())
    }

    fn from_raw(_: RawValue) -> Option<Self> {
        None
    }
}

/// An IPv6 multicast group and an interface, by its index (`struct ipv6_mreq`). Write-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership6 {
    /// The multicast group.
    pub group: Ipv6Addr,
    /// The index of the interface; with 0 the kernel chooses.
    pub interface: u32,
}

impl OptionType for Membership6 {
    const LENGTH: Option<u32> = Some(20);

    fn into_raw(self) -> RawValue {
        let interface = self.interface.to_ne_bytes();
        RawValue::Bytes([&self.group.octets()[..], &interface].concat())
    }

    fn from_raw(_: RawValue) -> Option<Self> {
        None
    }
}

impl From<RawValue> for OptionValue {
    fn from(raw: RawValue) -> Self {
        match raw {
            RawValue::Int(number) => Self::Int(number.into()),
            RawValue::Bytes(bytes) => Self::Bytes(Bytes::Inline(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn values_round_trip() {
        fn check<T: OptionType + Clone + PartialEq + fmt::Debug>(value: T) {
            assert_eq!(T::from_raw(value.clone().into_raw()), Some(value));
        }
        check(true);
        check(-7);
        check(Some(Duration::from_secs(3)));
        check(None::<Duration>);
        check("lo".to_owned());
        check(Ipv4Addr::LOCALHOST);
        assert_eq!(String::from_raw(RawValue::Bytes(b"cubic\0\0".to_vec())).unwrap(), "cubic");
        assert_eq!(bool::from_raw(RawValue::Bytes(vec![1])), None);
    }
}
