//! The context of one call: what its handler can use, and what is attached to its frames.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;
use sockbroker_proto::api::admin::Maker;
use sockbroker_proto::api::delegation::Program;
use sockbroker_proto::api::session::RequestId;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use crate::config::limits::size;
use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::resolve::Resolver;
use crate::ops::kept::ExactlyOnce;
use crate::ops::send::{Progress, Sender};
use crate::quota::Reservation;
use crate::rpc::encoded::EncodedResult;
use crate::rpc::error::RpcError;
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::connection::Connection;
use crate::session::finished::KeptAnswer;
use crate::table::entry::Entry;
use crate::table::peeked::Receipt;
use crate::table::timeout::Timeout;
use sockbroker_policy::rights::Rights;

/// Bytes by which a buffer may exceed twice its content before it is shrunk.
const SLACK: usize = 4096;

/// The longest id of a request, in bytes, that is kept with a handle.
const MAKER_BYTES: usize = 64;

/// The error of a call whose client cannot receive descriptors.
pub(crate) const PEER_REFUSES: &str = "this connection carries no descriptors: its client refuses them, for example because a \
     relay is in between, which drops them; connect to the broker's socket without a relay";

/// What is attached to a request.
#[derive(Debug, Default)]
pub struct RequestParts {
    pub attachments: Vec<bytes::Bytes>,
    pub descriptors: Vec<Descriptor>,
    /// Whether the kernel dropped descriptors because the broker has too many files open.
    pub lost_descriptors: bool,
    /// Whether the peer accepts attachments in the answer.
    pub takes_attachments: bool,
}

/// What is attached to an answer.
#[derive(Debug, Default)]
pub struct ResponseParts {
    pub attachments: Vec<bytes::Bytes>,
    pub descriptors: Vec<Arc<Descriptor>>,
    /// Received bytes that leave their socket when the answer is sent.
    pub receipt: Option<Receipt>,
}

/// The context of one call.
#[derive(Debug, Clone)]
pub struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Arc<Connection>,
    session: Arc<Session>,
    method: &'static str,
    /// The id of the request; `None` for a notification.
    request: Option<RequestId>,
    /// The handle that was looked up last; 0 if there was none.
    handle: AtomicU64,
    /// The program for which the client states that it makes the call.
    program: OnceLock<Program>,
    attachments: Mutex<Vec<Option<bytes::Bytes>>>,
    takes_attachments: bool,
    carries_descriptors: bool,
    lost_descriptors: bool,
    descriptors: Mutex<Vec<Option<Descriptor>>>,
    response_parts: Mutex<ResponseParts>,
    progress: Progress,
}

