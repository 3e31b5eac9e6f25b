//! Messages, which the core receives, and answers, which it returns.

use jsonrpsee_types::Id;
use sockbroker_proto::error::ErrorKind;

use crate::error::OpError;
use crate::quota::Share;
use crate::rpc::call::{Call, PEER_REFUSES, RequestParts, ResponseParts};
use crate::rpc::error::RpcError;
use crate::rpc::methods::{Method, Outcome, outcome};
use crate::session::connection::Connection;
use crate::session::finished::KeptAnswer;

/// A message as a transport received it.
#[derive(Debug, Default)]
pub struct Message {
    /// A request, a notification or a batch.
    pub json: bytes::Bytes,
    /// What was attached to it.
    pub parts: RequestParts,
}

/// An answer for the transport to send.
#[derive(Debug, Default)]
pub struct Answer {
    /// A response, or the responses of a batch.
    pub json: bytes::Bytes,
    /// What is attached to it.
    pub response_parts: ResponseParts,
    /// The response instead, if the kernel refuses to pass the attached descriptors; `None` without descriptors.
    pub refusal: Option<Refusal>,
}

/// The state of a call after its first poll.
pub(super) enum Started {
    Answered(Id<'static>, bytes::Bytes, ResponseParts),
    Waiting,
    Silent,
}

/// Answers a request with an error. A notification gets no answer.
pub(super) fn refused(id: Option<Id<'static>>, error: &RpcError) -> Started {
    match id {
        Some(id) => {
            let json = error.encode(&id);
            Started::Answered(id, json, ResponseParts::default())
        }
        None => Started::Silent,
    }
}

/// The last message of a connection that the broker ends, with the reason.
pub fn ending(reason: String) -> Answer {
    without_id(&RpcError::from(OpError::Remote(reason)))
}

/// The answer to a message in which no id could be read, or to a whole batch.
pub(super) fn without_id(error: &RpcError) -> Answer {
    Answer { json: error.encode(&Id::Null), ..Answer::default() }
}

/// Counts how a call ended, and writes its response. `outcome_or_panic` is `Err` after a panic.
pub(super) fn conclude(
    method: &Method,
    call: &Call,
    id: &Id<'_>,
    outcome_or_panic: Result<Outcome, ()>,
) -> (bytes::Bytes, ResponseParts) {
    let ended = outcome_or_panic.unwrap_or_else(|()| {
        let name = method.name;
        let subject = call.connection().subject();
        let (unit, session) = (subject.unit.as_deref(), call.session().number());
        tracing::error!(method = name, uid = subject.uid, unit, session, "a call panicked");
        Err(RpcError::plain(ErrorKind::Internal, format!("{name} failed in the broker")))
    });
    let passed = ended.and_then(|result| Ok((result, parts_within_limits(call)?)));
    match passed {
        Ok((result, parts)) => {
            method.outcomes.count(outcome(None));
            (result.response(id), parts)
        }
        Err(error) => {
            method.outcomes.count(outcome(Some(error.kind)));
            if let Some(limit) = error.limit_name() {
                call.broker().metrics.limit_exceeded(limit);
            }
            (error.of_call(method.call()).encode(id), ResponseParts::default())
        }
    }
}

/// The attachments and descriptors of a response. It fails alone if the client has not received too many descriptors
/// before: they count until then.
fn parts_within_limits(call: &Call) -> Result<ResponseParts, RpcError> {
    let parts = call.take_response_parts();
    let count = parts.descriptors.len() as u64;
    if count > 0 {
        let room = call.connection().user().take(Share::Descriptors, count);
        drop(room.map_err(OpError::from)?);
    }
    Ok(parts)
}

/// The response in place of one whose descriptors the kernel refuses to pass.
#[derive(Debug)]
pub struct Refusal(Id<'static>);

impl Refusal {
    pub(super) fn new(id: &Id<'_>) -> Self {
        Self(id.clone().into_owned())
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self(Id::Null)
    }

    /// The response for a reason.
    pub fn encode(&self, reason: PassingError) -> bytes::Bytes {
        let error = match reason {
            PassingError::TooManyInFlight => {
                OpError::Os { call: "sendmsg", errno: libc::ETOOMANYREFS }
            }
            PassingError::RefusedByPeer => OpError::Descriptor(PEER_REFUSES),
        };
        RpcError::from(error).encode(&self.0)
    }
}

/// Why the kernel refuses to pass descriptors (unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassingError {
    /// Too many descriptors of the broker's user are in queues of programs that do not receive them: `ETOOMANYREFS`.
    TooManyInFlight,
    /// The peer has `SO_PASSRIGHTS` switched off: `EPERM`.
    RefusedByPeer,
}

impl PassingError {
    /// The reason for an error number of `sendmsg`, if it is one of these.
    pub fn of(errno: i32) -> Option<Self> {
        match errno {
            libc::ETOOMANYREFS => Some(Self::TooManyInFlight),
            libc::EPERM => Some(Self::RefusedByPeer),
            _ => None,
        }
    }
}

/// The memory in bytes that a kept answer takes in addition to its content.
const KEPT: usize = 256;

/// Keeps an answer for `call.resolve`. `None` if it exceeds the share of its user.
pub(super) fn keep(answer: &Answer, connection: &Connection) -> Option<KeptAnswer> {
    let attachments = &answer.response_parts.attachments;
    let memory =
        KEPT + answer.json.len() + attachments.iter().map(bytes::Bytes::len).sum::<usize>();
    let share = connection.user().take(Share::Resolvable, memory as u64);
    let count = answer.response_parts.descriptors.len() as u64;
    let shares = share.and_then(|share| {
        // With room for those of the response itself: without them its connection would end.
        let mut descriptors = connection.user().take(Share::Descriptors, 2 * count)?;
        descriptors.resize(count)?;
        Ok((share, descriptors))
    });
    let (share, descriptor_share) =
        shares.inspect_err(|limit| connection.broker().metrics.limit_exceeded(limit.name)).ok()?;
    Some(KeptAnswer {
        json: answer.json.clone(),
        attachments: attachments.clone(),
        descriptors: answer.response_parts.descriptors.clone(),
        share,
        descriptor_share,
    })
}

/// The JSON of an answer that was kept.
pub(crate) fn resolved_json(kept: &KeptAnswer) -> Result<serde_json::Value, OpError> {
    serde_json::from_slice(&kept.json)
        .map_err(|error| OpError::Plain(format!("cannot decode the stored response: {error}")))
}
