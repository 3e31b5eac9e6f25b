//! Numbers of the formats: types of blocks, codes of options, magic numbers, limits.

/// Types of blocks.
pub(crate) const SECTION_HEADER: u32 = 0x0A0D_0D0A;
pub(crate) const INTERFACE_DESCRIPTION: u32 = 1;
/// The obsolete packet block, whose number of the interface has 16 bits.
pub(crate) const PACKET: u32 = 2;
pub(crate) const SIMPLE_PACKET: u32 = 3;
pub(crate) const INTERFACE_STATISTICS: u32 = 5;
pub(crate) const ENHANCED_PACKET: u32 = 6;

/// The number by which a reader recognizes the byte order of a section.
pub(crate) const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;

/// Type and length in front of each body, and the length behind it.
pub(crate) const BLOCK_OVERHEAD: usize = 12;
/// The length of the fields of a section header in front of its options.
pub(crate) const SECTION_FIELDS: usize = 16;
/// The maximum length of a block, as in libpcap (`MAX_BLOCKSIZE` in `sf-pcapng.c`).
pub const MAX_BLOCK_BYTES: usize = 16 << 20;
/// The maximum number of interfaces of a section.
pub const MAX_INTERFACES: usize = 65_536;

/// Options of all blocks.
pub(crate) const END_OF_OPTIONS: u16 = 0;
pub(crate) const COMMENT: u16 = 1;
/// Options of the section header.
pub(crate) const SHB_HARDWARE: u16 = 2;
pub(crate) const SHB_OS: u16 = 3;
pub(crate) const SHB_USERAPPL: u16 = 4;
/// Options of an interface description.
pub(crate) const IF_NAME: u16 = 2;
pub(crate) const IF_DESCRIPTION: u16 = 3;
pub(crate) const IF_MACADDR: u16 = 6;
pub(crate) const IF_SPEED: u16 = 8;
pub(crate) const IF_TSRESOL: u16 = 9;
pub(crate) const IF_FILTER: u16 = 11;
pub(crate) const IF_OS: u16 = 12;
pub(crate) const IF_TSOFFSET: u16 = 14;
pub(crate) const IF_HARDWARE: u16 = 15;
/// Options of a packet.
pub(crate) const EPB_FLAGS: u16 = 2;
pub(crate) const EPB_DROPCOUNT: u16 = 4;
pub(crate) const EPB_PROCESSID_THREADID: u16 = 8;
/// Options of statistics.
pub(crate) const ISB_STARTTIME: u16 = 2;
pub(crate) const ISB_ENDTIME: u16 = 3;
pub(crate) const ISB_IFRECV: u16 = 4;
pub(crate) const ISB_IFDROP: u16 = 5;
pub(crate) const ISB_FILTERACCEPT: u16 = 6;
pub(crate) const ISB_OSDROP: u16 = 7;
pub(crate) const ISB_USRDELIV: u16 = 8;

/// The magic numbers of pcap, with microseconds and with nanoseconds.
pub(crate) const PCAP_MICROSECONDS: u32 = 0xA1B2_C3D4;
pub(crate) const PCAP_NANOSECONDS: u32 = 0xA1B2_3C4D;
