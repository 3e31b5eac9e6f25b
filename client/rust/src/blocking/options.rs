//! Options, `ioctl` requests and filters of a socket.

use std::time::Duration;

use sockbroker_proto::api::option::IoctlArgument;

use super::socket::Socket;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation;
use crate::option::{self, OptionType, RawValue, SocketOption};

impl Socket {
    /// Sets an option of [`crate::option`]. It takes effect after everything that was sent before.
    pub fn set_option<T: OptionType>(&self, option: SocketOption<T>, value: T) -> Result<()> {
        self.broker().run(operation::set_option(self.handle(), option, value))
    }

    /// Reads an option of [`crate::option`].
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if the value is of another type.
    pub fn option<T: OptionType>(&self, option: SocketOption<T>) -> Result<T> {
        self.broker().run(operation::option(self.handle(), option))
    }

    /// Sets any option by its level and number.
    pub fn set_option_raw(&self, level: i32, number: i32, value: RawValue) -> Result<()> {
        self.broker().run(operation::set_option_raw(self.handle(), level, number, value))
    }

    /// Reads any option by its level and number: a C `int`, or with a `length` at most that many bytes
    /// (1 to 1024).
    pub fn option_raw(&self, level: i32, number: i32, length: Option<u32>) -> Result<RawValue> {
        self.broker().run(operation::option_raw(self.handle(), level, number, length))
    }

    /// Runs an `ioctl(2)` request that the broker supports, such as `SIO_RCVALL`, `FIONREAD` or
    /// `SIOCGIFADDR`. The result is a number, or bytes in network byte order.
    pub fn ioctl(&self, request: i64, argument: Option<IoctlArgument>) -> Result<Option<RawValue>> {
        self.broker().run(operation::ioctl(self.handle(), request, argument))
    }

    /// Receives only what a classic BPF program accepts: 1 to 4096 instructions of 8 bytes (`struct
    /// sock_filter`) in host byte order.
    pub fn attach_filter(&self, program: &[u8]) -> Result<()> {
        let encoding = self.payload_encoding();
        self.broker().run(operation::attach_filter(encoding, self.handle(), program))
    }

    /// Removes the filter.
    pub fn detach_filter(&self) -> Result<()> {
        self.broker().run(operation::detach_filter(self.handle()))
    }

    /// Takes the pending error of the socket, `SO_ERROR`, if there is one.
    pub fn take_error(&self) -> Result<Option<std::io::Error>> {
        self.broker().run(operation::take_error(self.handle()))
    }

    /// Sets `TCP_NODELAY`: small segments are sent at once.
    pub fn set_nodelay(&self, on: bool) -> Result<()> {
        self.set_option(option::TCP_NODELAY, on)
    }

    /// Reads `TCP_NODELAY`.
    pub fn nodelay(&self) -> Result<bool> {
        self.option(option::TCP_NODELAY)
    }

    /// Sets `SO_REUSEADDR`.
    pub fn set_reuse_address(&self, on: bool) -> Result<()> {
        self.set_option(option::SO_REUSEADDR, on)
    }

    /// Reads `SO_REUSEADDR`.
    pub fn reuse_address(&self) -> Result<bool> {
        self.option(option::SO_REUSEADDR)
    }

    /// Sets `SO_BROADCAST`.
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        self.set_option(option::SO_BROADCAST, on)
    }

    /// Reads `SO_BROADCAST`.
    pub fn broadcast(&self) -> Result<bool> {
        self.option(option::SO_BROADCAST)
    }

    /// Sets `SO_KEEPALIVE`.
    pub fn set_keepalive(&self, on: bool) -> Result<()> {
        self.set_option(option::SO_KEEPALIVE, on)
    }

    /// Reads `SO_KEEPALIVE`.
    pub fn keepalive(&self) -> Result<bool> {
        self.option(option::SO_KEEPALIVE)
    }

    /// Sets `IP_TTL`, the time to live of IPv4 packets: 1 to 255 hops.
    pub fn set_ttl(&self, hops: u8) -> Result<()> {
        self.set_option(option::IP_TTL, i32::from(hops))
    }

    /// Reads `IP_TTL`, the time to live of IPv4 packets in hops.
    pub fn ttl(&self) -> Result<i32> {
        self.option(option::IP_TTL)
    }

    /// Sets `IPV6_V6ONLY`.
    pub fn set_only_v6(&self, on: bool) -> Result<()> {
        self.set_option(option::IPV6_V6ONLY, on)
    }

    /// Reads `IPV6_V6ONLY`.
    pub fn only_v6(&self) -> Result<bool> {
        self.option(option::IPV6_V6ONLY)
    }

    /// Sets the size of the send buffer in bytes, `SO_SNDBUF`. The kernel doubles it.
    pub fn set_send_buffer_size(&self, bytes: i32) -> Result<()> {
        self.set_option(option::SO_SNDBUF, bytes)
    }

    /// Reads the size of the send buffer in bytes, `SO_SNDBUF`.
    pub fn send_buffer_size(&self) -> Result<i32> {
        self.option(option::SO_SNDBUF)
    }

    /// Sets the size of the receive buffer in bytes, `SO_RCVBUF`. The kernel doubles it.
    pub fn set_recv_buffer_size(&self, bytes: i32) -> Result<()> {
        self.set_option(option::SO_RCVBUF, bytes)
    }

    /// Reads the size of the receive buffer in bytes, `SO_RCVBUF`.
    pub fn recv_buffer_size(&self) -> Result<i32> {
        self.option(option::SO_RCVBUF)
    }

    /// Sets `SO_LINGER`: how long closing waits until sent data are acknowledged, in whole seconds.
    pub fn set_linger(&self, time: Option<Duration>) -> Result<()> {
        self.set_option(option::SO_LINGER, time)
    }

    /// Reads `SO_LINGER`.
    pub fn linger(&self) -> Result<Option<Duration>> {
        self.option(option::SO_LINGER)
    }

    /// Sets `SO_BINDTODEVICE`: the socket uses only this interface; `""` removes the restriction.
    pub fn bind_device(&self, interface: &str) -> Result<()> {
        self.set_option(option::SO_BINDTODEVICE, interface.to_owned())
    }
}
