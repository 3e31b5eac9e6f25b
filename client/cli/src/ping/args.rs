//! The words of `sockbroker ping`.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use clap::{Args, ValueHint};

use crate::value::seconds;

/// Send ICMP echo requests, like ping(8).
///
/// Uses an ICMP datagram socket where the system allows it to the broker (the sysctl
/// net.ipv4.ping_group_range), else a raw socket, for which the broker needs CAP_NET_RAW.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct PingArgs {
    /// The host.
    #[arg(value_hint = ValueHint::Hostname)]
    pub(crate) host: String,

    /// Stop after this many requests; without it, at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Seconds between requests.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: f64,

    /// Seconds to wait for the last replies.
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: f64,

    /// Stop after this many seconds, however many requests were sent. With --count: wait for that many
    /// replies until then.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) deadline: Option<f64>,

    /// Print the first line and the statistics alone.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print addresses as numbers, which is always so.
    #[arg(short, long)]
    pub(crate) numeric: bool,

    /// The time to live of requests, or their hop limit.
    #[arg(short, long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) ttl: Option<u8>,

    /// Bytes of data in a request.
    #[arg(short, long, default_value = "56", value_parser = clap::value_parser!(u16).range(..=65_507))]
    pub(crate) size: u16,

    /// IPv4 only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// IPv6 only.
    #[arg(short = '6')]
    pub(crate) ipv6: bool,

    /// Send from this address, or by this interface.
    #[arg(short = 'I', long, value_name = "ADDRESS | INTERFACE")]
    pub(crate) source: Option<String>,
}
