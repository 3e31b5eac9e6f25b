//! The descriptor store of the service manager (`FDSTORE`, `sd_notify(3)`). Nothing waits for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::service_manager::ServiceManager;

/// When to try again to send what the service manager had no room for.
const RETRY: Duration = Duration::from_millis(20);
/// Messages that wait. Beyond it the service manager does not read, and further ones are dropped.
const WAITING: usize = 1024;

/// The store, and the messages that wait to be sent to it.
#[derive(Debug)]
pub(super) struct Store {
    manager: Option<ServiceManager>,
    /// Whether the service manager states that it keeps descriptors (`$FDSTORE`, systemd 254).
    pub(super) is_known: bool,
    waiting: VecDeque<(String, Vec<OwnedFd>)>,
    pub(super) retry_at: Option<Instant>,
}

impl Store {
    pub(super) fn new(manager: Option<ServiceManager>, is_known: bool) -> Self {
        Self { manager, is_known, waiting: VecDeque::new(), retry_at: None }
    }

    /// Whether a broker that is started later gets what is stored.
    pub(super) fn keeps(&self) -> bool {
        self.manager.is_some() && self.is_known
    }

    /// Stores descriptors under a name.
    pub(super) fn add(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        self.send(format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptors);
    }

    /// Removes what has this name.
    pub(super) fn remove(&mut self, name: &str) {
        self.send(format!("FDSTOREREMOVE=1\nFDNAME={name}"), Vec::new());
    }

    /// The end of a pipe whose other end the service manager closes once it has handled all earlier messages.
    pub(super) fn barrier(&mut self) -> io::Result<OwnedFd> {
        let (own, other) = io::pipe()?;
        self.send("BARRIER=1".to_owned(), vec![other.into()]);
        Ok(own.into())
    }

    fn send(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        if self.manager.is_none() {
            return;
        }
        if self.waiting.len() >= WAITING {
            tracing::error!("the service manager does not read its notifications");
            return;
        }
        self.waiting.push_back((text, descriptors));
        self.flush();
    }

    /// Sends what waits, as far as the service manager has room.
    pub(super) fn flush(&mut self) {
        self.retry_at = None;
        let Some(manager) = &self.manager else { return };
        while let Some((text, descriptors)) = self.waiting.front() {
            let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            match manager.send(text, &borrowed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(Instant::now() + RETRY);
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot notify the service manager"),
            }
            self.waiting.pop_front();
        }
    }
}
