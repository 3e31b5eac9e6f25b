//! The answers to the questions of Wireshark, on standard output.

use super::args::ExtcapArgs;
use super::brokers;
use super::control::{FILTER, INTERFACE, LOG};
use super::interface::Interface;
use super::names::ALL;
use super::resolve::resolve;
use super::sentence::Sentence;
use crate::failure::{Exit, Failure};
use crate::screen::Screen;
use crate::sniff::filter::Filter;

/// Where Wireshark finds help.
const HELP: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "#wireshark");
/// The option that reload values are listed for.
const RELOADABLE: &str = "interface";

/// `--extcap-interfaces`: the interfaces, and the controls of the toolbar.
pub(super) fn interfaces() -> Result<Exit, Failure> {
    let version = Sentence::new("extcap").with("version", env!("CARGO_PKG_VERSION"));
    let mut sentences = vec![version.with("help", HELP)];
    for interface in brokers::interfaces()?.iter().chain([&Interface::Chosen]) {
        let sentence = Sentence::new("interface").with("value", interface.value());
        sentences.push(sentence.with("display", interface.display()));
    }
    let control = |number: u8, kind: &str, display: &str, tooltip: &str| {
        let sentence = Sentence::new("control").with("number", number).with("type", kind);
        sentence.with("display", display).with("tooltip", tooltip)
    };
    let captured = "Continue the capture on this interface of the same broker";
    sentences.push(control(INTERFACE, "selector", "Interface", captured));
    let filter = "Capture only packets that this expression selects from now on (pcap-filter)";
    sentences.push(
        control(FILTER, "string", "Capture filter", filter).with("placeholder", "udp port 67"),
    );
    let log = "Show what was changed during the capture";
    sentences.push(control(LOG, "button", "Log", log).with("role", "logger"));
    print(&sentences)
}

/// `--extcap-dlts`: the link type. Wireshark requires one, and reads the true one of each interface from the capture.
pub(super) fn link_types() -> Result<Exit, Failure> {
    let sentence = Sentence::new("dlt").with("number", 1).with("name", "EN10MB");
    print(&[sentence.with("display", "Ethernet, or as the capture states")])
}

/// `--extcap-config`: the options of the interface, or the values of one of them.
pub(super) fn options(args: &ExtcapArgs, interface: &Interface) -> Result<Exit, Failure> {
    let is_chosen = *interface == Interface::Chosen;
    match args.extcap_reload_option.as_deref().map(|option| option.trim_start_matches('-')) {
        None => {}
        Some(RELOADABLE) if is_chosen => {
            let (endpoint, _) = resolve(interface, args)?;
            let names = brokers::names(&endpoint, args.netns().as_ref())?;
            let value = |name: &String| choice(CHOSEN_INTERFACE, name, name, name == ALL);
            return print(&names.iter().map(value).collect::<Vec<_>>());
        }
        Some(option) => {
            return Err(Failure::usage(format!(
                "cannot list values of the option {option} of {}: it has no values to reload",
                interface.value()
            )));
        }
    }
    let mut sentences = Vec::new();
    if is_chosen {
        let tooltip = "unix:PATH or ssh://HOST; the default is that of sockbroker --broker";
        let broker = option(0, "broker", "Broker", "string", tooltip);
        sentences.push(broker.with("placeholder", "ssh://lab7"));
        let tooltip = "Reload lists the interfaces of the broker";
        let interface = option(CHOSEN_INTERFACE, RELOADABLE, "Interface", "selector", tooltip);
        sentences.push(interface.with("reload", true).with("placeholder", "Load interfaces"));
        sentences.push(choice(CHOSEN_INTERFACE, ALL, "all interfaces", true));
    }
    sentences.extend(common_options());
    print(&sentences)
}

/// The number of the option for the interface of a chosen broker.
const CHOSEN_INTERFACE: u8 = 1;

/// The options that all interfaces have.
fn common_options() -> Vec<Sentence> {
    let promiscuous = "Capture packets for other hosts too, if the interface receives them";
    let filter = "Both this expression and the capture filter must match; for programs that pass no capture filter";
    let netns = "A name of `ip netns list` on the machine of the broker";
    vec![
        option(2, "promiscuous", "Promiscuous mode", "boolflag", promiscuous).with("default", true),
        option(3, "snaplen", "Bytes of each packet", "integer", "The most bytes to keep")
            .with("range", "0,262144")
            .with("default", 262_144),
        option(4, "direction", "Direction", "selector", "Which packets are captured"),
        choice(4, "inout", "received and sent", true),
        choice(4, "in", "received", false),
        choice(4, "out", "sent", false),
        option(5, "buffer-size", "Buffer of the kernel (KiB)", "integer", "Room for bursts")
            .with("range", "64,4194303")
            .with("default", 16_384),
        option(6, "netns", "Network namespace", "string", netns),
        option(7, "filter", "Further filter", "string", filter).with("placeholder", "udp port 67"),
        option(8, "log-level", "Log level", "selector", "Which messages the log file gets")
            .with("group", "Debug"),
        choice(8, "message", "all", true),
        choice(8, "warning", "errors", false),
        option(9, "log-file", "Log file", "fileselect", "Where to append messages")
            .with("mustexist", false)
            .with("group", "Debug"),
    ]
}

/// An option of the command line that Wireshark offers.
fn option(number: u8, call: &str, display: &str, kind: &str, tooltip: &str) -> Sentence {
    let sentence = Sentence::new("arg").with("number", number).with("call", format!("--{call}"));
    sentence.with("display", display).with("type", kind).with("tooltip", tooltip)
}

/// A value of an option.
fn choice(option: u8, value: &str, display: &str, is_default: bool) -> Sentence {
    let sentence = Sentence::new("value").with("arg", option).with("value", value);
    sentence.with("display", display).with("default", is_default)
}

/// Checks a filter expression: prints nothing if it can be used, else the reason.
pub(super) fn filter(expression: &str) -> Result<Exit, Failure> {
    if !expression.trim().is_empty()
        && let Err(failure) = Filter::compile(expression.to_owned())
    {
        Screen::new().line(failure)?;
    }
    // Wireshark reads the output only of a program that has succeeded.
    Ok(Exit::Done)
}

fn print(sentences: &[Sentence]) -> Result<Exit, Failure> {
    let mut screen = Screen::new();
    sentences.iter().try_for_each(|sentence| screen.line(sentence))?;
    Ok(Exit::Done)
}
