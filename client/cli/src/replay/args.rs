//! The command line of `sockbroker replay`.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Send the packets of a capture file on an interface through the broker, at the times of the file.
///
/// The file is pcapng or pcap, such as `sockbroker sniff -w` and tcpdump write. Its packets are sent as they are: their
/// link type must be that of the interface. Packets that cannot be sent, because they are longer than the MTU allows,
/// truncated in the file, or of another link type, are counted and reported by number, and the others are sent. Ends at
/// Ctrl-C after the packets that are due within 0.2 seconds. Requires rules with `create`, `bind` and `inject` for
/// AF_PACKET.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker replay lab.pcapng -i veth0
  sockbroker replay lab.pcapng -i veth0 --speed 10
  sockbroker replay lab.pcapng -i veth0 --top-speed --loop 100
  tcpdump -r all.pcap -w - udp | sockbroker replay - -i veth0 --pps 1000")]
pub(crate) struct ReplayArgs {
    /// The capture file; `-` for standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// The interface.
    #[arg(short = 'i', long = "interface", visible_alias = "intf1", value_name = "INTERFACE")]
    pub(crate) interface: String,

    /// Send this many times as fast as the packets were captured. 0 sends without waiting.
    #[arg(short = 'x', long, visible_alias = "multiplier", value_name = "FACTOR", value_parser = factor,
        default_value = "1")]
    pub(crate) speed: f64,

    /// Send as many packets a second as the interface takes: --speed 0.
    #[arg(short = 't', long, visible_alias = "topspeed", conflicts_with_all = ["speed", "pps"])]
    pub(crate) top_speed: bool,

    /// Send this many packets a second.
    #[arg(short = 'p', long, value_name = "RATE", value_parser = rate, conflicts_with = "speed")]
    pub(crate) pps: Option<f64>,

    /// Send the file this many times.
    #[arg(short = 'l', long = "loop", value_name = "COUNT", default_value = "1",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,

    /// Stop after this many packets.
    #[arg(short = 'L', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,

    /// Send packets that the file has only in part as they are.
    #[arg(long)]
    pub(crate) truncated: bool,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker, or `caller` for that of
    /// the connection to the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

impl ReplayArgs {
    /// The factor of the file's own timing; 0 for none.
    pub(super) fn factor(&self) -> f64 {
        if self.top_speed { 0.0 } else { self.speed }
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let valid = |factor: &f64| factor.is_finite() && *factor >= 0.0;
    text.parse().ok().filter(valid).ok_or_else(|| "not a number from 0".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let valid = |rate: &f64| *rate > 0.0 && *rate <= 1e9;
    text.parse().ok().filter(valid).ok_or_else(|| "not a number above 0, at most 10^9".to_owned())
}
