//! The command line of `sockbroker sniff`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Capture packets of an interface through the broker, and print one line for each.
///
/// Ends at Ctrl-C, SIGTERM and SIGHUP, even while its output is blocked, and prints how many packets were
/// captured, seen and lost. A file ends with these numbers too. If the interface goes down, the capture
/// continues when it is up again.
#[derive(Debug, Clone, Args)]
pub(crate) struct SniffArgs {
    /// The interface, or `any` for all interfaces.
    pub(crate) interface: String,

    /// Capture only the packets that this filter expression selects (pcap-filter(7)), such as `udp port 67`. Requires an
    /// Ethernet or loopback interface, and libpcap or tcpdump on this machine.
    #[arg(value_name = "EXPRESSION")]
    pub(crate) filter: Vec<String>,

    /// Stop after this many packets. Default: stop at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Also write the packets to a file (pcapng). With `-`, write the file to standard output and print no lines.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,

    /// The most bytes to keep of each packet.
    #[arg(short, long, default_value = "262144", value_parser = clap::value_parser!(u32).range(64..=262_144))]
    pub(crate) snaplen: u32,

    /// Also capture packets for other hosts (promiscuous mode).
    #[arg(short, long)]
    pub(crate) promiscuous: bool,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker, or `caller` for that of
    /// the connection to the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

impl SniffArgs {
    /// Returns the filter expression, or `None` if all packets are captured.
    pub(super) fn expression(&self) -> Option<String> {
        (!self.filter.is_empty()).then(|| self.filter.join(" "))
    }
}
