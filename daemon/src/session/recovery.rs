//! Restores the sessions that an earlier process left in the lots.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sockbroker_monitor::message::{Index, KeptSession, Persisted, Waiting};
use sockbroker_proto::api::session::Persistence as Reach;

use crate::descriptor::Descriptor;
use crate::principal::{Principal, PrincipalKey};
use crate::quota::{Share, User};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::lots::{Found, Held, Key, Lots, Recovered};
use crate::session::monitor_link::MonitorLink;
use crate::session::parking::Persistence;
use crate::session::persistence::may_persist;
use crate::session::record::{
    OwnerRecord, RecordError, SessionFacts, SessionRecord, SessionState, StreamRecord, decode,
    read_memory,
};
use crate::session::restore::Restored;
use crate::session::restriction::RestrictionText;
use crate::session::socket_record::SocketRecord;
use crate::session::streams::RestoredStream;
use crate::table::{Numbers, slots};
use sockbroker_policy::Policy;

/// The kind of streams that captures are.
const CAPTURE: &str = "capture";

/// Sockets that nobody gets. They are closed where that cannot stall anything, after the lots have no copy.
struct Closed<'a> {
    user: &'a Arc<User>,
    sockets: Vec<Descriptor>,
}

impl Closed<'_> {
    fn add(&mut self, sockets: impl IntoIterator<Item = OwnedFd>) {
        let user = self.user;
        self.sockets.extend(sockets.into_iter().map(|fd| Descriptor::of_client(fd, user)));
    }
}

/// The messages of the lots that stay, with what each keeps open.
type Memories = HashMap<Key, Option<Held>>;

/// What the lots have of one session.
#[derive(Default)]
struct Parts {
    state: Option<SessionState>,
    sockets: BTreeMap<u64, SocketRecord>,
    descriptors: HashMap<u64, OwnedFd>,
    /// Captures, each with the memory that describes it.
    captures: BTreeMap<u64, OwnedFd>,
}

impl Parts {
    fn read(session: u64, found: HashMap<u64, Found>, closed: &mut Closed<'_>) -> Self {
        let mut parts = Self::default();
        for (handle, Found { body, descriptor }) in found {
            if handle == 0 {
                parts.state = decode(&body).ok();
                closed.add(descriptor);
                continue;
            }
            let Some(descriptor) = descriptor else { continue };
            if decode(&body).is_ok_and(|StreamRecord { stream }| stream == CAPTURE) {
                parts.captures.insert(handle, descriptor);
                continue;
            }
            match decode::<SocketRecord>(&body) {
                // It would have ended with the connection.
                Ok(SocketRecord { network: Some(_), .. }) => closed.add([descriptor]),
                Ok(record) => {
                    parts.sockets.insert(handle, record);
                    parts.descriptors.insert(handle, descriptor);
                }
                Err(error) => {
                    tracing::warn!(session, handle, %error, "closed a handle whose state is not usable");
                    closed.add([descriptor]);
                }
            }
        }
        parts
    }

    /// The record of the session. `None` if its opening was not answered, or its end was under way.
    fn record(
        &mut self,
        kept: &KeptSession,
        owner: &Index,
    ) -> Result<Option<SessionRecord>, RecordError> {
        let Some(state) = self.state else { return Ok(None) };
        let SessionFacts { token, mut restrictions, cgroup, unit } = decode(&kept.facts)?;
        for text in &kept.restrictions {
            restrictions.push(decode::<RestrictionText>(text)?);
        }
        let mut sockets = std::mem::take(&mut self.sockets);
        adopt_duplicates(&mut sockets);
        let Index { uid, gid, groups, .. } = owner;
        let owner =
            OwnerRecord::Local { uid: *uid, gid: *gid, groups: groups.clone(), cgroup, unit };
        let handles = sockets.keys().chain(self.captures.keys()).copied();
        let numbers = Numbers { slots: slots(handles), generation: state.generation };
        Ok(Some(SessionRecord {
            session: kept.number,
            owner,
            token: Some(token),
            restrictions,
            default_timeout: state.default_timeout,
            linger: kept.linger,
            numbers,
            sockets,
        }))
    }
}

