//! `proto::api::convert`: conversions. They need no permit, because they use no sockets.

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::ipv6_text;
use sockbroker_proto::api::convert::{
    CmsgLenParams, CmsgSpaceParams, ConvertServer, HtonlParams, HtonsParams, InetAtonParams,
    InetNtoaParams, InetNtopParams, InetPtonParams, NtohlParams, NtohsParams,
};
use sockbroker_proto::bytes::Bytes;
use sockbroker_sys::control;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::parameters::int;
use crate::rpc::call::Call;

impl ConvertServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn ntohl(_call: &Call, params: NtohlParams) -> OpResult<u32> {
        let NtohlParams { x } = params;
        Ok(u32::from_be(unsigned("ntohl", x)?))
    }

    fn ntohs(_call: &Call, params: NtohsParams) -> OpResult<u16> {
        let NtohsParams { x } = params;
        Ok(u16::from_be(unsigned("ntohs", x)?))
    }

    fn htonl(_call: &Call, params: HtonlParams) -> OpResult<u32> {
        let HtonlParams { x } = params;
        Ok(unsigned::<u32>("htonl", x)?.to_be())
    }

    fn htons(_call: &Call, params: HtonsParams) -> OpResult<u16> {
        let HtonsParams { x } = params;
        Ok(unsigned::<u16>("htons", x)?.to_be())
    }

    fn inet_aton(call: &Call, params: InetAtonParams) -> OpResult<Bytes> {
        let InetAtonParams { ip_string } = params;
        let illegal = || OpError::Plain("illegal IP address string passed to inet_aton".to_owned());
        let address = inet_aton(&ip_string).ok_or_else(illegal)?;
        Ok(call.encode_bytes(address.to_be_bytes().to_vec()))
    }

    fn inet_ntoa(call: &Call, params: InetNtoaParams) -> OpResult<String> {
        let InetNtoaParams { packed_ip } = params;
        let packed = call.bytes(packed_ip)?;
        let octets = <[u8; 4]>::try_from(&packed[..])
            .map_err(|_error| OpError::Plain("packed IP wrong length".to_owned()))?;
        Ok(Ipv4Addr::from(octets).to_string())
    }

    fn inet_pton(call: &Call, params: InetPtonParams) -> OpResult<Bytes> {
        let InetPtonParams { address_family, ip_string } = params;
        let packed = match int(address_family)? {
            libc::AF_INET => ip_string.parse().map(|ip: Ipv4Addr| ip.octets().to_vec()).ok(),
            libc::AF_INET6 => ip_string.parse().map(|ip: Ipv6Addr| ip.octets().to_vec()).ok(),
            _ => {
                let error = OpError::Os { call: "inet_pton", errno: libc::EAFNOSUPPORT };
                return Err(error);
            }
        };
        let illegal = || OpError::Plain("illegal IP address string passed to inet_pton".to_owned());
        Ok(call.encode_bytes(packed.ok_or_else(illegal)?))
    }

    fn inet_ntop(call: &Call, params: InetNtopParams) -> OpResult<String> {
        let InetNtopParams { address_family, packed_ip } = params;
        let packed = call.bytes(packed_ip)?;
        let length = |_error| OpError::value("invalid length of packed IP address string");
        match int(address_family)? {
            libc::AF_INET => {
                let octets = <[u8; 4]>::try_from(&packed[..]).map_err(length)?;
                Ok(Ipv4Addr::from(octets).to_string())
            }
            libc::AF_INET6 => {
                let octets = <[u8; 16]>::try_from(&packed[..]).map_err(length)?;
                Ok(ipv6_text(Ipv6Addr::from(octets)))
            }
            other => Err(OpError::value(format!("unknown address family {other}"))),
        }
    }

    fn cmsg_len(_call: &Call, params: CmsgLenParams) -> OpResult<u64> {
        let CmsgLenParams { length } = params;
        let fitting = usize::try_from(length).ok().and_then(control::cmsg_len);
        let too_long = || OpError::overflow("CMSG_LEN() argument out of range");
        Ok(fitting.ok_or_else(too_long)? as u64)
    }

    fn cmsg_space(_call: &Call, params: CmsgSpaceParams) -> OpResult<u64> {
        let CmsgSpaceParams { length } = params;
        let fitting = usize::try_from(length).ok().and_then(control::cmsg_space);
        let too_long = || OpError::overflow("CMSG_SPACE() argument out of range");
        Ok(fitting.ok_or_else(too_long)? as u64)
    }
}

/// An unsigned C integer, or CPython's `OverflowError`.
fn unsigned<T: TryFrom<i64>>(call: &str, value: i64) -> OpResult<T> {
    T::try_from(value).map_err(|_error| {
        let bits = size_of::<T>() * 8;
        OpError::overflow(format!(
            "{call}: {value} does not fit into an unsigned C {bits}-bit integer"
        ))
    })
}

/// `inet_aton(3)`: one to four parts, each decimal, octal or hexadecimal; the last fills the rest.
/// glibc ends the address at white space.
fn inet_aton(text: &str) -> Option<u32> {
    let text = text.split([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']).next()?;
    let parts = text.split('.').map(aton_part).collect::<Option<Vec<u32>>>()?;
    let (last, front) = parts.split_last()?;
    if front.len() > 3 || front.iter().any(|part| *part > 255) {
        return None;
    }
    let rest_bits = 32 - 8 * u32::try_from(front.len()).ok()?;
    if u64::from(*last) >= 1_u64 << rest_bits {
        return None;
    }
    let high = front.iter().fold(0_u64, |sum, part| sum << 8 | u64::from(*part));
    u32::try_from(high << rest_bits | u64::from(*last)).ok()
}

fn aton_part(part: &str) -> Option<u32> {
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if part.len() > 1 && part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    // from_str_radix would take a sign.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_aton_reads_the_short_forms_of_the_manual() {
        for (text, value) in [
            ("1.2.3.4", Some(0x0102_0304)),
            ("127.1", Some(0x7f00_0001)),
            ("1.2.772", Some(0x0102_0304)),
            ("16909060", Some(0x0102_0304)),
            ("0x7f.0.0.010", Some(0x7f00_0008)),
            ("255.255.255.255", Some(u32::MAX)),
            ("1.2.3.4 tail", Some(0x0102_0304)),
            ("256.0.0.1", None),
            ("1.2.3.256", None),
            ("1.2.65536", None),
            ("4294967296", None),
            ("1.2.3.4.5", None),
            ("1..2", None),
            ("", None),
            ("+1", None),
            ("08", None),
        ] {
            assert_eq!(inet_aton(text), value, "{text:?}");
        }
    }
}
