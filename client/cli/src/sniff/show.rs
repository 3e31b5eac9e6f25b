//! Prints a packet as a line of text or JSON.

use serde_json::json;

use super::decode;
use super::packet::{COOKED_HEADER, Received, SECOND};
use super::pcapng::{Direction, LinkType};
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn show(
    screen: &mut Screen,
    packet: &Received,
    kind: LinkType,
    as_json: bool,
) -> Result<(), Failure> {
    let described = describe(packet, kind);
    let Received { interface, length, .. } = packet;
    if as_json {
        return screen.line(json!({
            "time": format!("{}.{:09}", packet.time / SECOND, packet.time % SECOND),
            "interface": interface,
            "direction": word(packet.direction),
            "length": length,
            "packet": described,
        }));
    }
    let time = time_of_day(packet.time);
    let arrow = if packet.direction == Direction::Outgoing { "out" } else { "in " };
    screen.line(format_args!("{time} {interface} {arrow} {described}"))
}

fn describe(packet: &Received, kind: LinkType) -> String {
    match kind {
        LinkType::Ethernet => decode::ethernet(&packet.data),
        LinkType::Cooked => {
            let payload = packet.data.get(COOKED_HEADER as usize..).unwrap_or_default();
            decode::payload(packet.protocol, payload)
        }
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Unicast => "unicast",
        Direction::Broadcast => "broadcast",
        Direction::Multicast => "multicast",
        Direction::Promiscuous => "promiscuous",
        Direction::Outgoing => "outgoing",
    }
}

/// Formats the time of day in UTC, with microseconds.
fn time_of_day(time: u64) -> String {
    let seconds = time / SECOND;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, time % SECOND / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_with_microseconds() {
        let time = ((23 * 60 + 5) * 60 + 9) * SECOND + 1_234_999;
        assert_eq!(time_of_day(86_400 * SECOND * 3 + time), "23:05:09.001234");
    }
}
