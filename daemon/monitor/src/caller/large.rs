//! Calls and answers that are too large for a record: they are passed in sealed memory.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sockbroker_sys::sealed;

use super::message::{
    Bytes, ControlItem, DATA_MAX, Data, FromCaller, LARGE_MAX, Outgoing, ToCaller, UnixAnswer,
    UnixCall,
};
use crate::channel::Message;

/// Room for lengths and numbers in a record, which is larger than the data by more.
const ROOM: usize = 4 << 10;

/// A message, and the sealed memory that is its first descriptor.
#[derive(Debug)]
pub struct Packed<M> {
    pub message: M,
    pub memory: Option<OwnedFd>,
}

/// A call as a message. `EMSGSIZE` if it is too large for any message.
pub fn pack_call(number: u64, call: UnixCall) -> io::Result<Packed<ToCaller>> {
    if call_size(&call) <= DATA_MAX + ROOM {
        return Ok(Packed { message: ToCaller::Call { number, call }, memory: None });
    }
    let descriptors = u8::try_from(call.descriptors()).map_err(io::Error::other)?;
    let memory = Some(seal(&call)?);
    Ok(Packed { message: ToCaller::Large { number, descriptors }, memory })
}

/// An answer as a message.
pub(super) fn pack_answer(number: u64, answer: UnixAnswer) -> io::Result<Packed<FromCaller>> {
    if answer_size(&answer) <= DATA_MAX + ROOM {
        return Ok(Packed { message: FromCaller::Answer { number, answer }, memory: None });
    }
    let memory = Some(seal(&answer)?);
    Ok(Packed { message: FromCaller::Large { number }, memory })
}

/// The call in sealed memory, which is the first of these descriptors; the others are those of the call.
pub(super) fn unpack_call(descriptors: &mut Vec<OwnedFd>) -> Result<UnixCall, &'static str> {
    unpack(descriptors)
}

/// The answer in sealed memory, which is the only one of these descriptors.
pub fn unpack_answer(descriptors: &mut Vec<OwnedFd>) -> Result<UnixAnswer, &'static str> {
    unpack(descriptors)
}

fn unpack<M: Message>(descriptors: &mut Vec<OwnedFd>) -> Result<M, &'static str> {
    if descriptors.is_empty() {
        return Err("a large message came without its memory");
    }
    let memory = descriptors.remove(0);
    let bytes = sealed::read(memory.as_fd(), LARGE_MAX)
        .map_err(|_error| "the memory of a large message cannot be read")?;
    let message = decode::<M>(&bytes).ok_or("the memory of a large message is not a message")?;
    if message.descriptors() == descriptors.len() {
        Ok(message)
    } else {
        Err("a large message has the wrong number of descriptors")
    }
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let (message, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(message)
}

fn seal(message: &impl Serialize) -> io::Result<OwnedFd> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > LARGE_MAX {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    sealed::create("call", &bytes)
}

/// The bytes that an item takes in addition to its data: numbers of at most ten bytes.
const ITEM: usize = 32;

/// At least the encoded size of what a client or a policy can make long.
fn call_size(call: &UnixCall) -> usize {
    let listed = |paths: &[String]| paths.iter().map(|path| path.len() + ITEM).sum::<usize>();
    match call {
        UnixCall::Send(Outgoing { control, .. }, data) => {
            let items = control.iter().map(|item| match item {
                ControlItem::Data { data, .. } => data.len() + ITEM,
                ControlItem::Descriptors { rest, .. } => rest.len() + ITEM,
            });
            let inside = match data {
                Data::Inside(Bytes(data)) => data.len(),
                Data::Shared { .. } => 0,
            };
            inside + items.sum::<usize>()
        }
        UnixCall::Examine { name, paths } => name.as_ref().map_or(0, Vec::len) + listed(paths),
        UnixCall::LookUp { path, paths, .. } => path.len() + listed(paths),
        UnixCall::Identify { path } => path.len(),
        UnixCall::BindFile { name, written } => name.len() + written.as_ref().map_or(0, Vec::len),
        UnixCall::Bind { address } | UnixCall::Connect { address } => address.len(),
        UnixCall::Pair { .. } | UnixCall::ConnectFile | UnixCall::Listen { .. } => 0,
    }
}

fn answer_size(answer: &UnixAnswer) -> usize {
    match answer {
        UnixAnswer::Examined(examined) | UnixAnswer::LookedUp(examined) => {
            let names = examined.names.iter().map(|name| name.len() + ITEM);
            let possible = examined.possible.iter().map(|path| path.len() + ITEM);
            names.chain(possible).sum()
        }
        UnixAnswer::Bound(name) => name.len(),
        UnixAnswer::Done
        | UnixAnswer::Pair
        | UnixAnswer::Sent(_)
        | UnixAnswer::Identified(_)
        | UnixAnswer::Failed(_)
        | UnixAnswer::NoThread(_) => 0,
    }
}
