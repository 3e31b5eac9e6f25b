//! The context of one call: what its handler may reach, and what rides beside its frames.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use crate::config::limits::size;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::resolve::Resolver;
use crate::ops::send::{Progress, Sender};
use crate::quota::Reservation;
use crate::rpc::answer::EncodedResult;
use crate::rpc::error::RpcError;
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::connection::Connection;
use crate::session::finished::KeptAnswer;
use crate::table::entry::Entry;
use crate::table::timeout::Timeout;
use sockbroker_policy::rights::Rights;

/// A buffer may be so much larger than its content before it is shrunk.
const SLACK: usize = 4096;

/// What came beside a request.
#[derive(Debug, Default)]
pub struct RequestParts {
    /// Its attachments.
    pub attachments: Vec<bytes::Bytes>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// Whether the broker had no room for the rest of its descriptors.
    pub lost_descriptors: bool,
    /// Whether the answer may carry attachments.
    pub takes_attachments: bool,
}

/// What goes beside an answer.
#[derive(Debug, Default)]
pub struct ResponseParts {
    /// Its attachments.
    pub attachments: Vec<bytes::Bytes>,
    /// Its descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// The context of one call.
#[derive(Debug, Clone)]
pub struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Arc<Connection>,
    session: Arc<Session>,
    method: &'static str,
    /// The last handle that was looked up; 0 is none.
    handle: AtomicU64,
    attachments: Vec<bytes::Bytes>,
    takes_attachments: bool,
    carries_descriptors: bool,
    lost_descriptors: bool,
    descriptors: Mutex<Vec<Option<OwnedFd>>>,
    response_parts: Mutex<ResponseParts>,
    progress: Progress,
}

