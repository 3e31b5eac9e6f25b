//! The messages between the processes of the broker: any record is exactly one message, or nonsense.
//!
//! An input has three bytes before the record: the type of the message, what happened to the record on its way, and the
//! number of its descriptors.

use std::fmt::Debug;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use sockbroker_monitor::caller::message::{FromCaller, ToCaller, UnixAnswer, UnixCall};
use sockbroker_monitor::channel::{ChannelError, Message, decode};
use sockbroker_monitor::message::gateway::{FromGateway, ToGateway};
use sockbroker_monitor::message::{
    FromOpener, FromPolicyReader, FromReaper, ToMonitor, ToOpener, ToPolicyReader, ToReaper,
    ToWorker,
};
use sockbroker_monitor::reader::message::{ReaderAnswer, ReaderOrder, ReaderReport, ToReader};
use sockbroker_monitor::request::{Answer, OpenerRequest};
use sockbroker_sys::record::Record;

/// What happens to a record on its way.
const TRUNCATED: u8 = 1;
const LOST_DESCRIPTORS: u8 = 2;
/// More descriptors than the kernel passes with one record (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;

/// The types of messages, by the first byte of an input.
const TYPES: [fn(&Arrival<'_>); 20] = [
    check::<ToWorker>,
    check::<ToMonitor>,
    check::<ToOpener>,
    check::<FromOpener>,
    check::<FromPolicyReader>,
    check::<ToReaper>,
    check::<FromReaper>,
    check::<ToPolicyReader>,
    check::<OpenerRequest>,
    check::<Answer>,
    check::<ToCaller>,
    check::<FromCaller>,
    check::<UnixCall>,
    check::<UnixAnswer>,
    check::<ToReader>,
    check::<ReaderAnswer>,
    check::<ReaderOrder>,
    check::<ReaderReport>,
    check::<ToGateway>,
    check::<FromGateway>,
];

/// Reads the bytes as a message of one type.
pub fn body(data: &[u8]) {
    let [kind, way, descriptors, record @ ..] = data else { return };
    let arrival = Arrival {
        bytes: record,
        truncated: way & TRUNCATED != 0,
        lost_descriptors: way & LOST_DESCRIPTORS != 0,
        descriptors: usize::from(*descriptors),
    };
    if let Some(check) = TYPES.get(usize::from(*kind)) {
        check(&arrival);
    }
}

/// An input that is this message of the type with this number.
pub fn seed(kind: u8, message: &impl Message) -> Vec<u8> {
    let descriptors = u8::try_from(message.descriptors()).unwrap_or_default();
    [&[kind, 0, descriptors][..], &encode(message)].concat()
}

/// A record as it arrives.
#[derive(Debug, Clone, Copy)]
struct Arrival<'a> {
    bytes: &'a [u8],
    truncated: bool,
    lost_descriptors: bool,
    descriptors: usize,
}

impl Arrival<'_> {
    fn record(&self) -> Record {
        Record {
            bytes: self.bytes.into(),
            descriptors: (0..self.descriptors).filter_map(|_| descriptor()).collect(),
            truncated: self.truncated,
            lost_descriptors: self.lost_descriptors,
        }
    }
}

fn check<M: Message + PartialEq + Debug>(arrival: &Arrival<'_>) {
    match decode::<M>(arrival.record()) {
        Ok((message, descriptors)) => {
            assert!(!arrival.truncated && !arrival.lost_descriptors, "{message:?}");
            assert_eq!(descriptors.len(), arrival.descriptors, "{message:?}");
            assert_eq!(message.descriptors(), arrival.descriptors, "{message:?}");
            check_message(&message);
        }
        Err(ChannelError::LostDescriptors { message, descriptors }) => {
            assert!(arrival.lost_descriptors && !arrival.truncated, "{message:?}");
            assert_eq!(descriptors.len(), arrival.descriptors, "{message:?}");
            check_message(&message);
        }
        Err(ChannelError::Nonsense { reason, descriptors }) => {
            // The caller closes them, where a close can wait.
            assert_eq!(descriptors.len(), arrival.descriptors, "{reason}");
            check_number::<M>(arrival);
        }
        // Decoding does not wait, and makes no call.
        Err(ChannelError::NotReady | ChannelError::Closed | ChannelError::System(_)) => {
            unreachable!("the error of a call");
        }
    }
}

/// Checks that a record is nonsense only because of its bytes, or of the number of its descriptors.
fn check_number<M: Message + PartialEq + Debug>(arrival: &Arrival<'_>) {
    let Ok((message, [])) = postcard::take_from_bytes::<M>(arrival.bytes) else { return };
    let wrong = message.descriptors() != arrival.descriptors;
    assert!(arrival.truncated || wrong, "{message:?} was refused");
    check_message(&message);
}

/// Checks that a message has one number of descriptors, and that its encoding is exactly this message.
fn check_message<M: Message + PartialEq + Debug>(message: &M) {
    let descriptors = message.descriptors();
    if descriptors > DESCRIPTORS_MAX {
        return;
    }
    let bytes = encode(message);
    let arrival = Arrival { bytes: &bytes, truncated: false, lost_descriptors: false, descriptors };
    let again = decode::<M>(arrival.record()).ok();
    assert_eq!(again.as_ref().map(|(again, _)| again), Some(message), "encoded and decoded");
    let more = Arrival { descriptors: descriptors + 1, ..arrival };
    let longer = Arrival { bytes: &[&bytes[..], &[0]].concat(), ..arrival };
    let truncated = Arrival { truncated: true, ..arrival };
    for other in [more, longer, truncated] {
        let decoded = decode::<M>(other.record());
        assert!(matches!(decoded, Err(ChannelError::Nonsense { .. })), "{decoded:?}");
    }
}

fn encode(message: &impl Message) -> Vec<u8> {
    let bytes = postcard::to_stdvec(message);
    assert!(bytes.is_ok(), "a message cannot be encoded: {bytes:?}");
    bytes.unwrap_or_default()
}

fn descriptor() -> Option<OwnedFd> {
    static FILE: LazyLock<Option<File>> = LazyLock::new(|| File::open("/dev/null").ok());
    let copy = FILE.as_ref().and_then(|file| file.try_clone().ok());
    assert!(copy.is_some(), "no descriptor for the test");
    copy.map(OwnedFd::from)
}
