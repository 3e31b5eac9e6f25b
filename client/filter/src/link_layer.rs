//! What packets begin with.

/// The header that packets of an interface begin with. A program fits one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header, as on `tun` interfaces.
    RawIp,
    /// The header of a cooked capture, version 1.
    LinuxSll,
    /// The header of a cooked capture, version 2.
    LinuxSll2,
}

impl LinkLayer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ethernet, Self::RawIp, Self::LinuxSll, Self::LinuxSll2];

    /// The number of libpcap on Linux (`DLT_`).
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Ethernet => 1,
            Self::RawIp => 12,
            Self::LinuxSll => 113,
            Self::LinuxSll2 => 276,
        }
    }

    /// The name for `tcpdump -y`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "EN10MB",
            Self::RawIp => "RAW",
            Self::LinuxSll => "LINUX_SLL",
            Self::LinuxSll2 => "LINUX_SLL2",
        }
    }
}