/// Makes the first of the duplicates of a socket whose handle was closed the one that the others are duplicates of.
fn adopt_duplicates(sockets: &mut BTreeMap<u64, SocketRecord>) {
    let open: Vec<u64> = sockets.keys().copied().collect();
    let mut heirs: HashMap<u64, u64> = HashMap::new();
    for (handle, socket) in sockets.iter_mut() {
        let Some(original) = socket.duplicate_of else { continue };
        if open.binary_search(&original).is_err() {
            let first = *heirs.entry(original).or_insert(*handle);
            socket.duplicate_of = (first != *handle).then_some(first);
        }
    }
}

impl Broker {
    /// Restores the sessions that an earlier process left, before any connection is served. Returns their number.
    pub fn recover(&self, index: &Index, persisted: Persisted) -> io::Result<usize> {
        let user = self.users.user(&PrincipalKey::of_uid(index.uid));
        let mut closed = Closed { user: &user, sockets: Vec::new() };
        self.lots.allow(persisted.handles);
        let Recovered { found, dropped } = self.lots.recover()?;
        closed.add(dropped);
        let mut by_session: BTreeMap<u64, HashMap<u64, Found>> = BTreeMap::new();
        for (key, found) in found {
            by_session.entry(key.session).or_default().insert(key.handle, found);
        }
        let reach = if persisted.service { Reach::Service } else { Reach::Worker };
        let mut kept: HashMap<Key, Option<Held>> = HashMap::new();
        let mut count = 0;
        for session in &index.sessions {
            let found = by_session.remove(&session.number).unwrap_or_default();
            let parts = Parts::read(session.number, found, &mut closed);
            let generation = parts.state.map(|state| state.generation).unwrap_or_default();
            let exactly_once = parts.state.is_some_and(|state| state.exactly_once);
            let (restored, memories) = self.restore(session, index, parts, &mut closed);
            match restored {
                Ok(Some(restored)) => {
                    kept.extend(keys(&restored));
                    kept.extend(memories);
                    restored.exactly_once.store(exactly_once, Ordering::Release);
                    restored.expect_client(self.time_left(session));
                    self.keep_recovered(restored, reach, generation);
                    count += 1;
                }
                Ok(None) => self.forget_persistent(session.number),
                Err(error) => {
                    let number = session.number;
                    tracing::error!(session = number, %error, "a session could not be recovered");
                    self.forget_persistent(number);
                }
            }
        }
        for found in by_session.into_values().flat_map(HashMap::into_values) {
            closed.add(found.descriptor);
        }
        self.lots.settle(kept);
        drop(closed);
        self.revoke();
        self.captures.resume();
        Ok(count)
    }

    /// The session of what the lots have, and the memories of its captures. `None` if it does not outlive its worker.
    fn restore(
        &self,
        session: &KeptSession,
        index: &Index,
        mut parts: Parts,
        closed: &mut Closed<'_>,
    ) -> (Result<Option<Session>, RecordError>, Memories) {
        let (policy, _) = self.policy.current();
        let record = parts.record(session, index);
        let record = record.map(|record| record.filter(|record| record.is_granted(&policy)));
        let Parts { descriptors, captures, .. } = parts;
        let mut memories = HashMap::new();
        let record = match record {
            Ok(Some(record)) => record,
            other => {
                closed.add(descriptors.into_values());
                return (other.map(|_none| None), memories);
            }
        };
        let user = closed.user;
        let streams = self.recover_captures((session.number, index.uid), captures, user);
        let streams = streams.into_iter().map(|(handle, (stream, memory))| {
            memories.insert(Key { session: session.number, handle }, Some(memory));
            (handle, stream)
        });
        let streams = streams.collect();
        let broker = Restored { limits: &self.limits, user, claims: &self.claims };
        let restored = Session::restore(record, descriptors, streams, broker);
        (restored.map(Some), memories)
    }

