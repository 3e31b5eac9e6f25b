//! Messages and answers: what goes into the core and what comes out of it.

use jsonrpsee::MethodResponse;
use jsonrpsee::types::{ErrorObjectOwned, Id};
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;

use crate::error::OpError;
use crate::quota::Share;
use crate::rpc::call::{Call, RequestParts, ResponseParts};
use crate::rpc::error;
use crate::rpc::methods::Method;
use crate::rpc::methods::outcome;
use crate::session::connection::Connection;
use crate::session::finished::KeptAnswer;

/// A message as a transport received it.
#[derive(Debug, Default)]
pub struct Message {
    /// A request, a notification or a batch.
    pub json: bytes::Bytes,
    /// What came beside it.
    pub parts: RequestParts,
}

/// An answer for the transport to send.
#[derive(Debug, Default)]
pub struct Answer {
    /// The answer's JSON.
    pub json: bytes::Bytes,
    /// What goes beside it.
    pub response_parts: ResponseParts,
}

/// What became of a call at its first poll.
pub(super) enum Started {
    Answered(Id<'static>, Box<RawValue>, ResponseParts),
    Waiting,
    Silent,
}

/// An error in place of an answer; a notification gets none.
pub(super) fn refused(id: Option<Id<'static>>, error: ErrorObjectOwned) -> Started {
    match id {
        Some(id) => {
            let json = error::answer(id.clone(), error);
            Started::Answered(id, json, ResponseParts::default())
        }
        None => Started::Silent,
    }
}

/// The answer to a message in which no id could be read, or to a whole batch.
pub(super) fn without_id(error: ErrorObjectOwned) -> Answer {
    answer(error::answer(Id::Null, error), ResponseParts::default())
}

/// An answer for the transport.
pub(super) fn answer(json: Box<RawValue>, response_parts: ResponseParts) -> Answer {
    let text: Box<str> = json.into();
    Answer { json: String::from(text).into(), response_parts }
}

/// The JSON of a call that came to its end, `Err` after a panic, and what is sent with it. The parameters are
/// for the error that says what is wrong with them, which no call that waited can end with.
pub(super) fn conclude(
    method: &Method,
    call: &Call,
    id: &Id<'_>,
    response: Result<MethodResponse, ()>,
    params: Option<&RawValue>,
) -> (Box<RawValue>, ResponseParts) {
    let name = method.name;
    match response {
        Ok(response) if response.is_error() => {
            method.outcomes.count(outcome(response.as_error_code()));
            let json = error::complete(name, params, id.clone(), response.as_json());
            if let Some(limit) = error::limit_in(&json) {
                call.broker().metrics.crossed(&limit);
            }
            (json, ResponseParts::default())
        }
        Ok(response) => {
            method.outcomes.count(outcome(None));
            (response.into_json(), call.take_response_parts())
        }
        Err(()) => {
            method.outcomes.count(outcome(Some(ErrorKind::Internal.code())));
            let subject = &call.connection().facts().subject;
            let (unit, session) = (subject.unit.as_deref(), call.session().number());
            tracing::error!(method = name, uid = subject.uid, unit, session, "a call panicked");
            let error = error::plain(ErrorKind::Internal, format!("{name} failed in the broker"));
            (error::answer(id.clone(), error), ResponseParts::default())
        }
    }
}

/// The memory that a kept answer takes in addition to its bytes.
const KEPT: usize = 256;

/// A copy of an answer that outlives its sending. It is not kept without descriptors to spare, nor where
/// it is too much for its user.
pub(super) fn keep(answer: &Answer, connection: &Connection) -> Option<KeptAnswer> {
    let attachments = &answer.response_parts.attachments;
    let memory =
        KEPT + answer.json.len() + attachments.iter().map(bytes::Bytes::len).sum::<usize>();
    let share = connection.user().take(Share::Resolvable, memory as u64);
    let share = share.inspect_err(|limit| connection.broker().metrics.crossed(limit.name)).ok()?;
    let copies = answer.response_parts.descriptors.iter().map(std::os::fd::OwnedFd::try_clone);
    Some(KeptAnswer {
        json: answer.json.clone(),
        attachments: attachments.clone(),
        descriptors: copies.collect::<Result<_, _>>().ok()?,
        share,
    })
}

/// The answer that was kept, under the id of the request that asks for it.
pub(crate) fn resolved_json(kept: &KeptAnswer) -> Result<serde_json::Value, OpError> {
    serde_json::from_slice(&kept.json)
        .map_err(|error| OpError::Plain(format!("the kept answer cannot be read: {error}")))
}
