//! The command line of `sockbroker-extcap`.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueHint};
use sockbroker_client::{CaptureRequest, Netns};
use sockbroker_proto::api::capture::CaptureOptions;

use super::interface::Interface;
use super::names::ALL;
use crate::failure::Failure;
use crate::sniff::args::{Direction, SNAPLEN_MAX};

/// The text after the options in `--help` and in the manual page.
const AFTER: &str = "\
Interfaces:
  sockbroker-IFACE       IFACE of the system's broker; any for all interfaces
  sockbroker-IFACE@user  of your own broker
  sockbroker-IFACE@env   of the broker that SOCKBROKER names
  sockbroker-IFACE@HOST  of the broker of a host with a file
                         ~/.config/sockbroker/HOST/ssh_config
  sockbroker             of the broker that the option --broker names

Preferences of Wireshark and tshark (-o), for the options of an interface:
  extcap.sockbroker.broker:ssh://lab7             of the interface sockbroker
  extcap.sockbroker_eth0.promiscuous:false        of sockbroker-eth0
  extcap.sockbroker_eth0_lab7.buffersize:65536    of sockbroker-eth0@lab7
  `-` and `@` of an interface become `_`, and `-` of an option is left out.

Files:
  /usr/lib/ARCHITECTURE/wireshark/extcap  programs for Wireshark of Debian
  /usr/lib64/wireshark/extcap             programs for Wireshark of RPM systems
  ~/.local/lib/wireshark/extcap           programs of the user: a link to
                                          sockbroker with this name is enough

Exit codes:
  0   success; also if Wireshark has ended the capture
  1   the capture failed
  2   the command line is wrong
  69  no broker answers, or the connection to it ended
  74  the FIFO cannot be written

Examples:
  tshark -D
  tshark -i sockbroker-eth0 -f 'udp port 67'
  tshark -i sockbroker-eth1 -o extcap.sockbroker_eth1.promiscuous:false
  tshark -i sockbroker -o extcap.sockbroker.broker:ssh://lab7 \\
    -o extcap.sockbroker.interface:eth0
  ln -s /usr/bin/sockbroker ~/.local/lib/wireshark/extcap/sockbroker-extcap";

/// Capture for Wireshark and tshark through brokers, without privileges.
///
/// Wireshark runs this program to list the interfaces of all configured brokers, and to capture on them: select one in
/// its list of interfaces. The toolbar of Wireshark (View, Interface Toolbars) changes the filter and the interface during
/// the capture. The policy of the broker decides what each user captures, as for `sockbroker sniff`.
#[derive(Debug, Parser)]
#[command(name = "sockbroker-extcap", version, after_long_help = AFTER)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(super) struct ExtcapArgs {
    /// List the interfaces of all configured brokers, and the controls of the toolbar.
    #[arg(long)]
    extcap_interfaces: bool,

    /// The version of Wireshark.
    #[arg(long, value_name = "VERSION")]
    extcap_version: Option<String>,

    /// The interface that the other options are about.
    #[arg(long, value_name = "INTERFACE")]
    pub(super) extcap_interface: Option<String>,

    /// List the link types of the interface.
    #[arg(long)]
    extcap_dlts: bool,

    /// List the options of the interface.
    #[arg(long)]
    extcap_config: bool,

    /// With --extcap-config: list the values of this option.
    #[arg(long, value_name = "OPTION")]
    pub(super) extcap_reload_option: Option<String>,

    /// With --extcap-config: an option that the user has set; its value follows. Accepted for compatibility with Wireshark.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    extcap_config_option_name: Vec<String>,

    /// Accepted for compatibility with Wireshark.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    extcap_config_option_value: Vec<String>,

    /// Capture on the interface, and write the packets to the FIFO (pcapng).
    #[arg(long)]
    capture: bool,

    /// The filter expression (pcap-filter(7)). Without --fifo: check the expression, and print what is wrong with it.
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    extcap_capture_filter: Option<String>,

    /// The FIFO that Wireshark reads.
    #[arg(long, value_name = "FIFO", value_hint = ValueHint::FilePath)]
    pub(super) fifo: Option<PathBuf>,

    /// The FIFO with messages of the toolbar.
    #[arg(long, value_name = "FIFO", value_hint = ValueHint::FilePath, requires = "extcap_control_out")]
    pub(super) extcap_control_in: Option<PathBuf>,

    /// The FIFO for messages to the toolbar.
    #[arg(long, value_name = "FIFO", value_hint = ValueHint::FilePath, requires = "extcap_control_in")]
    pub(super) extcap_control_out: Option<PathBuf>,

    /// Accepted for compatibility with Wireshark: nothing is left behind, even by SIGKILL.
    #[arg(long)]
    extcap_cleanup_postkill: bool,

    /// Select packets by this expression too: both must match. For programs that pass no capture filter, such as scapy.
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    filter: Option<String>,

    /// The most bytes to keep of each packet; 0 for 262144.
    #[arg(long, default_value = "262144", value_parser = clap::value_parser!(u32).range(0..=262_144))]
    snaplen: u32,

    /// Capture packets for other hosts too, if the interface receives them.
    #[arg(long)]
    promiscuous: bool,

    /// Capture only packets that are received, or sent, by the host.
    #[arg(long, value_name = "DIRECTION", default_value = "inout")]
    direction: Direction,

    /// The size of the kernel's buffer, in KiB.
    #[arg(long, value_name = "KIB", default_value = "16384", value_parser = clap::value_parser!(u64).range(64..=4_194_303))]
    buffer_size: u64,

    /// Use this network namespace: a name of `ip netns list` on the machine of the broker. Requires a rule with netns.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,

    /// For the interface `sockbroker`: the broker to use, as for `sockbroker --broker`, with the same default.
    #[arg(long, value_name = "ENDPOINT")]
    broker: Option<String>,

    /// For the interface `sockbroker`: the interface of the broker; `any` for all.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// Which messages --log-file gets, as for Wireshark: none or critical to noisy.
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,

    /// Append the messages of a capture to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) log_file: Option<PathBuf>,
}