    /// Captures of a session, each with the memory that describes it, by their handles. Another process continues them
    /// soon.
    fn recover_captures(
        &self,
        (session, uid): (u64, u32),
        captures: BTreeMap<u64, OwnedFd>,
        user: &Arc<User>,
    ) -> BTreeMap<u64, (RestoredStream, Held)> {
        let recover = |memory: &OwnedFd| {
            let record = read_memory(memory.as_fd());
            self.captures.recover(&record.map_err(|error| error.to_string())?, user)
        };
        let recovered =
            captures.into_iter().filter_map(|(handle, memory)| match recover(&memory) {
                Ok(capture) => {
                    self.report_end(PrincipalKey::of_uid(uid), (uid, session, handle), &capture);
                    let capture = Arc::new(capture);
                    let (granted, ended) = (capture.granted(), capture.ended());
                    let task = Box::pin(async move {
                        ended.await;
                    });
                    let reservation = user.take_back(Share::Handles, 1);
                    let (kind, body) = (CAPTURE, capture);
                    let stream = RestoredStream { kind, granted, body, task, handle: reservation };
                    let held: Held = Arc::new(memory);
                    Some((handle, (stream, held)))
                }
                Err(error) => {
                    tracing::warn!(
                        session,
                        handle,
                        error,
                        "ended a capture whose state is not usable"
                    );
                    None
                }
            });
        recovered.collect()
    }
}

impl SessionRecord {
    /// Whether a policy lets it outlive its worker. Logs if not.
    fn is_granted(&self, policy: &Policy) -> bool {
        let principal = Principal::from(self.owner.clone());
        let granted = may_persist(policy, principal.subject());
        if !granted {
            let (session, uid) = (self.session, principal.subject().uid);
            tracing::info!(
                session,
                uid,
                "closed a session that no rule lets outlive its worker any more"
            );
        }
        granted
    }
}

impl Session {
    /// Keeps a session that was recovered from the lots.
    pub(super) fn stay_parked(
        &self,
        (lots, reach): (Arc<Lots>, Reach),
        monitor: MonitorLink,
        generation: u64,
    ) {
        let (reserved, left) = (AtomicU64::new(generation), AtomicBool::new(false));
        self.noted.store(self.restricted(), Ordering::Release);
        self.awaits_client.store(true, Ordering::Release);
        *self.persistence_cell() =
            Some(Arc::new(Persistence { lots, reach, monitor, reserved, left }));
    }
}

impl Broker {
    /// Adds a session that an earlier process left.
    pub(super) fn keep_recovered(&self, session: Session, reach: Reach, generation: u64) {
        if let Some(monitor) = self.monitor() {
            let parked = (self.lots.clone(), reach);
            session.stay_parked(parked, monitor.clone(), generation);
        }
        self.report_session(&session, "recovered");
        self.lock().opened.insert(session.number(), Arc::new(session));
        self.sweeps.request();
    }

    /// Whether a number was given by an earlier process.
    pub fn is_earlier(&self, number: u64) -> bool {
        number < self.first_number
    }

    /// How long a session that was recovered waits for its client: the time that began with the end of the worker.
    fn time_left(&self, session: &KeptSession) -> Duration {
        let whole = session.linger.max(Duration::from_secs(self.limits.reattach_seconds));
        session.waiting.map_or(whole, Waiting::left)
    }
}

/// What the lots keep of a session, with its sockets.
fn keys(session: &Session) -> HashMap<Key, Option<Held>> {
    let number = session.number();
    let mut keys = HashMap::from([(Key { session: number, handle: 0 }, None)]);
    for (handle, entry) in session.entries() {
        let held: Held = entry.descriptor().clone();
        keys.insert(Key { session: number, handle: handle.number() }, Some(held));
    }
    keys
}
