//! The file of a capture, read back.

/// The blocks of a file, each with its type.
pub(super) struct Pcapng(pub(super) Vec<(u32, Vec<u8>)>);

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A packet of a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) interface: u32,
    pub(super) data: Vec<u8>,
    pub(super) length: u32,
    pub(super) dropped: u64,
    pub(super) flags: u32,
}

impl Pcapng {
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut blocks = Vec::new();
        // The last block of a stream that was cut is not complete.
        while bytes.len() >= 12 && bytes.len() >= word(bytes, 4) as usize {
            let (block, rest) = bytes.split_at(word(bytes, 4) as usize);
            blocks.push((word(block, 0), block[8..block.len() - 4].to_vec()));
            bytes = rest;
        }
        Self(blocks)
    }

    pub(super) fn packets(&self) -> Vec<Found> {
        let packets = self.0.iter().filter(|(kind, _)| *kind == 6);
        let found = packets.map(|(_, body)| {
            let (captured, length) = (word(body, 12) as usize, word(body, 16));
            let options = options(&body[20 + captured.next_multiple_of(4)..]);
            let number = |code| options.iter().find(|(found, _)| *found == code);
            let dropped = number(4)
                .map_or(0, |(_, value)| u64::from_le_bytes(value.as_slice().try_into().unwrap()));
            let flags = number(2).map_or(0, |(_, value)| word(value, 0));
            let data = body[20..20 + captured].to_vec();
            Found { interface: word(body, 0), data, length, dropped, flags }
        });
        found.collect()
    }

    /// The last values of `isb_ifrecv`, `isb_ifdrop` and `isb_usrdeliv`, and the comment.
    pub(super) fn statistics(&self) -> ([u64; 3], String) {
        let (_, body) = self.0.iter().rfind(|(kind, _)| *kind == 5).unwrap();
        let options = options(&body[12..]);
        let value = |code| {
            let (_, value) = options.iter().find(|(found, _)| *found == code).unwrap();
            value.clone()
        };
        let count = |code| u64::from_le_bytes(value(code).try_into().unwrap());
        ([count(4), count(5), count(8)], String::from_utf8(value(1)).unwrap())
    }

    pub(super) fn interfaces(&self) -> Vec<String> {
        let blocks = self.0.iter().filter(|(kind, _)| *kind == 1);
        let name = |(_, body): &(u32, Vec<u8>)| {
            let options = options(&body[8..]);
            let (_, name) = options.into_iter().find(|(code, _)| *code == 2).unwrap();
            String::from_utf8(name).unwrap()
        };
        blocks.map(name).collect()
    }
}

pub(super) fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while bytes.len() >= 4 {
        let (head, length) = (word(bytes, 0), (word(bytes, 0) >> 16) as usize);
        options.push((u16::try_from(head & 0xffff).unwrap(), bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    options
}
