//! The command line of `sockbroker ping`.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use clap::{Args, ValueHint};

use crate::value::seconds;

/// Send ICMP echo requests, like ping(8).
///
/// Uses an ICMP datagram socket if the sysctl net.ipv4.ping_group_range includes a group of the broker,
/// else a raw socket, which requires that the broker has CAP_NET_RAW.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct PingArgs {
    /// The host to ping, a name or an address.
    #[arg(value_hint = ValueHint::Hostname)]
    pub(crate) host: String,

    /// Stop after this many requests. Default: stop at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Seconds between requests.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: f64,

    /// Seconds to wait for the last replies.
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: f64,

    /// Stop after this many seconds. With --count: stop earlier when that many replies have arrived.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) deadline: Option<f64>,

    /// Print only the first line and the statistics.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print addresses as numbers. This is the default; the option is accepted for ping(8).
    #[arg(short, long)]
    pub(crate) numeric: bool,

    /// The time to live (IPv4) or hop limit (IPv6) of requests.
    #[arg(short, long, value_name = "HOPS", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) ttl: Option<u8>,

    /// Bytes of data in a request.
    #[arg(short, long, default_value = "56", value_parser = clap::value_parser!(u16).range(..=65_507))]
    pub(crate) size: u16,

    /// Use IPv4 only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6 only.
    #[arg(short = '6')]
    pub(crate) ipv6: bool,

    /// Send from this address, or through this interface.
    #[arg(short = 'I', long, value_name = "ADDRESS | INTERFACE")]
    pub(crate) source: Option<String>,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker, or `caller` for that of
    /// the connection to the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}
