//! The command line of `sockbroker sniff`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use sockbroker_pcapng::LinkType;
use sockbroker_proto::api::capture::{CaptureDirection, CaptureMode};

use super::compatible::Compatible;
use super::dump::Dump;
use super::expression;
use super::link;
use super::rotation::Rotation;
use crate::failure::Failure;

/// The name that stands for all interfaces.
const ALL: &str = "any";
/// The most bytes of a packet that a capture keeps.
pub(crate) const SNAPLEN_MAX: u32 = 262_144;

/// Capture packets of interfaces through the broker, and print one line for each; its options are tcpdump's.
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
    #[arg(value_name = "INTERFACE | EXPRESSION")]
    words: Vec<String>,

    /// Capture on this interface: its name, its number in the list of -D, or `any` for all interfaces. Can be repeated.
    #[arg(short = 'i', long = "interface", value_name = "INTERFACE")]
    interface: Vec<String>,

    /// Read the filter expression from this file; with `-`, from standard input. A text behind `#` is a comment.
    #[arg(short = 'F', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    filter_file: Option<PathBuf>,

    /// Stop after this many packets. Default: stop at Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Write the packets to a file (pcapng, whatever its name is), as the broker captures them, and print no lines. With
    /// `-`, write to standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) write: Option<PathBuf>,

    /// Print lines also if packets are written to a file.
    #[arg(long)]
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

    /// Print the packets of a file (pcapng or pcap) instead, or write them to another file with -w; no broker is needed.
    /// With `-`, read standard input. All arguments are the filter expression.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["interface", "rotate_seconds", "snaplen", "no_promiscuous_mode", "direction", "netns", "list_interfaces"])]
    pub(crate) read: Option<PathBuf>,

    /// List the interfaces, and capture nothing.
    #[arg(short = 'D', long, conflicts_with_all = ["words", "interface", "write"])]
    pub(crate) list_interfaces: bool,

    /// List the link types of the interfaces, and capture nothing. Each interface has one.
    #[arg(short = 'L', long, alias = "list-data-link-types", conflicts_with_all = ["read", "write", "list_interfaces"])]
    pub(super) list_link_types: bool,

    /// Capture only if the interfaces have this link type, such as EN10MB or RAW. With -d: compile for it.
    #[arg(short = 'y', long, alias = "linktype", value_name = "TYPE", conflicts_with = "read")]
    pub(super) link_type: Option<String>,

    /// Print the program that the filter expression is compiled to, and capture nothing; no broker is needed. All arguments
    /// are the expression. Twice: as a part of a C program; three times: as numbers.
    #[arg(short = 'd', action = ArgAction::Count, conflicts_with_all = ["interface", "read", "write", "list_interfaces", "list_link_types"])]
    pub(super) program: u8,

    /// Capture only packets that are received, or sent, by this host.
    #[arg(short = 'Q', long, value_name = "DIRECTION", default_value = "inout")]
    direction: Direction,

    /// Print no time. Twice: seconds since 1970; three times: the time since the line before; four times: the date too;
    /// five times: the time since the first line. Times are UTC.
    #[arg(short = 't', action = ArgAction::Count, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub(super) times: u8,

    /// Print the number of the packet at the beginning of each line.
    #[arg(short = '#', long)]
    pub(super) number: bool,

    /// Print short lines: no numbers and flags of TCP, no contents of DNS and DHCP.
    #[arg(short = 'q')]
    pub(super) brief: bool,

    /// Print the header of the link layer too.
    #[arg(short = 'e', long)]
    pub(super) link_header: bool,

    /// Print the fields of the IP header too.
    #[arg(short, action = ArgAction::Count)]
    pub(super) verbose: u8,

    /// Print the bytes of each packet too, in hexadecimal and ASCII; twice, with the header of the link layer.
    #[arg(short = 'X', action = ArgAction::Count, conflicts_with_all = ["ascii", "plain"])]
    hexadecimal: u8,

    /// Print the bytes of each packet too, in hexadecimal; twice, with the header of the link layer.
    #[arg(short = 'x', action = ArgAction::Count, conflicts_with = "ascii")]
    plain: u8,

    /// Print the bytes of each packet too, as text; twice, with the header of the link layer.
    #[arg(short = 'A', action = ArgAction::Count)]
    ascii: u8,

    #[command(flatten)]
    compatible: Compatible,

    /// Read packets in blocks of the kernel, which costs less CPU time for each packet. A packet arrives up to ten
    /// milliseconds later.
    #[arg(long, conflicts_with = "immediate")]
    bulk: bool,

    /// The size of the kernel's buffer, in KiB. Default: 16384.
    #[arg(short = 'B', long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(64..=4_194_303))]
    buffer_size: Option<u64>,

    /// The most bytes to keep of each packet; 0 for 262144.
    #[arg(short, long, alias = "snapshot-length", default_value = "262144", value_parser = clap::value_parser!(u32).range(0..=262_144))]
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
        expression::of(words, self.filter_file.as_deref())
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

    /// Returns the filter expression if no interface is named: for the packets of a file, and for `-d`.
    pub(super) fn whole_expression(&self) -> Result<Option<String>, Failure> {
        expression::of(&self.words, self.filter_file.as_deref())
    }

    /// The link type that the interfaces must have.
    pub(super) fn wanted_link_type(&self) -> Result<Option<LinkType>, Failure> {
        let Some(name) = &self.link_type else { return Ok(None) };
        link::by_name(name).map(Some).ok_or_else(|| {
            Failure::usage(format!(
                "there is no link type {name}; `sockbroker sniff -L INTERFACE` prints that of an interface"
            ))
        })
    }

    /// The direction of the packets.
    pub(super) fn direction(&self) -> CaptureDirection {
        self.direction.into()
    }

    /// The bytes of each packet that are printed.
    pub(super) fn dump(&self) -> Option<Dump> {
        let whole = self.hexadecimal.max(self.plain).max(self.ascii) > 1;
        if self.hexadecimal > 0 {
            Some(Dump::Hexadecimal { whole })
        } else if self.plain > 0 {
            Some(Dump::Plain { whole })
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
