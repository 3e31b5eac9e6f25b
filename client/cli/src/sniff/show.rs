//! Prints a packet as a line of text or JSON.

use serde_json::json;

use super::decode;
use super::link::{LinkHeader, PacketType};
use super::packet::{COOKED_HEADER, Received, SECOND};
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn show(
    screen: &mut Screen,
    packet: &Received,
    kind: LinkHeader,
    as_json: bool,
) -> Result<(), Failure> {
    let described = describe(packet, kind);
    let Received { interface, length, .. } = packet;
    if as_json {
        return screen.line(json!({
            "time": format!("{}.{:09}", packet.time / SECOND, packet.time % SECOND),
            "interface": interface,
            "direction": packet.packet_type.word(),
            "length": length,
            "packet": described,
        }));
    }
    let time = time_of_day(packet.time);
    let arrow = if packet.packet_type == PacketType::Outgoing { "out" } else { "in " };
    screen.line(format_args!("{time} {interface} {arrow} {described}"))
}

fn describe(packet: &Received, kind: LinkHeader) -> String {
    match kind {
        LinkHeader::Ethernet => decode::ethernet(&packet.data),
        LinkHeader::Cooked => {
            let payload = packet.data.get(COOKED_HEADER as usize..).unwrap_or_default();
            decode::payload(packet.protocol, payload)
        }
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
