//! Family numbers of Linux (`bits/socket.h`) that have a JSON form of their own.

#![expect(missing_docs, reason = "the names are those of the man pages")]

pub const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const AF_NETLINK: u16 = 16;
pub const AF_PACKET: u16 = 17;
pub const AF_RDS: u16 = 21;
pub const AF_CAN: u16 = 29;
pub const AF_TIPC: u16 = 30;
pub const AF_BLUETOOTH: u16 = 31;
pub const AF_ALG: u16 = 38;
pub const AF_VSOCK: u16 = 40;
pub const AF_QIPCRTR: u16 = 42;
