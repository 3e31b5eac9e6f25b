//! The streams of a session.

use std::sync::Arc;

use sockbroker_proto::handle::Handle;

use super::Session;
use crate::error::OpResult;
use crate::quota::Reservation;
use crate::table::Resource;
use crate::table::stream::{Body, Granted, Stream};

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
