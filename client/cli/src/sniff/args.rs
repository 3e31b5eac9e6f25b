//! The words of `sockbroker sniff`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Capture packets of an interface through the broker, and print a line for each.
///
/// Ends at Ctrl-C, SIGTERM and SIGHUP, also while nobody reads its output, and prints how many packets
/// were captured, seen and lost; a file ends with these numbers too. An interface that goes down is
/// captured again when it is up.
#[derive(Debug, Clone, Args)]
pub(crate) struct SniffArgs {
    /// The interface, or `any` for all of them.
    pub(crate) interface: String,

    /// Stop after this many packets; without it, at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Write the packets to a file, too (pcapng); `-` is standard output, and prints no lines.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,

    /// Bytes of each packet to keep.
    #[arg(short, long, default_value = "262144", value_parser = clap::value_parser!(u32).range(64..=262_144))]
    pub(crate) snaplen: u32,

    /// Take packets that are meant for others as well (promiscuous mode).
    #[arg(short, long)]
    pub(crate) promiscuous: bool,
}
