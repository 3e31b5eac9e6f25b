//! Facts of a packet that both the writer and the reader use.

/// The direction of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not known.
    #[default]
    Unknown,
    /// Received.
    Inbound,
    /// Sent by this host.
    Outbound,
}

/// The kind of destination of a received packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reception {
    /// Not known.
    #[default]
    Unspecified,
    /// To this host.
    Unicast,
    /// To a multicast group.
    Multicast,
    /// To all hosts of the link.
    Broadcast,
    /// To another host, captured in promiscuous mode.
    Promiscuous,
}

/// The value of `epb_flags`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketFlags(pub u32);

impl PacketFlags {
    /// Joins a direction and a kind of destination.
    pub const fn new(direction: Direction, reception: Reception) -> Self {
        let direction = match direction {
            Direction::Unknown => 0,
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        let reception = match reception {
            Reception::Unspecified => 0,
            Reception::Unicast => 1,
            Reception::Multicast => 2,
            Reception::Broadcast => 3,
            Reception::Promiscuous => 4,
        };
        Self(reception << 2 | direction)
    }

    /// The direction: the lowest two bits.
    pub const fn direction(self) -> Direction {
        match self.0 & 0b11 {
            1 => Direction::Inbound,
            2 => Direction::Outbound,
            _ => Direction::Unknown,
        }
    }

    /// The kind of destination: the next three bits.
    pub const fn reception(self) -> Reception {
        match self.0 >> 2 & 0b111 {
            1 => Reception::Unicast,
            2 => Reception::Multicast,
            3 => Reception::Broadcast,
            4 => Reception::Promiscuous,
            _ => Reception::Unspecified,
        }
    }
}

/// The process of the socket that sent or receives a packet (`epb_processid_threadid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// The process id; 0 if it is not known.
    pub process: u32,
    /// The thread id; 0 if it is not known.
    pub thread: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_direction_and_reception() {
        use Direction::{Inbound, Outbound, Unknown};
        use Reception::{Broadcast, Multicast, Promiscuous, Unicast, Unspecified};
        for direction in [Unknown, Inbound, Outbound] {
            for reception in [Unspecified, Unicast, Multicast, Broadcast, Promiscuous] {
                let flags = PacketFlags::new(direction, reception);
                assert_eq!((flags.direction(), flags.reception()), (direction, reception));
            }
        }
        // The numbers of the draft, section 4.3.1.
        assert_eq!(PacketFlags::new(Inbound, Unicast).0, 0b00101);
        assert_eq!(PacketFlags::new(Outbound, Unspecified).0, 0b00010);
        assert_eq!(PacketFlags::new(Inbound, Promiscuous).0, 0b10001);
    }
}
