//! Finds protocol and ports of a packet, once for all rules.

use sockbroker_bpf::Label;
use sockbroker_bpf::opcode::{
    ABS, ADD, ALU, AND, B, H, IMM, IND, JEQ, JGE, JMP, JSET, K, LD, LDX, LEN, LSH, MEM, MISC, RSH,
    ST, SUB, TXA, X,
};

use super::{
    INCOMPLETE, KNOWN_PORTS, Lowering, NO_PORTS, NO_PROTOCOL, NOT_IP, PacketStart, UNKNOWN_PORTS,
    UNKNOWN_PROTOCOL, UNKNOWN_TYPE, word,
};

/// Types of frames.
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86DD;
const TAGS: [u32; 3] = [0x8100, 0x88A8, 0x9100];
/// The most VLAN tags in a frame. The kernel keeps the outer tag apart.
const MAX_TAGS: u32 = 2;
/// The most extension headers of IPv6.
const MAX_EXTENSIONS: u32 = 8;
/// Protocols that begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u32; 5] = [6, 17, 33, 132, 136];
/// Extension headers of IPv6 with a length in units of 8 bytes.
const EXTENSIONS: [u32; 6] = [0, 43, 60, 135, 139, 140];
const FRAGMENT: u32 = 44;
const AUTHENTICATION: u32 = 51;

impl Lowering {
    /// Stores what rules compare in the memory.
    pub(super) fn headers(&mut self, start: PacketStart) {
        for word in 0..word::COUNT {
            self.store(word, 0);
        }
        self.store(word::FAMILY, NOT_IP);
        self.store(word::PROTOCOL, NO_PROTOCOL);
        let (four, six, found) = (self.code.label(), self.code.label(), self.code.label());
        let (transport, fragment) = (self.code.label(), self.code.label());
        match start {
            PacketStart::Ethernet => self.ethernet(four, six, found),
            PacketStart::Ip => {
                self.require(1, found);
                self.code.add(LD | B | ABS, 0);
                self.code.add(ALU | RSH | K, 4);
                let other = self.code.label();
                self.code.jump(JMP | JEQ | K, 4, None, Some(other));
                self.store(word::TYPE, IPV4);
                self.code.go(four);
                self.code.place(other);
                self.code.jump(JMP | JEQ | K, 6, None, Some(found));
                self.store(word::TYPE, IPV6);
                self.code.go(six);
            }
            PacketStart::Other => {
                self.code.place(four);
                self.code.place(six);
                self.code.place(found);
                // The broker does not know where the packet has what: it can be of any kind.
                self.store(word::TYPE, UNKNOWN_TYPE);
                self.incomplete();
                return;
            }
        }
        self.ipv4(four, transport, fragment, found);
        self.ipv6(six, transport, fragment, found);
        self.ports(transport, found);
        // A later fragment of a protocol with ports: only the first fragment shows them.
        self.code.place(fragment);
        self.load(word::PROTOCOL);
        for protocol in WITH_PORTS {
            self.code.jump(JMP | JEQ | K, protocol, Some(found), None);
        }
        self.store(word::PORTS, NO_PORTS);
        self.code.place(found);
    }

    fn ethernet(&mut self, four: Label, six: Label, found: Label) {
        let (network, broken) = (self.code.label(), self.code.label());
        self.require(14, broken);
        self.code.add(LD | H | ABS, 12);
        for tags in 0..=MAX_TAGS {
            let offset = 14 + 4 * tags;
            let tagged = self.code.label();
            for tag in TAGS {
                self.code.jump(JMP | JEQ | K, tag, Some(tagged), None);
            }
            self.code.add(ST, word::TYPE);
            self.store(word::NETWORK, offset);
            self.code.go(network);
            self.code.place(tagged);
            if tags < MAX_TAGS {
                self.require(offset + 4, broken);
                self.code.add(LD | H | ABS, offset + 2);
            }
        }
        // Without its type, a frame can be anything.
        self.code.place(broken);
        self.store(word::TYPE, UNKNOWN_TYPE);
        self.incomplete();
        self.code.go(found);
        self.code.place(network);
        self.load(word::TYPE);
        self.code.jump(JMP | JEQ | K, IPV4, Some(four), None);
        self.code.jump(JMP | JEQ | K, IPV6, Some(six), Some(found));
    }

    fn ipv4(&mut self, four: Label, transport: Label, fragment: Label, found: Label) {
        self.code.place(four);
        self.incomplete();
        self.header(20, 4, found);
        // The length of the header in words of four bytes.
        self.code.add(LD | B | IND, 0);
        self.code.add(ALU | AND | K, 0xF);
        self.code.add(ALU | LSH | K, 2);
        self.code.jump(JMP | JGE | K, 20, None, Some(found));
        self.code.add(ALU | ADD | X, 0);
        self.code.add(ST, word::TRANSPORT);
        self.store(word::FAMILY, 4);
        self.code.add(LD | B | IND, 9);
        self.code.add(ST, word::PROTOCOL);
        self.code.add(LD | H | IND, 6);
        self.code.jump(JMP | JSET | K, 0x1FFF, Some(fragment), Some(transport));
    }

