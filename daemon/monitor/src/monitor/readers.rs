//! The processes that read captures, as the monitor knows them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::lot::Lot;
use sockbroker_sys::record;

use super::starts::Starts;
use super::worker_ids::WorkerId;
use crate::channel::Channel;
use crate::message::Build;
use crate::reader::message::ToReader;
use crate::role::{self, Role};

/// Requests of one worker that wait for the end of an earlier process.
const WAITING: usize = 4;
/// How long a process may take to end after its worker. It writes why its captures end.
const END: Duration = Duration::from_secs(2);

/// A process, with its user id.
type Process = (Child, Option<WorkerId>);

/// A process whose worker has ended.
#[derive(Debug)]
struct Leaving {
    peer: Credentials,
    process: Process,
    kill_at: Option<Instant>,
}

/// The processes. At no time two of one principal run: both would read the captures that outlive a reader.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) starts: Starts,
    /// By the tokens of their workers.
    running: BTreeMap<u64, Process>,
    leaving: Vec<Leaving>,
    /// The lots of workers whose principal has none for itself.
    lots: BTreeMap<u64, Lot>,
    /// What would be the opener's ends, in a broker without one.
    without_opener: BTreeMap<u64, OwnedFd>,
    /// Workers that wait for one, with the number of the request.
    waiting: VecDeque<(u64, u64)>,
}

impl Readers {
    /// With at most this many starts a second for one user.
    pub(super) fn new(starts_per_second: u64) -> Self {
        Self {
            starts: Starts::new(starts_per_second),
            running: BTreeMap::new(),
            leaving: Vec::new(),
            lots: BTreeMap::new(),
            without_opener: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether a worker can have a process now. Ends an earlier one.
    pub(super) fn is_free(&mut self, token: u64, peer: &Credentials) -> bool {
        self.collect();
        if let Some((process, _)) = self.running.get_mut(&token) {
            // Without its channels it ends by itself.
            drop(process.kill());
            return false;
        }
        !self.leaving.iter().any(|leaving| leaving.peer == *peer)
    }

    /// Holds the other end of a process that opens no capture, and only ends those that an earlier one left.
    pub(super) fn hold(&mut self, token: u64, of_opener: OwnedFd) {
        self.without_opener.insert(token, of_opener);
    }

    /// Lets a request wait until [`Self::is_free`]. `false` if too many do.
    pub(super) fn wait(&mut self, token: u64, request: u64) -> bool {
        let has_room = self.waiting.iter().filter(|(of, _)| *of == token).count() < WAITING;
        if has_room {
            self.waiting.push_back((token, request));
        }
        has_room
    }

    /// The requests that wait.
    pub(super) fn take_waiting(&mut self) -> VecDeque<(u64, u64)> {
        std::mem::take(&mut self.waiting)
    }

    /// The lot for the process of a worker whose principal has none.
    pub(super) fn lot(&mut self, token: u64) -> io::Result<&Lot> {
        match self.lots.entry(token) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Lot::create()?)),
        }
    }

    /// The lot for the process of a worker whose principal gets lots.
    pub(super) fn take_lot(&mut self, token: u64) -> io::Result<Lot> {
        self.lots.remove(&token).map_or_else(Lot::create, Ok)
    }

    /// Starts a process for a worker that [`Self::is_free`]. Returns the ends of its channels: the worker's, and the
    /// opener's.
    pub(super) fn start(
        &mut self,
        token: u64,
        (uid, name): (u32, &str),
        id: Option<WorkerId>,
        configuration: BorrowedFd<'_>,
        lot: &[OwnedFd; 2],
    ) -> io::Result<(OwnedFd, OwnedFd)> {
        let (channel, of_process) = record::pair()?;
        let (of_opener, opener) = record::pair()?;
        // Before the start and before the worker has its end: nobody else can send the first messages.
        let first = Channel::<ToReader, ToReader>::over(channel);
        let begin = ToReader::Begin { id: id.as_ref().map(WorkerId::number) };
        first
            .send(&ToReader::Hello(Build::OWN), &[])
            .and_then(|()| {
                let [read, write] = lot;
                first.send(&begin, &[configuration, opener.as_fd(), read.as_fd(), write.as_fd()])
            })
            .map_err(io::Error::other)?;
        let child = role::start(Role::Reader, name, &[], of_process, Stdio::null())?;
        tracing::debug!(uid, pid = child.id(), "started a process that reads captures");
        self.running.insert(token, (child, id));
        Ok((first.into_socket(), of_opener))
    }

    /// Waits for processes that have ended.
    pub(super) fn collect(&mut self) {
        let is_left = |process: &mut Process| matches!(process.0.try_wait(), Ok(None));
        self.running.retain(|_, process| is_left(process));
        self.leaving.retain_mut(|leaving| is_left(&mut leaving.process));
    }

    /// The worker of a process has ended: the process ends by itself.
    pub(super) fn leave(&mut self, token: u64, peer: &Credentials) {
        self.lots.remove(&token);
        self.without_opener.remove(&token);
        self.waiting.retain(|(of, _)| *of != token);
        if let Some(process) = self.running.remove(&token) {
            let kill_at = Some(Instant::now() + END);
            self.leaving.push(Leaving { peer: peer.clone(), process, kill_at });
        }
    }

    /// When a process has to be killed that does not end.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.leaving.iter().filter_map(|leaving| leaving.kill_at).min()
    }

    /// Kills processes that do not end.
    pub(super) fn kill_late(&mut self, now: Instant) {
        for leaving in &mut self.leaving {
            if leaving.kill_at.take_if(|at| *at <= now).is_some() {
                // It may have ended meanwhile.
                drop(leaving.process.0.kill());
            }
        }
    }
}