impl Call {
    /// The context of a call on this connection. `alone` is false within a batch, whose frame's
    /// enclosures cannot be told apart: there bytes are base64, and descriptors are refused.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        method: &'static str,
        parts: RequestParts,
        alone: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            connection: connection.clone(),
            session: connection.session(),
            method,
            handle: AtomicU64::new(0),
            attachments: parts.attachments,
            takes_attachments: alone && (parts.takes_attachments || connection.takes_attachments()),
            carries_descriptors: alone && connection.facts().descriptors,
            lost_descriptors: parts.lost_descriptors,
            descriptors: Mutex::new(parts.descriptors.into_iter().map(Some).collect()),
            response_parts: Mutex::default(),
            progress: Progress::new(0),
        }))
    }

    /// The connection.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// The session the connection was attached to when the call began.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    /// The broker.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        self.0.connection.broker()
    }

    /// A handle for a new socket, unless a limit stands in the way.
    pub(crate) fn room(&self) -> OpResult<Reservation> {
        self.0.session.reserve_handle(self.0.connection.user())
    }

    /// As whom the call is made.
    pub(crate) fn caller(&self) -> &CallerIdentity {
        self.0.connection.caller()
    }

    /// The way to the resolver.
    pub(crate) fn resolver(&self) -> &Resolver {
        self.0.connection.resolver()
    }

    /// As whom the call sends, and where it counts.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender { caller: self.caller(), progress: &self.0.progress }
    }

    /// Bytes that have left so far, as a number.
    pub(crate) fn sent(&self) -> u64 {
        self.0.progress.load(Ordering::Relaxed)
    }

    /// The wire name of the method.
    pub(crate) fn method(&self) -> &'static str {
        self.0.method
    }

    /// The handle that the call is about, once it was looked up.
    pub(crate) fn handle(&self) -> Option<Handle> {
        Handle::new(self.0.handle.load(Ordering::Relaxed)).filter(|handle| handle.number() > 0)
    }

    /// What the caller may do.
    pub(crate) fn rights(&self) -> Arc<Rights> {
        self.0.connection.rights(&self.0.session)
    }

    /// The socket of a handle.
    pub(crate) fn entry(&self, handle: Handle) -> OpResult<Arc<Entry>> {
        self.0.handle.store(handle.number(), Ordering::Relaxed);
        self.0.session.entry(handle)
    }

    /// The timeout of a new socket in seconds, `Some(None)` for none; the session's default where it is absent.
    #[expect(clippy::option_option, reason = "absent and null differ in the contract")]
    pub(crate) fn timeout(&self, seconds: Option<Option<f64>>) -> OpResult<Timeout> {
        match seconds {
            Some(seconds) => Ok(Timeout::from_seconds(seconds)?),
            None => Ok(self.0.session.default_timeout.get()),
        }
    }

    /// Encodes the result of the call.
    pub(super) fn encode<T: Serialize>(&self, result: &T) -> Result<EncodedResult, RpcError> {
        EncodedResult::new(result, self.broker().limits.frame_bytes)
    }

    /// The bytes of a parameter.
    pub(crate) fn bytes(&self, value: Bytes) -> OpResult<bytes::Bytes> {
        match value {
            Bytes::Inline(data) => Ok(data.into()),
            Bytes::Attachment(index) => self
                .0
                .attachments
                .get(index as usize)
                .cloned()
                .ok_or_else(|| OpError::value(format!("the frame has no attachment {index}"))),
        }
    }

    /// Bytes for a result: an attachment where the peer takes them, else base64.
    pub(crate) fn give_bytes(&self, mut data: Vec<u8>) -> Bytes {
        // The buffer was as large as the caller asked; what it does not fill is not to be held.
        if data.capacity() > 2 * data.len() + SLACK {
            data.shrink_to_fit();
        }
        if !self.0.takes_attachments {
            return Bytes::Inline(data);
        }
        let mut response_parts = self.response_parts();
        let index = response_parts.attachments.len();
        match u32::try_from(index) {
            Ok(number) if index < size(self.broker().limits.attachments) => {
                response_parts.attachments.push(data.into());
                Bytes::Attachment(number)
            }
            _ => Bytes::Inline(data),
        }
    }

    /// Fails where this answer cannot carry what rode beside a lost one.
    pub(crate) fn check_gives_again(&self, kept: &KeptAnswer) -> OpResult<()> {
        if !kept.attachments.is_empty() && !self.0.takes_attachments {
            return Err(OpError::value(
                "the lost answer has attachments: ask with an Attachments field in the head",
            ));
        }
        if kept.descriptors.is_empty() { Ok(()) } else { self.check_carries_descriptors() }
    }

    /// Puts what rode beside a lost answer beside this one, under the same indexes.
    pub(crate) fn give_again(&self, kept: KeptAnswer) {
        let KeptAnswer { attachments, descriptors, .. } = kept;
        *self.response_parts() = ResponseParts { attachments, descriptors };
    }

    /// Takes the descriptor at this place beside the request.
    pub(crate) fn take_descriptor(&self, place: u32) -> OpResult<OwnedFd> {
        let mut descriptors = self.0.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = descriptors.get_mut(place as usize).and_then(Option::take);
        let taken = slot.ok_or_else(|| self.no_descriptor());
        self.broker().control_ends.checked(taken?)
    }

    /// Takes the next `count` descriptors beside the request, in order.
    pub(crate) fn take_descriptors(&self, count: u32) -> OpResult<Vec<OwnedFd>> {
        let mut descriptors = self.0.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        let next = descriptors.iter_mut().filter(|slot| slot.is_some());
        let taken: Vec<_> = next.take(count as usize).filter_map(Option::take).collect();
        if taken.len() < count as usize {
            return Err(self.no_descriptor());
        }
        taken.into_iter().map(|taken| self.broker().control_ends.checked(taken)).collect()
    }

    fn no_descriptor(&self) -> OpError {
        if self.0.lost_descriptors {
            OpError::LostDescriptors
        } else if self.0.carries_descriptors {
            OpError::Descriptor("the frame has no such descriptor: announce it by the Fds field")
        } else {
            self.refuses_descriptors()
        }
    }

    fn refuses_descriptors(&self) -> OpError {
        let message = if self.0.connection.facts().descriptors {
            "descriptors cannot be told apart in a batch: send the call alone"
        } else {
            "this connection carries no descriptors: use LSP framing on the Unix socket"
        };
        OpError::Descriptor(message)
    }

    /// Fails where the answer cannot carry a descriptor: asked before anything is done.
    pub(crate) fn check_carries_descriptors(&self) -> OpResult<()> {
        if self.0.carries_descriptors { Ok(()) } else { Err(self.refuses_descriptors()) }
    }

    /// Puts a descriptor beside the answer.
    pub(crate) fn give_descriptor(&self, descriptor: OwnedFd) {
        self.response_parts().descriptors.push(descriptor);
    }

    /// Puts descriptors beside the answer, if the frame has room for all of them; else they are
    /// closed.
    pub(crate) fn give_descriptors(&self, descriptors: Vec<OwnedFd>) -> bool {
        let mut response_parts = self.response_parts();
        let room =
            size(self.broker().limits.descriptors).saturating_sub(response_parts.descriptors.len());
        let fits = self.0.carries_descriptors && descriptors.len() <= room;
        if fits {
            response_parts.descriptors.extend(descriptors);
        }
        fits
    }

    fn response_parts(&self) -> MutexGuard<'_, ResponseParts> {
        // Vectors of whole values: a panic elsewhere does not spoil them.
        self.0.response_parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what goes beside the answer.
    pub(crate) fn take_response_parts(&self) -> ResponseParts {
        std::mem::take(&mut *self.response_parts())
    }
}
