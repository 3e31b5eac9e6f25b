//! Constants of the `socket` module: a number, a name, or names joined by `|`.
//!
//! A parameter is written as `16384`, `"MSG_NOSIGNAL"` or `"MSG_PEEK|MSG_DONTWAIT"`; results are
//! numbers. One table maps names to the numbers of generic Linux, which hold on x86-64, aarch64 and
//! riscv, but not on alpha, mips, parisc and sparc. Numbers with a high bit are those of a 64-bit
//! Python.

mod table;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A constant, or several constants joined by bitwise or.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Constant(pub i64);

/// The number of a name: one of [`names`], or a further name that `ioctl` and `poll` accept.
pub fn number(name: &str) -> Option<i64> {
    [table::SOCKET, table::OTHER].iter().find_map(|rows| {
        let index = rows.binary_search_by_key(&name, |(name, _)| name).ok()?;
        rows.get(index).map(|(_, number)| *number)
    })
}

/// The names of the `socket` module with their numbers, sorted.
pub fn names() -> impl Iterator<Item = (&'static str, i64)> {
    table::SOCKET.iter().copied()
}

/// The maximum length of a constant's text in bytes: names joined by `|`.
const LONGEST: usize = 4096;

/// A name that is in no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown constant {0:?}")]
pub struct UnknownConstant(pub String);

impl FromStr for Constant {
    type Err = UnknownConstant;

    /// Reads a name, or names joined by `|`, with or without blanks around it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LONGEST {
            let start = text.get(..text.floor_char_boundary(64)).unwrap_or_default();
            return Err(UnknownConstant(format!("{start}...")));
        }
        text.split('|').map(str::trim).try_fold(Self(0), |Self(sum), name| {
            let number = number(name).ok_or_else(|| UnknownConstant(name.to_owned()))?;
            Ok(Self(sum | number))
        })
    }
}

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConstantVisitor)
    }
}

struct ConstantVisitor;

