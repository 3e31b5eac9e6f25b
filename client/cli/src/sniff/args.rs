//! The command line of `sockbroker sniff`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use sockbroker_proto::api::capture::{CaptureDirection, CaptureMode};

use super::dump::Dump;
use super::rotation::Rotation;
use crate::failure::Failure;

/// The name that stands for all interfaces.
const ALL: &str = "any";
/// The most bytes of a packet that a capture keeps.
pub(crate) const SNAPLEN_MAX: u32 = 262_144;

/// Capture packets of interfaces through the broker, and print one line for each, with the options of tcpdump.
///
/// Ends at Ctrl-C, SIGTERM and SIGHUP, even while its output is blocked, and prints how many packets were
/// captured, received by the filter, and dropped by the kernel. SIGUSR1 prints these numbers at any time. If the interface
/// goes down, the capture continues when it is up again.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct SniffArgs {
    /// The interface, unless it is given with -i, and a filter expression that selects the packets to capture
    /// (pcap-filter(7)), such as `udp port 67`. `any` stands for all interfaces. An expression requires interfaces of
    /// Ethernet, loopback or IP (tun), and libpcap or tcpdump on this machine.
    #[arg(value_name = "INTERFACE] [EXPRESSION")]
    words: Vec<String>,

    /// Capture on this interface; `any` for all interfaces. Can be repeated.
    #[arg(short = 'i', long = "interface", value_name = "INTERFACE")]
    interface: Vec<String>,

    /// Stop after this many packets. Default: stop at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Write the packets to a file (pcapng, whatever its name is), as the broker captures them, and print no lines. With
    /// `-`, write to standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,

    /// Print lines also if packets are written to a file.
    #[arg(long, requires = "write")]
    print: bool,

    /// Begin the next file before a packet if the file has more than this many million bytes: FILE, FILE1, FILE2.
    #[arg(short = 'C', long, value_name = "SIZE", requires = "write", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    file_size: Option<u64>,

    /// Begin the next file after this many seconds, also without a packet. FILE should contain conversions of strftime(3),
    /// such as %Y%m%d-%H%M%S (UTC); otherwise each file overwrites the one before.
    #[arg(short = 'G', long, value_name = "SECONDS", requires = "write", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    rotate_seconds: Option<u64>,

    /// The number of files: with -C, the first one is overwritten then; with -G alone, the capture ends.
    #[arg(short = 'W', long, value_name = "COUNT", requires = "write", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    file_count: Option<u64>,

    /// Print the packets of a file (pcapng or pcap) instead; no broker is needed. With `-`, read standard input. All
    /// arguments are the filter expression.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["interface", "write", "snaplen", "no_promiscuous_mode", "direction", "netns", "list_interfaces"])]
    pub(crate) read: Option<PathBuf>,

    /// List the interfaces, and capture nothing.
    #[arg(short = 'D', long, conflicts_with_all = ["words", "interface", "write"])]
    pub(crate) list_interfaces: bool,

    /// Capture only packets that are received, or sent, by this host.
    #[arg(short = 'Q', long, value_name = "DIRECTION", default_value = "inout")]
    direction: Direction,

    /// Print the header of the link layer too.
    #[arg(short = 'e', long)]
    pub(super) link_header: bool,

    /// Print the fields of the IP header too.
    #[arg(short, action = ArgAction::Count)]
    pub(super) verbose: u8,

    /// Print the bytes of each packet too, in hexadecimal and ASCII; twice, with the header of the link layer.
    #[arg(short = 'X', action = ArgAction::Count, conflicts_with = "ascii")]
    hexadecimal: u8,

    /// Print the bytes of each packet too, as text; twice, with the header of the link layer.
    #[arg(short = 'A', action = ArgAction::Count)]
    ascii: u8,

    /// Accepted for tcpdump's sake: addresses are never converted to names.
    #[arg(short = 'n', action = ArgAction::Count)]
    no_names: u8,

    /// Accepted for tcpdump's sake: each line is printed at once.
    #[arg(short = 'l')]
    line_buffered: bool,

    /// Accepted for tcpdump's sake: each packet arrives within a millisecond.
    #[arg(long, alias = "immediate-mode")]
    immediate: bool,

    /// Read packets in blocks of the kernel, which costs less CPU time for each packet. A packet arrives up to ten
    /// milliseconds later.
    #[arg(long, conflicts_with = "immediate")]
    bulk: bool,

    /// The size of the kernel's buffer, in KiB. Default: 16384.
    #[arg(short = 'B', long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(64..=4_194_303))]
    buffer_size: Option<u64>,

    /// The most bytes to keep of each packet; 0 for 262144.
    #[arg(short, long, default_value = "262144", value_parser = clap::value_parser!(u32).range(0..=262_144))]
    snaplen: u32,

    /// Capture only packets that the interfaces receive in any case, not those for other hosts: do not use promiscuous
    /// mode.
    #[arg(short = 'p', long)]
    no_promiscuous_mode: bool,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker, or `caller` for that of
    /// the connection to the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
}

