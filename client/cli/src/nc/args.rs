//! The words of `sockbroker nc`.

use std::net::IpAddr;

use clap::{Args, ValueHint};

use crate::value::seconds;

/// Connect standard input and output to a socket of the broker, like netcat.
///
/// Standard input is sent until its end, which is passed on as the end of the stream; what arrives
/// goes to standard output until the peer ends.
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
    /// The host, or with -U the path.
    #[arg(value_name = "HOST | PATH", value_hint = ValueHint::Hostname)]
    pub(crate) host: String,

    /// The port, a number or the name of a service; with -z also a range, such as 20-30. With -l it may
    /// stand alone: any address.
    #[arg(required_unless_present_any = ["unix", "raw", "listen"], conflicts_with_all = ["unix", "raw"])]
    pub(crate) port: Option<String>,

    /// Wait for one connection (with -u: for the first datagram) instead of making one.
    #[arg(short, long)]
    pub(crate) listen: bool,

    /// With -l: wait for the next connection when one has ended. With -lu: take the datagrams of all
    /// senders, and answer none.
    #[arg(short, long, requires = "listen")]
    pub(crate) keep: bool,

    /// Connect and close, without data: whether somebody listens.
    #[arg(short = 'z', long, conflicts_with_all = ["listen", "raw"])]
    pub(crate) zero: bool,

    /// Report each connection that is made, and each attempt that fails.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Connect from this address.
    #[arg(short = 's', long, value_name = "ADDRESS", conflicts_with_all = ["listen", "unix"])]
    pub(crate) source: Option<IpAddr>,

    /// Connect from this port.
    #[arg(short = 'p', long, value_name = "PORT", conflicts_with_all = ["listen", "unix", "raw"])]
    pub(crate) source_port: Option<String>,

    /// UDP; every read of standard input is a datagram.
    #[arg(short, long, conflicts_with_all = ["unix", "raw"])]
    pub(crate) udp: bool,

    /// A Unix socket.
    #[arg(short = 'U', long, conflicts_with = "raw")]
    pub(crate) unix: bool,

    /// A raw IP socket of this protocol, a number or a name.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "listen")]
    pub(crate) raw: Option<String>,

    /// IPv4 only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// IPv6 only.
    #[arg(short = '6')]
    pub(crate) ipv6: bool,

    /// Give up connecting, and end when nothing came for so long, in seconds.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait: Option<f64>,

    /// Show on the terminal how much went each way.
    #[arg(long)]
    pub(crate) progress: bool,
}