impl Visitor<'_> for ConstantVisitor {
    type Value = Constant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, the name of a constant, or names joined by `|`")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Constant, E> {
        Ok(Constant(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Constant, E> {
        i64::try_from(number)
            .map(Constant)
            .map_err(|_error| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Constant, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Constant {
    fn schema_name() -> Cow<'static, str> {
        "Constant".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let number = json_schema!({ "type": "integer", "format": "int64" });
        if generator.contract().is_serialize() {
            return number;
        }
        json_schema!({
            "description": "A number, the name of a constant of Python's socket module, or names joined by |",
            "anyOf": [
                number,
                { "type": "string", "pattern": "^\\s*[A-Za-z0-9_]+(\\s*\\|\\s*[A-Za-z0-9_]+)*\\s*$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::{Constant, UnknownConstant, names, number, table};

    fn read(value: Value) -> Result<i64, String> {
        serde_json::from_value(value).map(|Constant(number)| number).map_err(|e| e.to_string())
    }

    #[test]
    fn tables_are_sorted_without_duplicates() {
        for rows in [table::SOCKET, table::OTHER] {
            for pair in rows.windows(2) {
                assert!(pair[0].0 < pair[1].0, "{pair:?}");
            }
        }
        for (name, _) in table::OTHER {
            assert!(names().all(|(other, _)| other != *name), "{name} is in both tables");
        }
    }

    #[test]
    fn every_name_is_found() {
        for (name, value) in names().chain(table::OTHER.iter().copied()) {
            assert_eq!(number(name), Some(value), "{name}");
        }
        assert_eq!(number("AF_NOTHING"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("af_inet"), None);
    }

    #[test]
    fn too_long_text_is_refused() {
        let fits = vec!["AF_INET"; 512].join("|");
        assert_eq!((fits.len(), read(json!(fits))), (4095, Ok(2)));
        let error = read(json!(vec!["AF_INET"; 513].join("|"))).unwrap_err();
        assert!(error.contains("AF_INET|") && error.len() < 200, "{error}");
    }

    #[test]
    fn names_of_other_modules_are_not_constants_of_socket() {
        for name in ["FIONREAD", "SIOCGIFINDEX", "POLLIN"] {
            assert!(number(name).is_some());
            assert!(names().all(|(other, _)| other != name), "{name}");
        }
    }

    /// Written from the kernel's and glibc's headers, independently of the generated table.
    const SAMPLE: &[(&str, i64)] = &[
        ("AF_UNSPEC", 0),
        ("AF_UNIX", 1),
        ("AF_INET", 2),
        ("AF_INET6", 10),
        ("AF_NETLINK", 16),
        ("AF_PACKET", 17),
        ("AF_CAN", 29),
        ("AF_TIPC", 30),
        ("AF_BLUETOOTH", 31),
        ("AF_ALG", 38),
        ("AF_VSOCK", 40),
        ("AF_QIPCRTR", 42),
        ("SOCK_STREAM", 1),
        ("SOCK_DGRAM", 2),
        ("SOCK_RAW", 3),
        ("SOCK_SEQPACKET", 5),
        ("SOCK_CLOEXEC", 0x80000),
        ("SOCK_NONBLOCK", 0x800),
        ("SOL_SOCKET", 1),
        ("SO_REUSEADDR", 2),
        ("SO_ERROR", 4),
        ("SO_BROADCAST", 6),
        ("SO_SNDBUF", 7),
        ("SO_RCVBUF", 8),
        ("SO_KEEPALIVE", 9),
        ("SO_LINGER", 13),
        ("SO_REUSEPORT", 15),
        ("SO_PASSCRED", 16),
        ("SO_PEERCRED", 17),
        ("SO_BINDTODEVICE", 25),
        ("SO_MARK", 36),
        ("SO_BINDTOIFINDEX", 62),
        ("SOMAXCONN", 4096),
        ("MSG_OOB", 1),
        ("MSG_PEEK", 2),
        ("MSG_TRUNC", 0x20),
        ("MSG_DONTWAIT", 0x40),
        ("MSG_WAITALL", 0x100),
        ("MSG_ERRQUEUE", 0x2000),
        ("MSG_NOSIGNAL", 0x4000),
        ("MSG_CMSG_CLOEXEC", 0x4000_0000),
        ("SCM_RIGHTS", 1),
        ("SCM_CREDENTIALS", 2),
        ("IPPROTO_TCP", 6),
        ("IPPROTO_UDP", 17),
        ("IPPROTO_ICMPV6", 58),
        ("IPPROTO_SCTP", 132),
        ("IPPROTO_MPTCP", 262),
        ("IP_TTL", 2),
        ("IP_RECVERR", 11),
        ("IP_TRANSPARENT", 19),
        ("IPV6_V6ONLY", 26),
        ("IPV6_RECVPKTINFO", 49),
        ("TCP_NODELAY", 1),
        ("TCP_USER_TIMEOUT", 18),
        ("TCP_FASTOPEN", 23),
        ("EAI_NONAME", -2),
        ("AI_PASSIVE", 1),
        ("NI_NUMERICHOST", 1),
        ("SHUT_RDWR", 2),
        ("INADDR_BROADCAST", 0xffff_ffff),
        ("CAN_RAW", 1),
        ("CAN_EFF_FLAG", 0x8000_0000),
        ("SOL_ALG", 279),
        ("TIPC_WAIT_FOREVER", -1),
        ("ETH_P_ALL", 3),
        ("VMADDR_CID_LOCAL", 1),
        ("VMADDR_CID_ANY", 0xffff_ffff),
        ("SO_ORIGINAL_DST", 80),
        ("SOL_BLUETOOTH", 274),
        ("SIO_RCVALL", 0x9800_0001),
        ("RCVALL_MAX", 3),
        ("POLLRDHUP", 0x2000),
        ("SIOCOUTQ", 0x5411),
    ];

    #[test]
    fn numbers_are_those_of_linux() {
        for (name, value) in SAMPLE {
            assert_eq!(number(name), Some(*value), "{name}");
        }
    }

    #[test]
    fn a_constant_is_a_number_a_name_or_names() {
        for (value, expected) in [
            (json!(17), 17),
            (json!(-1), -1),
            (json!("AF_PACKET"), 17),
            (json!(" AF_PACKET "), 17),
            (json!("MSG_PEEK|MSG_DONTWAIT"), 0x42),
            (json!("MSG_PEEK | MSG_DONTWAIT|MSG_PEEK"), 0x42),
            (json!("POLLIN|POLLOUT"), 5),
        ] {
            assert_eq!(read(value.clone()), Ok(expected), "{value}");
        }
        assert_eq!(serde_json::to_value(Constant(17)).unwrap(), json!(17));
    }

    #[test]
    fn errors_name_the_unknown_constant() {
        assert_eq!(
            "MSG_PEEK|MSG_PEAK".parse::<Constant>(),
            Err(UnknownConstant("MSG_PEAK".to_owned()))
        );
        for (value, text) in [
            (json!("MSG_PEEK|MSG_PEAK"), "unknown constant \"MSG_PEAK\""),
            (json!("MSG_PEEK|"), "unknown constant \"\""),
            (json!(""), "unknown constant \"\""),
            (json!("17"), "unknown constant \"17\""),
        ] {
            assert_eq!(read(value), Err(text.to_owned()));
        }
        for value in [json!(1.5), json!(null), json!(true), json!([1]), json!(u64::MAX)] {
            let error = read(value).unwrap_err();
            assert!(error.contains("names joined by `|`"), "{error}");
        }
    }

    #[test]
    fn schema_accepts_names_on_input_and_promises_numbers_on_output() {
        let settings = SchemaSettings::draft07();
        let mut input = settings.clone().for_deserialize().into_generator();
        let mut output = settings.for_serialize().into_generator();
        let schema = input.root_schema_for::<Constant>().to_value();
        assert_eq!(schema["anyOf"][0]["type"], "integer");
        assert_eq!(schema["anyOf"][1]["type"], "string");
        assert!(schema["description"].is_string());
        let schema = output.root_schema_for::<Constant>().to_value();
        assert_eq!(schema["type"], "integer");
    }
}