    fn ipv6(&mut self, six: Label, transport: Label, fragment: Label, found: Label) {
        let (unknown, later) = (self.code.label(), self.code.label());
        self.code.place(six);
        self.incomplete();
        self.header(40, 6, found);
        self.store(word::FAMILY, 6);
        self.code.add(LD | B | IND, 6);
        self.code.add(ST, word::PROTOCOL);
        self.code.add(MISC | TXA, 0);
        self.code.add(ALU | ADD | K, 40);
        self.code.add(ST, word::TRANSPORT);
        for _ in 0..MAX_EXTENSIONS {
            self.extension(unknown, later, transport);
        }
        self.load(word::PROTOCOL);
        self.extensions(unknown);
        self.code.go(transport);
        // The protocol of a later fragment is that of its first extension header.
        self.code.place(later);
        self.code.add(LD | B | IND, 0);
        self.code.add(ST, word::PROTOCOL);
        self.extensions(unknown);
        self.code.go(fragment);
        self.code.place(unknown);
        self.store(word::PROTOCOL, UNKNOWN_PROTOCOL);
        self.code.go(found);
    }

    /// Goes to `unknown` if A is the number of an extension header.
    fn extensions(&mut self, unknown: Label) {
        for extension in EXTENSIONS.iter().chain(&[FRAGMENT, AUTHENTICATION]) {
            self.code.jump(JMP | JEQ | K, *extension, Some(unknown), None);
        }
    }

    /// Skips an extension header, or goes to `transport` if there is none.
    fn extension(&mut self, unknown: Label, later: Label, transport: Label) {
        let (general, fragment, authentication) =
            (self.code.label(), self.code.label(), self.code.label());
        let skip = self.code.label();
        self.load(word::PROTOCOL);
        for extension in EXTENSIONS {
            self.code.jump(JMP | JEQ | K, extension, Some(general), None);
        }
        self.code.jump(JMP | JEQ | K, FRAGMENT, Some(fragment), None);
        self.code.jump(JMP | JEQ | K, AUTHENTICATION, Some(authentication), Some(transport));
        self.code.place(general);
        self.require_transport(8, unknown);
        self.code.add(LD | B | IND, 1);
        self.code.add(ALU | ADD | K, 1);
        self.code.add(ALU | LSH | K, 3);
        self.code.go(skip);
        self.code.place(authentication);
        self.require_transport(8, unknown);
        self.code.add(LD | B | IND, 1);
        self.code.add(ALU | ADD | K, 2);
        self.code.add(ALU | LSH | K, 2);
        self.code.go(skip);
        self.code.place(fragment);
        self.require_transport(8, unknown);
        self.code.add(LD | H | IND, 2);
        self.code.jump(JMP | JSET | K, 0xFFF8, Some(later), None);
        self.code.add(LD | IMM, 8);
        // A is the length, and X the start of the header.
        self.code.place(skip);
        self.code.add(ALU | ADD | X, 0);
        self.code.add(ST, word::TRANSPORT);
        self.code.add(LD | B | IND, 0);
        self.code.add(ST, word::PROTOCOL);
    }

    fn ports(&mut self, transport: Label, found: Label) {
        let with_ports = self.code.label();
        self.code.place(transport);
        self.load(word::PROTOCOL);
        for protocol in WITH_PORTS {
            self.code.jump(JMP | JEQ | K, protocol, Some(with_ports), None);
        }
        self.store(word::PORTS, NO_PORTS);
        self.code.go(found);
        self.code.place(with_ports);
        self.require_transport(4, found);
        self.code.add(LD | H | IND, 0);
        self.code.add(ST, word::SOURCE_PORT);
        self.code.add(LD | H | IND, 2);
        self.code.add(ST, word::DESTINATION_PORT);
        self.store(word::PORTS, KNOWN_PORTS);
        self.code.go(found);
    }

    /// What is known of IP before its header is complete.
    fn incomplete(&mut self) {
        self.store(word::FAMILY, INCOMPLETE);
        self.store(word::PROTOCOL, UNKNOWN_PROTOCOL);
        self.store(word::PORTS, UNKNOWN_PORTS);
    }

    /// Loads the start of the IP header into X, and goes to `fails` unless it has these bytes and this version.
    fn header(&mut self, bytes: u32, version: u32, fails: Label) {
        self.code.add(LDX | MEM, word::NETWORK);
        self.code.add(LD | LEN, 0);
        self.code.add(ALU | SUB | X, 0);
        self.code.jump(JMP | JGE | K, bytes, None, Some(fails));
        self.code.add(LD | B | IND, 0);
        self.code.add(ALU | RSH | K, 4);
        self.code.jump(JMP | JEQ | K, version, None, Some(fails));
    }

    /// Goes to `fails` unless the packet has these bytes.
    fn require(&mut self, bytes: u32, fails: Label) {
        self.code.add(LD | LEN, 0);
        self.code.jump(JMP | JGE | K, bytes, None, Some(fails));
    }

    /// Loads the start of the header behind that of IP into X, and goes to `fails` unless it has these bytes.
    fn require_transport(&mut self, bytes: u32, fails: Label) {
        self.load(word::TRANSPORT);
        self.code.add(ALU | ADD | K, bytes);
        self.code.add(ST, word::SCRATCH);
        self.code.add(LDX | MEM, word::SCRATCH);
        self.code.add(LD | LEN, 0);
        self.code.jump(JMP | JGE | X, 0, None, Some(fails));
        self.code.add(LDX | MEM, word::TRANSPORT);
    }

    pub(super) fn store(&mut self, word: u32, number: u32) {
        self.code.add(LD | IMM, number);
        self.code.add(ST, word);
    }
}
