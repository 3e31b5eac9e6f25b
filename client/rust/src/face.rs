//! What both faces have in common, written once: methods that are one call each.
//!
//! [`face`] makes a list of methods blocking or asynchronous; the lists stand below it.

/// Makes the methods of one face. Each is its name, the name for `self`, parameters, result, and the
/// operation.
macro_rules! face {
    (blocking $type:ty { $(
        $(#[$doc:meta])*
        fn $name:ident $(<$generic:ident: $bound:path>)? ($this:ident $(, $arg:ident: $kind:ty)*)
            -> $out:ty { $call:expr }
    )* }) => {
        impl $type { $(
            $(#[$doc])*
            pub fn $name $(<$generic: $bound>)? (&self $(, $arg: $kind)*) -> crate::error::Result<$out> {
                let $this = self;
                $this.broker().run($call)
            }
        )* }
    };
    (asynchronous $type:ty { $(
        $(#[$doc:meta])*
        fn $name:ident $(<$generic:ident: $bound:path>)? ($this:ident $(, $arg:ident: $kind:ty)*)
            -> $out:ty { $call:expr }
    )* }) => {
        impl $type { $(
            $(#[$doc])*
            pub async fn $name $(<$generic: $bound>)? (&self $(, $arg: $kind)*) -> crate::error::Result<$out> {
                let $this = self;
                $this.broker().run($call).await
            }
        )* }
    };
}

/// The methods of a broker that are one call each.
macro_rules! broker_methods {
    ($face:ident $type:ty) => { $crate::face::face! { $face $type {
        /// What the broker knows of this session: `session.info`.
        fn session(_this) -> sockbroker_proto::api::session::SessionInfo { operation::session() }

        /// As whom the broker runs, what confines it, and which policy it holds.
        fn info(_this) -> sockbroker_proto::api::broker::BrokerInfo { operation::broker_info() }

        /// Every limit of the broker, by name.
        fn limits(_this) -> std::collections::BTreeMap<String, sockbroker_proto::api::session::LimitInfo> {
            operation::limits()
        }

        /// Every constant of Python's `socket` module on the broker's platform, by name.
        fn constants(_this) -> std::collections::BTreeMap<String, i64> { operation::constants() }

        /// The timeout that new sockets of this session get; `None` waits for ever.
        fn default_timeout(_this) -> Option<Duration> { operation::default_timeout() }

        /// Sets the timeout that new sockets of this session get.
        fn set_default_timeout(_this, limit: Option<Duration>) -> () {
            operation::set_default_timeout(limit)
        }

        /// The addresses of a host and a port: `getaddrinfo(3)` in the broker. Without a host it is
        /// the loopback address, or with `AI_PASSIVE` the wildcard.
        fn getaddrinfo(_this, host: Option<&str>, port: Option<u16>, hints: AddressHints) -> Vec<AddressInfo> {
            operation::getaddrinfo(host, port, hints)
        }

        /// Host and service of an address as text; `flags` are `NI_*`, such as `NI_NUMERICHOST` (1)
        /// and `NI_NUMERICSERV` (2).
        fn getnameinfo(_this, address: Address, flags: i32) -> (String, String) {
            operation::getnameinfo(address, flags)
        }

        /// The full name of a host; of the broker's own without one.
        fn getfqdn(_this, name: Option<&str>) -> String { operation::getfqdn(name) }

        /// One IPv4 address of a host, as text.
        fn gethostbyname(_this, name: &str) -> String { operation::gethostbyname(name) }

        /// Name, further names and IPv4 addresses of a host.
        fn gethostbyname_ex(_this, name: &str) -> Host { operation::gethostbyname_ex(name) }

        /// Name, further names and addresses of the host with an address.
        fn gethostbyaddr(_this, address: &str) -> Host { operation::gethostbyaddr(address) }

        /// The number of a protocol, such as 6 for `tcp`.
        fn getprotobyname(_this, name: &str) -> i32 { operation::getprotobyname(name) }

        /// The port of a service, host order; of any protocol if none is named.
        fn getservbyname(_this, name: &str, protocol: Option<&str>) -> u16 {
            operation::getservbyname(name, protocol)
        }

        /// The service of a port, host order; of any protocol if none is named.
        fn getservbyport(_this, port: u16, protocol: Option<&str>) -> String {
            operation::getservbyport(port, protocol)
        }

        /// The name of the broker's host.
        fn gethostname(_this) -> String { operation::gethostname() }

        /// Index and name of every interface of the broker.
        fn if_nameindex(_this) -> Vec<(u32, String)> { operation::if_nameindex() }

        /// The index of an interface of the broker.
        fn if_nametoindex(_this, name: &str) -> u32 { operation::if_nametoindex(name) }

        /// The name of an interface of the broker.
        fn if_indextoname(_this, index: u32) -> String { operation::if_indextoname(index) }
    } } };
}

/// The methods of a socket that are one call each.
macro_rules! socket_methods {
    ($face:ident $type:ty) => { $crate::face::face! { $face $type {
        /// Gives it a local address; a host name is looked up by the broker.
        fn bind(this, address: impl Into<Address>) -> () {
            operation::bind(this.handle(), address.into(), this.opens_files())
        }

        /// Lets it accept connections; `backlog` of them may wait.
        fn listen(this, backlog: i32) -> () { operation::listen(this.handle(), backlog) }

        /// Connects, and waits until the connection stands.
        fn connect(this, address: impl Into<Address>) -> () {
            operation::connect(this.handle(), address.into(), this.opens_files())
        }

        /// Ends one direction, or both.
        fn shutdown(this, how: Shutdown) -> () {
            operation::shutdown(this.handle(), operation::how(how))
        }

        /// The local address.
        fn local_addr(this) -> Address { operation::local_addr(this.handle()) }

        /// The address of the peer.
        fn peer_addr(this) -> Address { operation::peer_addr(this.handle()) }

        /// Sends bytes to the peer; how many left. Of a stream not more than 1 MiB at a time do.
        fn send(this, data: &[u8]) -> usize {
            operation::send(this.payload_encoding(), this.handle(), this.piece(data), Flags::NONE)
        }

        /// Sends bytes to the peer with flags; how many left.
        fn send_with_flags(this, data: &[u8], flags: Flags) -> usize {
            operation::send(this.payload_encoding(), this.handle(), this.piece(data), flags)
        }

        /// Sends a datagram to an address; how many bytes left.
        fn send_to(this, data: &[u8], address: impl Into<Address>) -> usize {
            operation::send_to(this.route(), this.handle(), data, Flags::NONE, address.into())
        }

        /// Sends a datagram to an address with flags; how many bytes left.
        fn send_to_with_flags(this, data: &[u8], address: impl Into<Address>, flags: Flags) -> usize {
            operation::send_to(this.route(), this.handle(), data, flags, address.into())
        }

        /// Receives a message of at most `size` bytes, with at most `ancillary` bytes of ancillary
        /// data as `cmsg(3)` counts them.
        fn recv_msg(this, size: usize, ancillary: usize, flags: Flags) -> Message {
            operation::recv_msg(this.handle(), size, ancillary, flags)
        }

        /// Sets an option of [`crate::option`]. It takes effect after all that was sent before it.
        fn set_option<T: OptionType>(this, option: SocketOption<T>, value: T) -> () {
            operation::set_option(this.handle(), option.level(), option.number(), value.into_raw())
        }

        /// Reads an option of [`crate::option`].
        ///
        /// # Errors
        ///
        /// [`Error::Argument`](crate::Error::Argument) if its value is of another type.
        fn option<T: OptionType>(this, option: SocketOption<T>) -> T {
            operation::typed_option(this.handle(), option)
        }

        /// Sets any option.
        fn set_option_raw(this, level: i32, number: i32, value: RawValue) -> () {
            operation::set_option(this.handle(), level, number, value)
        }

        /// Reads any option: an integer, or with a `length` (1 to 1024) at most so many bytes.
        fn option_raw(this, level: i32, number: i32, length: Option<u32>) -> RawValue {
            operation::option(this.handle(), level, number, length)
        }

        /// Sets whether calls fail with `WouldBlock` rather than wait. `false` lets them wait for
        /// ever.
        fn set_nonblocking(this, nonblocking: bool) -> () {
            operation::set_timeout(this.handle(), nonblocking.then_some(Duration::ZERO))
        }

        /// Sets how long a call may wait, in the broker, before it fails with
        /// [`Error::Timeout`](crate::Error::Timeout): `None` for ever, zero not at all
        /// (`WouldBlock`).
        fn set_timeout(this, limit: Option<Duration>) -> () {
            operation::set_timeout(this.handle(), limit)
        }

        /// How long a call may wait.
        fn timeout(this) -> Option<Duration> { operation::timeout(this.handle()) }

        /// A descriptor of the socket, close-on-exec; the handle stays.
        ///
        /// # Errors
        ///
        /// [`Error::Denied`](crate::Error::Denied) if the policy does not grant the hand-over,
        /// [`Error::Descriptor`](crate::Error::Descriptor) where the connection carries none.
        fn try_clone_fd(this) -> OwnedFd { operation::fileno(this.handle()) }

        /// One of the requests that the broker knows (`SIO_RCVALL`, `FIONREAD`, `SIOCGIFADDR` ...):
        /// a number, or bytes in network order.
        fn ioctl(this, control: i64, argument: Option<IoctlArgument>) -> Option<RawValue> {
            operation::ioctl(this.handle(), control, argument)
        }

        /// Receives only what a classic BPF program lets through: 1 to 4096 instructions of 8 bytes
        /// (`struct sock_filter`), host order.
        fn attach_filter(this, program: &[u8]) -> () {
            operation::attach_filter(this.payload_encoding(), this.handle(), program)
        }

        /// Receives everything again.
        fn detach_filter(this) -> () { operation::detach_filter(this.handle()) }

        /// Takes the pending error of the socket, if there is one.
        fn take_error(this) -> Option<std::io::Error> { operation::take_error(this.handle()) }

        /// Sets `TCP_NODELAY`: small segments leave at once.
        fn set_nodelay(this, on: bool) -> () { operation::set(this.handle(), option::TCP_NODELAY, on) }

        /// `TCP_NODELAY`.
        fn nodelay(this) -> bool { operation::typed_option(this.handle(), option::TCP_NODELAY) }

        /// Sets `SO_REUSEADDR`.
        fn set_reuse_address(this, on: bool) -> () { operation::set(this.handle(), option::SO_REUSEADDR, on) }

        /// `SO_REUSEADDR`.
        fn reuse_address(this) -> bool { operation::typed_option(this.handle(), option::SO_REUSEADDR) }

        /// Sets `SO_BROADCAST`.
        fn set_broadcast(this, on: bool) -> () { operation::set(this.handle(), option::SO_BROADCAST, on) }

        /// `SO_BROADCAST`.
        fn broadcast(this) -> bool { operation::typed_option(this.handle(), option::SO_BROADCAST) }

        /// Sets `SO_KEEPALIVE`.
        fn set_keepalive(this, on: bool) -> () { operation::set(this.handle(), option::SO_KEEPALIVE, on) }

        /// `SO_KEEPALIVE`.
        fn keepalive(this) -> bool { operation::typed_option(this.handle(), option::SO_KEEPALIVE) }

        /// Sets `IP_TTL`, hops of IPv4: 1 to 255.
        fn set_ttl(this, hops: u8) -> () { operation::set(this.handle(), option::IP_TTL, i32::from(hops)) }

        /// `IP_TTL`, hops of IPv4.
        fn ttl(this) -> i32 { operation::typed_option(this.handle(), option::IP_TTL) }

        /// Sets `IPV6_V6ONLY`.
        fn set_only_v6(this, on: bool) -> () { operation::set(this.handle(), option::IPV6_V6ONLY, on) }

        /// `IPV6_V6ONLY`.
        fn only_v6(this) -> bool { operation::typed_option(this.handle(), option::IPV6_V6ONLY) }

        /// Sets the size of the send buffer in bytes; the kernel doubles it.
        fn set_send_buffer_size(this, bytes: i32) -> () { operation::set(this.handle(), option::SO_SNDBUF, bytes) }

        /// The size of the send buffer in bytes.
        fn send_buffer_size(this) -> i32 { operation::typed_option(this.handle(), option::SO_SNDBUF) }

        /// Sets the size of the receive buffer in bytes; the kernel doubles it.
        fn set_recv_buffer_size(this, bytes: i32) -> () { operation::set(this.handle(), option::SO_RCVBUF, bytes) }

        /// The size of the receive buffer in bytes.
        fn recv_buffer_size(this) -> i32 { operation::typed_option(this.handle(), option::SO_RCVBUF) }

        /// Sets `SO_LINGER`: closing waits so long, in whole seconds, until what was sent has arrived.
        fn set_linger(this, time: Option<Duration>) -> () { operation::set(this.handle(), option::SO_LINGER, time) }

        /// `SO_LINGER`.
        fn linger(this) -> Option<Duration> { operation::typed_option(this.handle(), option::SO_LINGER) }

        /// Sets `SO_BINDTODEVICE`: only this interface; `""` for any.
        fn bind_device(this, interface: &str) -> () {
            operation::set(this.handle(), option::SO_BINDTODEVICE, interface.to_owned())
        }
    } } };
}

pub(crate) use {broker_methods, face, socket_methods};
