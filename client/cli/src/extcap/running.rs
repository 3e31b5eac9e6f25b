//! The capture that is running. The toolbar replaces it, and a signal ends it.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use sockbroker_client::blocking::CaptureStream;
use sockbroker_proto::api::capture::CaptureInterface;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::sniff::filter::Filter;

/// A capture of a broker.
#[derive(Debug, Clone)]
pub(super) struct Running {
    connection: Arc<Connection>,
    handle: Handle,
    interfaces: Vec<CaptureInterface>,
}

impl Running {
    pub(super) fn new(connection: &Arc<Connection>, stream: &CaptureStream) -> Self {
        let opened = stream.opened();
        Self {
            connection: Arc::clone(connection),
            handle: opened.handle,
            interfaces: opened.interfaces.clone(),
        }
    }

    /// Replaces the filter. When this returns, no packet of the earlier one is captured any more.
    pub(super) fn set_filter(&self, filter: Option<&Filter>) -> Result<(), Failure> {
        if let Some(filter) = filter {
            self.interfaces.iter().try_for_each(|interface| filter.check(interface))?;
        }
        let program = filter.map(|filter| Bytes::Inline(filter.program.clone()));
        let text = filter.map(|filter| filter.expression.as_str());
        self.connection.call("capture.set_filter", json!([self.handle, program, text])).map(drop)
    }

    /// Ends the capture. When this returns, it captures no further packet; what it has captured can still be read.
    pub(super) fn stop(&self) {
        let parameters: Value = json!([self.handle]);
        // The end of the stream reports the result.
        drop(self.connection.call("capture.stop", parameters));
    }
}

/// The running capture, once it is open, for several threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Current(Arc<Mutex<Option<Running>>>);

impl Current {
    /// Returns the earlier capture.
    pub(super) fn replace(&self, running: Running) -> Option<Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(running)
    }

    pub(super) fn get(&self) -> Option<Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
