//! The streams of a session.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sockbroker_monitor::capture::{Counts, Ended};
use sockbroker_proto::handle::Handle;

use super::Session;
use super::broker::Broker;
use crate::error::OpResult;
use crate::network::captures::Capture;
use crate::observe::audit::Record;
use crate::principal::PrincipalKey;
use crate::quota::Reservation;
use crate::session::tasks::Tasks;
use crate::table::Resource;
use crate::table::stream::{Body, Granted, Stream};

/// A stream that an earlier process has left.
#[expect(missing_debug_implementations, reason = "its parts have no text")]
pub struct RestoredStream {
    pub kind: &'static str,
    pub granted: Box<Granted>,
    pub body: Arc<dyn Body>,
    pub task: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub handle: Reservation,
}

impl Session {
    /// Starts a stream and gives it a handle.
    ///
    /// Its task is aborted when the handle is closed, when a reload revokes it because `granted` no
    /// longer holds, and when the session ends. It must be called within the runtime.
    pub fn start_stream(
        &self,
        kind: &'static str,
        handle: Reservation,
        granted: Box<Granted>,
        body: Option<Arc<dyn Body>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> OpResult<Handle> {
        let handle = Arc::new(handle);
        let held = handle.clone();
        let task = self.tasks.spawn(kind, self.number, async move {
            let _held = held;
            task.await;
        });
        let stream = Stream::new(kind, task, granted, body, handle);
        self.insert_resource(Resource::Stream(Arc::new(stream)))
    }

    /// Makes a stream outlive this process, if the session does and the stream can.
    pub async fn keep_stream(&self, handle: Handle) -> OpResult<()> {
        if self.persistence().is_none() {
            return Ok(());
        }
        let stream = self.stream(handle)?;
        let Some(body) = stream.body() else { return Ok(()) };
        let Some(state) = body.keep().await? else { return Ok(()) };
        let Some(persistence) = self.persistence() else { return Ok(()) };
        let table = self.table();
        // A call on another connection may have closed it, or the process ends.
        if table.get(handle).is_none() || persistence.left.load(Ordering::Acquire) {
            return Ok(());
        }
        persistence.save_stream(self.number, handle, (stream.kind(), &state))
    }

    /// A stream that an earlier process has left.
    pub(super) fn restored_stream(&self, restored: RestoredStream) -> Resource {
        let RestoredStream { kind, granted, body, task, handle } = restored;
        let handle = Arc::new(handle);
        let held = handle.clone();
        let task = self.tasks.spawn(kind, self.number, async move {
            let _held = held;
            task.await;
        });
        Resource::Stream(Arc::new(Stream::new(kind, task, granted, Some(body), handle)))
    }

    /// The tasks of its streams.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Runs a task of the session that ends by itself.
    pub fn run(&self, kind: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(kind, self.number, task));
    }

    /// The streams with their handles, lowest first.
    pub fn streams(&self) -> Vec<(Handle, Arc<Stream>)> {
        let resources = self.table().resources().into_iter();
        let stream = |(handle, resource)| match resource {
            Resource::Socket(_) => None,
            Resource::Stream(stream) => Some((handle, stream)),
        };
        resources.filter_map(stream).collect()
    }
}

impl Broker {
    /// Records the end of a capture in the audit when that comes: of this user, session and handle.
    pub fn report_end(
        &self,
        key: PrincipalKey,
        (uid, session, handle): (u32, u64, u64),
        capture: &Capture,
    ) {
        if !self.audit.is_on() {
            return;
        }
        let (audit, interfaces) = (self.audit.clone(), capture.interfaces());
        capture.at_end(move |Ended { reason, counts, complete }| {
            let Counts { captured, dropped, unread, bytes, .. } = counts;
            let reason = reason.word();
            audit.report(key, || {
                Record::new("capture")
                    .with("state", "ended")
                    .with("uid", uid)
                    .with("session", session)
                    .with("handle", handle)
                    .with("interfaces", interfaces.as_str())
                    .with("reason", reason)
                    .with("captured", captured)
                    .with("dropped", dropped)
                    .with("unread", unread)
                    .with("bytes", bytes)
                    .with("complete", if complete { "yes" } else { "no" })
                    .with(
                        "message",
                        format!(
                            "uid {uid} captured {captured} packets of {interfaces}, {dropped} were \
                         dropped, and the capture ended: {reason}"
                        ),
                    )
            });
        });
    }
}