/// A direction of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Received packets.
    In,
    /// Sent packets.
    Out,
    /// Both.
    Inout,
}

impl From<Direction> for CaptureDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::In => Self::In,
            Direction::Out => Self::Out,
            Direction::Inout => Self::Both,
        }
    }
}

impl SniffArgs {
    /// Returns the names of the interfaces; none for all interfaces.
    pub(super) fn interfaces(&self) -> Result<Vec<String>, Failure> {
        let (interfaces, _) = self.split()?;
        match interfaces {
            [one] if one == ALL => Ok(Vec::new()),
            several if several.iter().any(|name| name == ALL) => {
                Err(Failure::usage("the interface any stands for all: name no other"))
            }
            named => Ok(named.to_vec()),
        }
    }

    /// Returns the filter expression, or `None` if all packets are captured.
    pub(super) fn expression(&self) -> Result<Option<String>, Failure> {
        let (_, words) = self.split()?;
        Ok((!words.is_empty()).then(|| words.join(" ")))
    }

    /// The interfaces, and the words of the expression.
    fn split(&self) -> Result<(&[String], &[String]), Failure> {
        if !self.interface.is_empty() {
            return Ok((&self.interface, &self.words));
        }
        self.words.split_at_checked(1).ok_or_else(|| {
            Failure::usage("name an interface, or `any` for all: sockbroker sniff INTERFACE")
        })
    }

    /// Returns the filter expression for the packets of a file.
    pub(super) fn file_expression(&self) -> Option<String> {
        (!self.words.is_empty()).then(|| self.words.join(" "))
    }

    /// The direction of the packets.
    pub(super) fn direction(&self) -> CaptureDirection {
        self.direction.into()
    }

    /// The bytes of each packet that are printed.
    pub(super) fn dump(&self) -> Option<Dump> {
        let whole = self.hexadecimal.max(self.ascii) > 1;
        if self.hexadecimal > 0 {
            Some(Dump::Hexadecimal { whole })
        } else {
            (self.ascii > 0).then_some(Dump::Text { whole })
        }
    }

    /// The size of the kernel's buffer in bytes.
    pub(super) fn buffer_bytes(&self) -> Option<u64> {
        self.buffer_size.map(|size| size.saturating_mul(1024))
    }

    /// How the broker reads packets.
    pub(super) fn mode(&self) -> CaptureMode {
        if self.bulk { CaptureMode::Bulk } else { CaptureMode::Live }
    }

    /// The most bytes of each packet.
    pub(super) fn snaplen(&self) -> u32 {
        if self.snaplen == 0 { SNAPLEN_MAX } else { self.snaplen }
    }

    /// When a file is followed by the next one.
    pub(super) fn rotation(&self) -> Result<Rotation, Failure> {
        let time = self.rotate_seconds.map(Duration::from_secs);
        let rotation = Rotation { bytes: self.file_size, time, files: self.file_count };
        if self.file_count.is_some() && rotation.is_none() {
            return Err(Failure::usage("-W requires -C or -G"));
        }
        if !rotation.is_none() && self.write.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage("standard output is one file: -C and -G require a name"));
        }
        Ok(rotation)
    }

    /// Whether packets for other hosts are captured too.
    pub(super) fn is_promiscuous(&self) -> bool {
        !self.no_promiscuous_mode
    }

    /// Whether a line is printed for each packet.
    pub(super) fn prints(&self) -> bool {
        self.print || self.write.is_none()
    }
}
