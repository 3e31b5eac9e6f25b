//! Processes that are about to end, or were killed: waited for without blocking.

use std::process::Child;

use super::remote::Named;
use super::worker_ids::WorkerId;

/// A process that nothing is expected of any more.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) child: Child,
    /// The user or the remote principal of a worker whose end is logged, because nothing asked for it.
    pub(super) unexpected: Option<Named>,
    /// The user id of a worker, which is free once it has ended.
    pub(super) id: Option<WorkerId>,
}

/// The processes that have not been waited for.
#[derive(Debug, Default)]
pub(super) struct EndingProcesses(Vec<Ending>);

impl EndingProcesses {
    /// Waits for a process once it has ended.
    pub(super) fn add(&mut self, ending: Ending) {
        self.0.push(ending);
        self.collect();
    }

    /// Waits for those that have ended.
    pub(super) fn collect(&mut self) {
        self.0.retain_mut(|process| !process.has_ended());
    }
}

impl Ending {
    fn has_ended(&mut self) -> bool {
        let pid = self.child.id();
        match self.child.try_wait() {
            Ok(None) => return false,
            Ok(Some(status)) => {
                if let Some((uid, principal)) = self.unexpected.take_if(|_| !status.success()) {
                    let id = self.id.as_ref().map(WorkerId::number);
                    tracing::warn!(
                        uid,
                        principal,
                        pid,
                        id,
                        %status,
                        "a worker ended; its sockets are closed, except those of persistent sessions"
                    );
                }
            }
            Err(error) => tracing::error!(pid, %error, "cannot wait for a process"),
        }
        true
    }
}
