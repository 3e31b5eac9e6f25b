//! The command line of `sockbroker nc`.

use std::net::IpAddr;

use clap::{Args, ValueHint};

use crate::value::seconds;

/// Connect standard input and output to a socket of the broker, like netcat.
///
/// Sends standard input until it ends, then shuts down the sending side of a stream. Writes received
/// data to standard output until the peer closes the connection.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker nc example.org 80
  sockbroker nc -l 127.0.0.1 8080 >received
  sockbroker nc -u 127.0.0.1 53
  sockbroker nc -U /run/some.socket
  sockbroker nc -zv example.org 20-30
  sockbroker nc --raw 1 127.0.0.1")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct NcArgs {
    /// The host, or with -U the path of the Unix socket.
    #[arg(value_name = "HOST | PATH", value_hint = ValueHint::Hostname)]
    pub(crate) host: String,

    /// The port, a number or the name of a service; with -z also a range, such as 20-30. With -l, a port
    /// without a host means all addresses.
    #[arg(required_unless_present_any = ["unix", "raw", "listen"], conflicts_with_all = ["unix", "raw"])]
    pub(crate) port: Option<String>,

    /// Listen for one connection (with -u: for the first datagram) instead of connecting.
    #[arg(short, long)]
    pub(crate) listen: bool,

    /// With -l: wait for the next connection when one has ended. With -lu: receive the datagrams of all
    /// senders, and send none.
    #[arg(short, long, requires = "listen")]
    pub(crate) keep: bool,

    /// Connect and close without sending data, to test whether the port is open.
    #[arg(short = 'z', long, conflicts_with_all = ["listen", "raw"])]
    pub(crate) zero: bool,

    /// Report each connection that succeeds and each attempt that fails.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Connect from this address.
    #[arg(short = 's', long, value_name = "ADDRESS", conflicts_with_all = ["listen", "unix"])]
    pub(crate) source: Option<IpAddr>,

    /// Connect from this port.
    #[arg(short = 'p', long, value_name = "PORT", conflicts_with_all = ["listen", "unix", "raw"])]
    pub(crate) source_port: Option<String>,

    /// Use UDP. Each read of standard input becomes a datagram.
    #[arg(short, long, conflicts_with_all = ["unix", "raw"])]
    pub(crate) udp: bool,

    /// Use a Unix socket.
    #[arg(short = 'U', long, conflicts_with = "raw")]
    pub(crate) unix: bool,

    /// Use a raw IP socket of this protocol, a number or a name.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "listen")]
    pub(crate) raw: Option<String>,

    /// Use IPv4 only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6 only.
    #[arg(short = '6')]
    pub(crate) ipv6: bool,

    /// The timeout for connecting, and for ending when no data arrives, in seconds.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait: Option<f64>,

    /// Show on the terminal how many bytes were sent and received.
    #[arg(long)]
    pub(crate) progress: bool,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker, or `caller` for that of
    /// the connection to the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME", conflicts_with = "unix")]
    pub(crate) netns: Option<String>,
}
