//! The packet socket behind `AF_INET, SOCK_RAW, IPPROTO_IP`, which Linux refuses to make (`EPROTONOSUPPORT`). On it the
//! broker emulates `SIO_RCVALL` of Windows.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_bpf::Program;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::{filter, socket};

/// Whether the emulation serves a kind of socket.
pub fn serves(spec: SocketSpec) -> bool {
    spec == SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: libc::IPPROTO_IP }
}

/// Opens the packet socket, which receives nothing.
pub fn open() -> io::Result<OwnedFd> {
    // With protocol 0 nothing is queued before the filter is attached.
    let descriptor = socket::create(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    filter::attach(descriptor.as_fd(), &Program::none().encode())?;
    Ok(descriptor)
}
