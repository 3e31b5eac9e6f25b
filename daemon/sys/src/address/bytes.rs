//! Writes and reads the fields of an address.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// The size of `sockaddr_storage` (`socket(7)`): no address is longer.
pub const CAPACITY: usize = 128;

/// An address under construction. Drops everything beyond [`CAPACITY`].
pub(super) struct Builder {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Builder {
    /// Starts with `sa_family` in host order.
    pub(super) fn new(family: u16) -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }.put(&family.to_ne_bytes())
    }

    pub(super) fn put(mut self, bytes: &[u8]) -> Self {
        let free = self.bytes.iter_mut().skip(self.length);
        for (slot, byte) in free.zip(bytes) {
            *slot = *byte;
        }
        self.advance(bytes.len())
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.put(&[value])
    }

    /// Appends 16 bits in host order.
    pub(super) fn u16(self, value: u16) -> Self {
        self.put(&value.to_ne_bytes())
    }

    /// Appends 16 bits in network order.
    pub(super) fn be16(self, value: u16) -> Self {
        self.put(&value.to_be_bytes())
    }

    /// Appends 16 bits in Bluetooth's byte order, little-endian.
    pub(super) fn le16(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends 32 bits in host order.
    pub(super) fn u32(self, value: u32) -> Self {
        self.put(&value.to_ne_bytes())
    }

    /// Appends 32 bits in network order.
    pub(super) fn be32(self, value: u32) -> Self {
        self.put(&value.to_be_bytes())
    }

    /// Appends 64 bits in host order.
    pub(super) fn u64(self, value: u64) -> Self {
        self.put(&value.to_ne_bytes())
    }

    /// Appends an array of `size` bytes: `text` truncated to `size - 1` bytes, then NULs.
    pub(super) fn text(self, text: &[u8], size: usize) -> Self {
        let end = self.length.saturating_add(size);
        let cut = text.get(..size.saturating_sub(1)).unwrap_or(text);
        self.put(cut).pad_to(end)
    }

    /// Appends zeros until the address has `length` bytes.
    pub(super) fn pad_to(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.length);
        self.advance(missing)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }

    /// Adds `count` bytes that are already written, or zero, to the length.
    fn advance(mut self, count: usize) -> Self {
        self.length = self.length.saturating_add(count).min(CAPACITY);
        self
    }
}

/// The fields of an address that are not read yet. Each method reads one, or returns `None` if too few
/// bytes are left.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that are left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_ne_bytes)
    }

    /// 16 bits in host order.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    /// 16 bits in network order.
    pub(super) fn be16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// 16 bits in Bluetooth's byte order, little-endian.
    pub(super) fn le16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// 32 bits in host order.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    /// 32 bits in network order.
    pub(super) fn be32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// 64 bits in host order.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// The bytes before the first NUL, or all bytes.
pub(super) fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}
