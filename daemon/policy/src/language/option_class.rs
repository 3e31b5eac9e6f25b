//! Classes of options: what a rule grants of the verb `option`.

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::verb::Verb;
use crate::language::vocabulary::words;

words! {
    /// A class of options.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum OptionClass {
        Ordinary "ordinary" "Concern only this socket and need no privilege; reading any option that the broker knows.";
        BuffersForce "buffers-force" "Buffers beyond the limits of the host.";
        Memory "memory" "Reserving kernel memory in advance: `SO_RESERVE_MEM`.";
        Scheduling "scheduling" "Precedence over other traffic: priority, busy polling, transmit times, debug records.";
        Mark "mark" "The firewall mark, by which packets are routed and filtered.";
        BindToDevice "bind-to-device" "The interface that packets leave by.";
        Multicast "multicast" "Multicast groups and how the socket sends to them; `remote` and `interface` apply to the group that the socket joins.";
        Filter "filter" "Classic BPF programs on the socket.";
        Routing "routing" "Source routes, IP options and extension headers that the caller writes; multicast routing.";
        Ipsec "ipsec" "Keys and policies of `ipsec` and similar: TCP-MD5, TCP-AO, encapsulation.";
        Modules "modules" "Can make the kernel load a module: congestion control, upper-layer protocols.";
        TcpRepair "tcp-repair" "Setting a TCP connection to any state.";
        Packet "packet" "All options of packet sockets: rings, fan-out, promiscuous mode.";
        Netlink "netlink" "Multicast groups of netlink.";
        Spoof "spoof" "Headers that the caller writes (`IP_HDRINCL`): granted by the verb `spoof`, not by this class.";
        Transparent "transparent" "Foreign addresses (`IP_TRANSPARENT`): granted by the verb `transparent`, not by this class.";
        Unknown "unknown" "Options that this version does not know; granted only by name.";
    }
}

impl OptionClass {
    /// The verb that grants it.
    pub fn verb(self) -> Verb {
        match self {
            Self::Spoof => Verb::Spoof,
            Self::Transparent => Verb::Transparent,
            Self::Ordinary
            | Self::BuffersForce
            | Self::Memory
            | Self::Scheduling
            | Self::Mark
            | Self::BindToDevice
            | Self::Multicast
            | Self::Filter
            | Self::Routing
            | Self::Ipsec
            | Self::Modules
            | Self::TcpRepair
            | Self::Packet
            | Self::Netlink
            | Self::Unknown => Verb::Option,
        }
    }
}

impl<'de> Deserialize<'de> for OptionClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let granted = || Self::ALL.iter().copied().filter(|class| class.verb() == Verb::Option);
        granted().find(|class| class.word() == word).ok_or_else(|| {
            let known: Vec<_> = granted().map(Self::word).collect();
            let known = known.join(", ");
            D::Error::custom(format!("unknown option class `{word}`; the classes are: {known}"))
        })
    }
}
