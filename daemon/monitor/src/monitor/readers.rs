//! The processes that read captures, as the monitor knows them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};

use sockbroker_sys::record;

use super::ended::Ending;
use super::starts::Starts;
use super::worker_ids::WorkerId;
use crate::channel::Channel;
use crate::message::Build;
use crate::reader::message::ToReader;
use crate::role::{self, Role};

/// The processes of one worker that have not ended.
const UNENDED: usize = 4;

/// The processes of one worker, each with its user id.
type Processes = Vec<(Child, Option<WorkerId>)>;

/// The processes.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) starts: Starts,
    /// By the tokens of their workers.
    running: BTreeMap<u64, Processes>,
}

impl Readers {
    /// With at most this many starts a second for one user.
    pub(super) fn new(starts_per_second: u64) -> Self {
        Self { starts: Starts::new(starts_per_second), running: BTreeMap::new() }
    }

    /// Starts a process for a worker, in place of an earlier one. Returns the ends of its channels: the worker's, and the
    /// opener's.
    pub(super) fn start(
        &mut self,
        token: u64,
        (uid, name): (u32, &str),
        id: Option<WorkerId>,
        configuration: BorrowedFd<'_>,
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let earlier = self.running.entry(token).or_default();
        for (process, _) in &mut *earlier {
            // It may have ended already. Without its channels it ends by itself.
            drop(process.kill());
        }
        earlier.retain_mut(|(process, _)| matches!(process.try_wait(), Ok(None)));
        if earlier.len() >= UNENDED {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let (channel, of_process) = record::pair()?;
        let (of_opener, opener) = record::pair()?;
        // Before the start and before the worker has its end: nobody else can send the first messages.
        let first = Channel::<ToReader, ToReader>::over(channel);
        let begin = ToReader::Begin { id: id.as_ref().map(WorkerId::number) };
        first
            .send(&ToReader::Hello(Build::OWN), &[])
            .and_then(|()| first.send(&begin, &[configuration, opener.as_fd()]))
            .map_err(io::Error::other)?;
        let child = role::start(Role::Reader, name, &[], of_process, Stdio::null())?;
        tracing::debug!(uid, pid = child.id(), "started a process that reads captures");
        self.running.entry(token).or_default().push((child, id));
        Ok((first.into_socket(), of_opener))
    }

    /// Waits for processes that have ended.
    pub(super) fn collect(&mut self) {
        for processes in self.running.values_mut() {
            processes.retain_mut(|(process, _)| matches!(process.try_wait(), Ok(None)));
        }
        self.running.retain(|_, processes| !processes.is_empty());
    }

    /// The processes of a worker that has ended, which end too.
    pub(super) fn take(&mut self, token: u64) -> Vec<Ending> {
        let processes = self.running.remove(&token).unwrap_or_default().into_iter();
        let ending = processes.map(|(mut child, id)| {
            // It may have ended already, and ends without its worker in any case.
            drop(child.kill());
            Ending { child, unexpected: None, id }
        });
        ending.collect()
    }
}
