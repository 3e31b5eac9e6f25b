//! Options of tcpdump that have no effect here, and what to do instead of those that `sniff` does not have.

use clap::{ArgAction, Args};

/// Options that have no effect.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Compatible {
    /// Accepted for compatibility with tcpdump: addresses are never converted to names.
    #[arg(short = 'n', action = ArgAction::Count)]
    no_names: u8,

    /// Accepted for compatibility with tcpdump: each line is printed at once.
    #[arg(short = 'l')]
    line_buffered: bool,

    /// Accepted for compatibility with tcpdump: each packet is written at once.
    #[arg(short = 'U', long)]
    packet_buffered: bool,

    /// Accepted for compatibility with tcpdump: each packet arrives within a millisecond.
    #[arg(long, alias = "immediate-mode")]
    immediate: bool,

    /// Accepted for compatibility with tcpdump: checksums are not verified.
    #[arg(short = 'K', long)]
    dont_verify_checksums: bool,

    /// Accepted for compatibility with tcpdump: the sequence numbers of TCP are absolute.
    #[arg(short = 'S', long)]
    absolute_tcp_sequence_numbers: bool,

    /// Accepted for compatibility with tcpdump: the program selects the same packets.
    #[arg(short = 'O', long)]
    no_optimize: bool,

    /// Accepted for compatibility with tcpdump: sniff has no privileges to give up.
    #[arg(short = 'Z', long, value_name = "USER")]
    relinquish_privileges: Option<String>,
}

/// What to do instead of an option that `sniff` does not have. `option` is as on the command line, such as `-I`.
pub(crate) fn instead(option: &str) -> String {
    let way = match option {
        "-I" | "--monitor-mode" => {
            "the administrator puts the interface into monitor mode, for example with `iw dev`"
        }
        "-j" | "--time-stamp-type" | "-J" | "--list-time-stamp-types" => {
            "the kernel takes the times of packets"
        }
        "--time-stamp-precision" | "--nano" | "--micro" => {
            "files and --json have nanoseconds, and lines have microseconds"
        }
        "-z" => "run the command on the files of -w when sniff has ended",
        "-E" | "-M" => "it verifies and decrypts nothing; `tcpdump -r` does, with a file of -w",
        "-T" | "-m" => {
            "it selects decoders by port; `tcpdump -r` and `tshark -r -d` select others, with a file of -w"
        }
        "-V" => "read one file with -r at a time, or join files with mergecap(1)",
        "-N" | "-f" | "-a" => "addresses are never converted to names",
        _ => {
            "`sockbroker sniff --help` lists its options; `tcpdump -r` has more, for the files that -w writes"
        }
    };
    format!("sniff has no {option}: {way}")
}
