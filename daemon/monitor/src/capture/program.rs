//! The program of a capture's socket: what rules let through, and then the program of the client.

use sockbroker_bpf::opcode::{K, RET};
use sockbroker_bpf::{Instruction, Program};
use sockbroker_pcapng::LinkType;
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::lowering::{self, LoweringError, PacketStart, Packets, Section};

use super::interfaces::{BEGIN_WITH_IP, link_type};
use super::order::{Direction, Interface, Order};

/// Hardware types (`linux/if_arp.h`) whose packets begin with an Ethernet header.
const BEGIN_WITH_ETHERNET: [u16; 2] = [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK];

/// The program for an order, on the interfaces that it names. The scopes are those of its permit.
pub fn joined(
    order: &Order,
    interfaces: &[Interface],
    scopes: &[CaptureScope],
) -> Result<Vec<u8>, LoweringError> {
    let client = client(order)?;
    let direction = match order.direction {
        Direction::In => lowering::Direction::Received,
        Direction::Out => lowering::Direction::Sent,
        Direction::Both if order.duplicates => lowering::Direction::Both,
        Direction::Both => lowering::Direction::LoopbackOnce,
    };
    let sections = sections(interfaces, scopes);
    lowering::join(&sections, direction, order.snaplen, &client).map(|program| program.encode())
}

/// The program of the client behind what a scope lets through of any interface. A worker makes it for a session that has
/// restrictions, which the opener does not know.
pub fn restricted(order: &Order, scope: &CaptureScope) -> Result<Vec<u8>, LoweringError> {
    let sections = sections(&[], std::slice::from_ref(scope));
    let both = lowering::Direction::Both;
    let joined = lowering::join(&sections, both, order.snaplen, &client(order)?);
    joined.map(|program| program.encode())
}

/// The program of the client.
fn client(order: &Order) -> Result<Program, LoweringError> {
    let bytes = &order.program;
    if bytes.is_empty() {
        return Ok(Program(vec![Instruction::new(RET | K, order.snaplen)]));
    }
    // A part of an instruction is an empty program, which is refused.
    let client = Program::decode(bytes).unwrap_or(Program(Vec::new()));
    client.check().map_err(LoweringError::Client)?;
    Ok(client)
}

/// The rules about each interface, or about each kind of interface.
fn sections<'a>(interfaces: &[Interface], scopes: &'a [CaptureScope]) -> Vec<Section<'a>> {
    if !interfaces.is_empty() {
        let sections = interfaces.iter().zip(scopes).map(|(interface, scope)| Section {
            packets: Packets::OfInterface(interface.index),
            start: start(interface.hardware),
            scope,
        });
        return sections.collect();
    }
    let sections = scopes.iter().flat_map(|scope| {
        let others = Section { packets: Packets::Others, start: PacketStart::Other, scope };
        let ethernet = Section {
            packets: Packets::OfHardware(&BEGIN_WITH_ETHERNET),
            start: PacketStart::Ethernet,
            scope,
        };
        let ip =
            Section { packets: Packets::OfHardware(&BEGIN_WITH_IP), start: PacketStart::Ip, scope };
        // They differ in where the rules look for addresses.
        let needed = if scope.is_everything() { 1 } else { 3 };
        [others, ip, ethernet].into_iter().take(needed).rev()
    });
    sections.collect()
}

fn start(hardware: u16) -> PacketStart {
    match link_type(hardware) {
        LinkType::ETHERNET => PacketStart::Ethernet,
        LinkType::RAW => PacketStart::Ip,
        _ => PacketStart::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PROGRAM_MAX;
    use crate::capture::tests::{everything, order};

    fn returns(numbers: &[u32]) -> Vec<u8> {
        Program(numbers.iter().map(|number| Instruction::new(RET | K, *number)).collect()).encode()
    }

    #[test]
    fn returned_lengths_are_at_most_the_snaplen() {
        let program = returns(&[0, 64, u32::MAX]);
        let order = Order { program, snaplen: 100, duplicates: true, ..order() };
        let joined = joined(&order, &[], &everything()).unwrap();
        assert!(joined.ends_with(&returns(&[0, 64, 100])), "{joined:?}");
    }

    #[test]
    fn a_program_that_is_too_long_with_the_rules_is_refused() {
        let joined = |count: usize| {
            let order = Order { program: Program::none().encode().repeat(count), ..order() };
            joined(&order, &[Interface { index: 1, hardware: 772 }], &everything())
        };
        let refused = joined(4096).unwrap_err();
        assert!(matches!(refused, LoweringError::TooLong { client: 4096, .. }), "{refused}");
        let LoweringError::TooLong { rules, .. } = refused else { return };
        assert_eq!(joined(4096 - rules).unwrap().len(), PROGRAM_MAX);
        assert!(joined(4097 - rules).is_err());
    }

    #[test]
    fn an_interface_that_no_scope_is_about_shows_nothing() {
        let (index, hardware) = (1, 1);
        let interfaces = [Interface { index, hardware }, Interface { index: 2, hardware }];
        assert_eq!(sections(&interfaces, &everything()[..1]).len(), 1);
    }
}