/// What Wireshark wants.
pub(super) enum Question<'a> {
    Interfaces,
    LinkTypes,
    Options(Interface),
    /// Whether this expression can be used.
    Filter(String),
    /// A capture to this FIFO.
    Capture(Interface, &'a Path),
}

impl ExtcapArgs {
    /// The question about an interface.
    pub(super) fn question(&self, interface: Option<Interface>) -> Result<Question<'_>, Failure> {
        if self.extcap_interfaces {
            return Ok(Question::Interfaces);
        }
        let interface = interface.ok_or_else(|| {
            Failure::usage(
                "Wireshark runs this program: give --extcap-interfaces, or --extcap-interface with \
                 --extcap-dlts, --extcap-config, --extcap-capture-filter or --capture",
            )
        })?;
        if self.extcap_dlts {
            return Ok(Question::LinkTypes);
        }
        if self.extcap_config {
            return Ok(Question::Options(interface));
        }
        match (&self.fifo, &self.extcap_capture_filter) {
            (Some(fifo), _) if self.capture => Ok(Question::Capture(interface, fifo)),
            (_, Some(expression)) => Ok(Question::Filter(expression.clone())),
            (_, None) if self.capture => Err(Failure::usage("--capture requires --fifo")),
            (_, None) => Err(Failure::usage(
                "--extcap-interface requires --extcap-dlts, --extcap-config, --extcap-capture-filter or --capture",
            )),
        }
    }

    /// The broker of the interface `sockbroker`, if it is named.
    pub(super) fn broker(&self) -> Option<&str> {
        given(self.broker.as_deref())
    }

    /// The interface of that broker.
    pub(super) fn interface(&self) -> &str {
        given(self.interface.as_deref()).unwrap_or(ALL)
    }

    /// The filter expression, or `None` if all packets are captured.
    pub(super) fn expression(&self) -> Option<String> {
        let of_capture = given(self.extcap_capture_filter.as_deref());
        match (of_capture, given(self.filter.as_deref())) {
            (Some(one), Some(other)) => Some(format!("({one}) and ({other})")),
            (one, other) => one.or(other).map(str::to_owned),
        }
    }

    /// The network namespace.
    pub(super) fn netns(&self) -> Option<String> {
        given(self.netns.as_deref()).map(str::to_owned)
    }

    /// What is captured on an interface, without the filter.
    pub(super) fn request(&self, interface: &str) -> CaptureRequest {
        CaptureRequest {
            interfaces: interfaces(interface),
            options: CaptureOptions {
                snaplen: Some(if self.snaplen == 0 { SNAPLEN_MAX } else { self.snaplen }),
                promiscuous: self.promiscuous,
                direction: Some(self.direction.into()),
                buffer_bytes: Some(self.buffer_size.saturating_mul(1024)),
                ..CaptureOptions::default()
            },
            netns: self.netns().map(Netns::from),
            ..CaptureRequest::default()
        }
    }
}

/// The interfaces of a request for one, or for all.
pub(super) fn interfaces(interface: &str) -> Vec<String> {
    if interface == ALL { Vec::new() } else { vec![interface.to_owned()] }
}

/// A text that is not empty: Wireshark passes options without a value as empty ones.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn args(words: &[&str]) -> ExtcapArgs {
        ExtcapArgs::try_parse_from([&["sockbroker-extcap"], words].concat()).unwrap()
    }

    #[test]
    fn command_line_definition_is_consistent() {
        ExtcapArgs::command().debug_assert();
    }

    #[test]
    fn both_filters_must_match() {
        let expression = |words: &[&str]| args(words).expression();
        assert_eq!(expression(&[]), None);
        assert_eq!(expression(&["--filter", " ", "--extcap-capture-filter", ""]), None);
        assert_eq!(expression(&["--filter", "udp"]).unwrap(), "udp");
        let both = ["--extcap-capture-filter", "udp or tcp", "--filter", "port 7"];
        assert_eq!(expression(&both).unwrap(), "(udp or tcp) and (port 7)");
    }

    #[test]
    fn options_reach_the_request() {
        let request = args(&["--netns", ""]).request("any");
        assert!(request.interfaces.is_empty() && request.netns.is_none());
        let words = ["--snaplen", "0", "--buffer-size", "64", "--netns", "lab1", "--promiscuous"];
        let request = args(&words).request("eth0");
        let netns = request.netns.map(|netns| netns.to_string());
        assert_eq!((request.interfaces, netns), (vec!["eth0".into()], Some("lab1".into())));
        let options = request.options;
        assert_eq!((options.snaplen, options.buffer_bytes), (Some(SNAPLEN_MAX), Some(65_536)));
        assert!(options.promiscuous);
    }
}