impl Call {
    /// The context of a call on this connection. `alone` is false for a call in a batch. Attachments and
    /// descriptors of a batch's frame cannot be assigned to its calls: bytes are base64 there, and descriptors
    /// are refused.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        (method, request): (&'static str, Option<RequestId>),
        parts: RequestParts,
        alone: bool,
    ) -> Self {
        let session = connection.session();
        session.note_use();
        Self(Arc::new(Inner {
            connection: connection.clone(),
            session,
            method,
            request,
            handle: AtomicU64::new(0),
            program: OnceLock::new(),
            attachments: Mutex::new(slots(parts.attachments)),
            takes_attachments: alone && (parts.takes_attachments || connection.takes_attachments()),
            carries_descriptors: alone && connection.carries_descriptors(),
            lost_descriptors: parts.lost_descriptors,
            descriptors: Mutex::new(slots(parts.descriptors)),
            response_parts: Mutex::default(),
            progress: Progress::new(0),
        }))
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// The session the connection was attached to when the call began.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    pub(crate) fn broker(&self) -> &Arc<Broker> {
        self.0.connection.broker()
    }

    /// Reserves a handle for a new socket, within the limits.
    pub(crate) fn reserve_handle(&self) -> OpResult<Reservation> {
        self.0.session.reserve_handle(self.0.connection.user())
    }

    /// The identity that the call is made with.
    pub(crate) fn caller(&self) -> &CallerIdentity {
        self.0.connection.caller()
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        self.0.connection.resolver()
    }

    /// The identity that the call sends with, and the counter of the bytes that it sent.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender { caller: self.caller(), progress: &self.0.progress, needs_opener: false }
    }

    /// The number of bytes that the call has sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.progress.load(Ordering::Relaxed)
    }

    /// The wire name of the method.
    pub(crate) fn method(&self) -> &'static str {
        self.0.method
    }

    /// The request that `admin.handles` shows for a handle that this call makes.
    pub(crate) fn maker(&self) -> Option<Maker> {
        let short = |request: &&RequestId| match request {
            RequestId::Number(_) => true,
            RequestId::Text(text) => text.len() <= MAKER_BYTES,
        };
        let request = self.0.request.as_ref().filter(short)?.clone();
        Some(Maker { connection: self.0.connection.number(), request })
    }

    /// The handle that the call has looked up last.
    pub(crate) fn handle(&self) -> Option<Handle> {
        Handle::new(self.0.handle.load(Ordering::Relaxed)).filter(|handle| handle.number() > 0)
    }

    /// Notes the program for which the client makes the call, for the audit alone.
    pub(crate) fn note_program(&self, program: Program) {
        // A handler calls this once.
        drop(self.0.program.set(program));
    }

    /// The program for which the client states that it makes the call.
    pub(crate) fn program(&self) -> Option<&Program> {
        self.0.program.get()
    }

    /// The rights of the caller in its session.
    pub(crate) fn rights(&self) -> Arc<Rights> {
        self.0.connection.rights(&self.0.session)
    }

    /// The socket of a handle.
    pub(crate) fn entry(&self, handle: Handle) -> OpResult<Arc<Entry>> {
        self.0.handle.store(handle.number(), Ordering::Relaxed);
        self.0.session.entry(handle)
    }

    /// The timeout of a new socket: `seconds`, with `Some(None)` for a blocking socket; the default timeout of
    /// the session where `seconds` is absent.
    #[expect(clippy::option_option, reason = "absent and null differ in the contract")]
    pub(crate) fn timeout(&self, seconds: Option<Option<f64>>) -> OpResult<Timeout> {
        match seconds {
            Some(seconds) => Ok(Timeout::from_seconds(seconds)?),
            None => Ok(self.0.session.default_timeout.get()),
        }
    }

    pub(super) fn encode<T: Serialize>(&self, result: &T) -> Result<EncodedResult, RpcError> {
        EncodedResult::new(result, self.broker().limits.frame_bytes)
    }

    /// The bytes of a parameter: inline, or from an attachment of the request. An attachment can be used once, so
    /// that a call cannot hold more bytes than its frame had.
    pub(crate) fn bytes(&self, value: Bytes) -> OpResult<bytes::Bytes> {
        let index = match value {
            Bytes::Inline(data) => return Ok(data.into()),
            Bytes::Attachment(index) => index,
        };
        let mut attachments = self.0.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        match attachments.get_mut(index as usize).map(Option::take) {
            Some(Some(data)) => Ok(data),
            Some(None) => {
                Err(OpError::value(format!("attachment {index} is used twice: send it twice")))
            }
            None => Err(OpError::value(format!("the frame has no attachment {index}"))),
        }
    }

    /// Encodes bytes of a result: as an attachment if the peer accepts attachments, otherwise as base64.
    pub(crate) fn encode_bytes(&self, mut data: Vec<u8>) -> Bytes {
        // The buffer has the size that the caller asked for. Its unused part is released.
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

    /// Fails if this answer cannot carry what is attached to the kept one.
    pub(crate) fn check_attaches(&self, kept: &KeptAnswer) -> OpResult<()> {
        if !kept.attachments.is_empty() && !self.0.takes_attachments {
            return Err(OpError::value(
                "the lost response has attachments: send an Attachments field in the header",
            ));
        }
        if kept.descriptors.is_empty() { Ok(()) } else { self.check_carries_descriptors() }
    }

    /// Attaches to this answer what is attached to the kept one, under the same indexes.
    pub(crate) fn attach_kept(&self, kept: KeptAnswer) {
        let KeptAnswer { attachments, descriptors, .. } = kept;
        *self.response_parts() = ResponseParts { attachments, descriptors, receipt: None };
    }

    /// Takes the attached descriptor with this index.
    pub(crate) fn take_descriptor(&self, index: u32) -> OpResult<Descriptor> {
        let mut descriptors = self.0.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = descriptors.get_mut(index as usize).and_then(Option::take);
        let descriptor = slot.ok_or_else(|| self.no_descriptor());
        self.broker().control_ends.checked(descriptor?)
    }

    /// Takes the next `count` attached descriptors, in order.
    pub(crate) fn take_descriptors(&self, count: u32) -> OpResult<Vec<Descriptor>> {
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
            OpError::Descriptor(
                "the message has no such descriptor: announce it in the field Fds of the header, or as \"fds\" in newline-delimited JSON",
            )
        } else {
            self.refuses_descriptors()
        }
    }

    fn refuses_descriptors(&self) -> OpError {
        let connection = &self.0.connection;
        let message = if connection.carries_descriptors() {
            "descriptors cannot be assigned to the calls of a batch: send the call alone"
        } else if connection.facts().descriptors {
            PEER_REFUSES
        } else {
            "this connection carries no descriptors: use LSP framing or newline-delimited JSON on the Unix socket"
        };
        OpError::Descriptor(message)
    }

    /// Fails if the answer cannot carry a descriptor. Handlers check this before they change anything.
    pub(crate) fn check_carries_descriptors(&self) -> OpResult<()> {
        if self.0.carries_descriptors { Ok(()) } else { Err(self.refuses_descriptors()) }
    }

    /// Whether received bytes stay in their sockets until the answer is sent.
    pub(crate) fn exactly_once(&self) -> ExactlyOnce<'_> {
        self.0.session.is_exactly_once().then(|| self.broker().stopping())
    }

    /// Attaches the receipt of the bytes that the answer carries.
    pub(crate) fn attach_receipt(&self, receipt: Option<Receipt>) {
        if receipt.is_some() {
            self.response_parts().receipt = receipt;
        }
    }

    /// Attaches a descriptor to the answer.
    pub(crate) fn attach_descriptor(&self, descriptor: Arc<Descriptor>) {
        self.response_parts().descriptors.push(descriptor);
    }

    /// Attaches received descriptors to the answer if its frame can carry all of them, and closes them otherwise.
    /// Returns whether they are attached.
    pub(crate) fn attach_descriptors(&self, descriptors: Vec<OwnedFd>) -> bool {
        let user = self.0.connection.user();
        let descriptors: Vec<_> =
            descriptors.into_iter().map(|fd| Arc::new(Descriptor::of_client(fd, user))).collect();
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
        // A panic elsewhere leaves these vectors valid.
        self.0.response_parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is attached to the answer.
    pub(crate) fn take_response_parts(&self) -> ResponseParts {
        std::mem::take(&mut *self.response_parts())
    }
}

/// The parts of a request, which calls take one by one. It does nothing for most requests, which have none.
fn slots<T>(parts: Vec<T>) -> Vec<Option<T>> {
    if parts.is_empty() { Vec::new() } else { parts.into_iter().map(Some).collect() }
}
