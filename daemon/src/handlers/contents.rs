//! The contents of a message: the addresses and interfaces that its data and its ancillary data name.

use sockbroker_proto::address::Address;

use sockbroker_policy::action::MessageContents;
use sockbroker_policy::membership::packet_info;

/// What a call sends.
#[derive(Debug)]
pub(super) enum Payload {
    /// A message.
    Message(MessageContents),
    /// A file. The broker does not read its contents, so netlink messages in it are unknown.
    File,
}

impl Payload {
    /// A message of one buffer, without ancillary data.
    pub(super) fn of(data: bytes::Bytes, flags: i32) -> Self {
        Self::Message(MessageContents { buffers: vec![data], ancillary: Vec::new(), flags })
    }

    /// The data in one piece; `None` for a file.
    pub(super) fn data(&self) -> Option<bytes::Bytes> {
        match self {
            Self::Message(MessageContents { buffers, .. }) => Some(match buffers.as_slice() {
                [data] => data.clone(),
                parts => parts.concat().into(),
            }),
            Self::File => None,
        }
    }

    pub(super) fn into_contents(self) -> MessageContents {
        match self {
            Self::Message(contents) => contents,
            Self::File => MessageContents::default(),
        }
    }
}

/// The sizes and flags of a receiving call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The most bytes of each message.
    pub(super) length: usize,
    /// The most bytes of ancillary data of each message.
    pub(super) ancillary: usize,
    /// `MSG_*`.
    pub(super) flags: i32,
}

/// The source address and the interface that one item of ancillary data names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) source: Option<Address>,
    pub(super) interface: u32,
}

impl Named {
    pub(super) fn of(level: i32, kind: i32, data: &[u8]) -> Option<Self> {
        packet_info(level, kind, data).map(|(source, interface)| Self { source, interface })
    }
}
