//! The size of a ring, and of its parts.

/// How the kernel fills a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each packet is visible at once (`TPACKET_V2`).
    Prompt,
    /// Packets become visible in blocks, when a block is full or eight milliseconds old (`TPACKET_V3`). It costs less for
    /// each packet.
    Bulk,
}

/// A ring consists of blocks, and a block of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub mode: Mode,
    pub block_bytes: u32,
    pub blocks: u32,
    /// In bulk mode packets have no slots of this size, and it does not matter.
    pub slot_bytes: u32,
}

/// The sizes of blocks. The largest page is 64 KiB, and a block consists of pages.
const PROMPT_BLOCK: u32 = 64 << 10;
const BULK_BLOCK: u32 = 128 << 10;
/// The smallest and the largest slot.
const SMALLEST: u32 = 256;
const LARGEST: u32 = 16 << 10;
/// The bytes of a slot in front of the packet.
const HEADER: u32 = 96;
/// The milliseconds after which a block is passed that is not full.
const BLOCK_AGE: u32 = 8;

impl Geometry {
    /// A ring of at most this number of bytes, for packets of this length; `None` if there is not one.
    pub fn new(mode: Mode, bytes: u64, longest: u32) -> Option<Self> {
        let (block_bytes, slot_bytes) = match mode {
            Mode::Prompt => {
                let slot = longest.saturating_add(HEADER).clamp(SMALLEST, LARGEST);
                (PROMPT_BLOCK, slot.next_power_of_two())
            }
            Mode::Bulk => (BULK_BLOCK, 2 << 10),
        };
        // A bulk ring of one block could not be filled while it is read.
        let fewest = match mode {
            Mode::Prompt => 1,
            Mode::Bulk => 2,
        };
        let blocks = u32::try_from(bytes / u64::from(block_bytes)).ok()?;
        // The kernel counts the bytes of a ring in 32 bits.
        let fits = blocks >= fewest && block_bytes.checked_mul(blocks).is_some();
        fits.then_some(Self { mode, block_bytes, blocks, slot_bytes })
    }

    /// Whether the parts fit together.
    pub fn is_valid(&self) -> bool {
        Self::new(self.mode, self.bytes() as u64, self.slot_bytes.saturating_sub(HEADER))
            .is_some_and(|valid| valid == *self)
    }

    /// The bytes of the ring.
    pub fn bytes(&self) -> usize {
        self.block_bytes as usize * self.blocks as usize
    }

    /// The slots of one block.
    pub(super) fn slots_of_block(&self) -> u32 {
        self.block_bytes / self.slot_bytes
    }

    /// `struct tpacket_req` or `struct tpacket_req3` of `linux/if_packet.h`.
    pub(super) fn request(&self) -> Vec<u8> {
        let slots = self.slots_of_block().saturating_mul(self.blocks);
        let common = [self.block_bytes, self.blocks, self.slot_bytes, slots];
        let more = match self.mode {
            Mode::Prompt => &[][..],
            // Age of a block, private bytes, features.
            Mode::Bulk => &[BLOCK_AGE, 0, 0],
        };
        common.iter().chain(more).flat_map(|word| word.to_ne_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fit_packets_and_blocks_fit_the_ring() {
        let slot = |longest| Geometry::new(Mode::Prompt, 8 << 20, longest).unwrap().slot_bytes;
        assert_eq!([slot(0), slot(64), slot(161), slot(1518)], [256, 256, 512, 2048]);
        assert_eq!(slot(u32::MAX), 16 << 10);
        let ring = Geometry::new(Mode::Prompt, (8 << 20) + 5, 1518).unwrap();
        assert_eq!((ring.bytes(), ring.blocks, ring.slots_of_block()), (8 << 20, 128, 32));
        assert!(ring.is_valid());
        assert!(!Geometry { slot_bytes: 100, ..ring }.is_valid());
        assert!(!Geometry { block_bytes: 1, ..ring }.is_valid());
        assert!(Geometry::new(Mode::Bulk, 8 << 20, 64).unwrap().is_valid());
    }

    #[test]
    fn rings_that_are_too_small_or_too_large_do_not_exist() {
        assert_eq!(Geometry::new(Mode::Prompt, (64 << 10) - 1, 64), None);
        assert_eq!(Geometry::new(Mode::Bulk, (256 << 10) - 1, 64), None);
        assert_eq!(Geometry::new(Mode::Prompt, 4 << 30, 64), None);
        assert!(Geometry::new(Mode::Prompt, (4 << 30) - 1, 64).is_some());
    }
}
