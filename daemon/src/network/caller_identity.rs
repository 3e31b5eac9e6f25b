//! The identity with which a call on an `AF_UNIX` socket is made.
//!
//! The kernel checks paths by the ids of the calling thread and shows them to the peer (`SO_PEERCRED`,
//! `SCM_CREDENTIALS`). The broker must not lend its own ids: a worker asks a process with the ids of its caller
//! (`network/caller_process/`), and a broker of one process starts a thread that takes these ids and ends afterwards.
//! A path may lead to a file system that does not answer, so the number of such calls is limited for each user. A
//! cancelled call runs to its end.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;

use sockbroker_monitor::caller::message::{UnixAnswer, UnixCall};
use sockbroker_monitor::caller::perform;
use sockbroker_monitor::message::{Caller, CallerRefusal};
use sockbroker_sys::identity::{self, Identity};
use sockbroker_sys::process;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_process::{CallerProcess, Descriptors, Failure, Link, Reply};
use crate::network::opener::Privileged;
use crate::principal::Principal;
use crate::quota::User;
use sockbroker_proto::socket_spec::SocketSpec;

/// How the calls of callers are made, and the limit on those in progress.
#[derive(Debug)]
pub struct CallerIdentities {
    kind: Kind,
    jobs: Arc<Semaphore>,
}

#[derive(Debug)]
enum Kind {
    /// One process serves every principal.
    Single {
        /// `None` if it is unknown: then no caller is taken for the broker.
        own: Option<Identity>,
        /// Whether the broker can read files that its user cannot.
        overrides: bool,
        able: bool,
    },
    /// This process serves one principal, and has no capability.
    Worker { caller: Caller, process: Arc<CallerProcess>, starts_per_second: u64 },
}

/// The identity with which the calls of a connection are made, and how they reach what needs a capability.
#[derive(Debug, Clone)]
pub struct CallerIdentity {
    /// `None` if this process has the ids and the rights of the caller.
    client: Option<Arc<Client>>,
    is_broker: bool,
    /// Whether the caller has no ids on this machine.
    is_remote: bool,
    privileged: Privileged,
}

/// A client with other ids than this process, or with more rights.
#[derive(Debug)]
pub(crate) struct Client {
    uid: u32,
    gid: u32,
    way: Way,
    user: Arc<User>,
    jobs: Arc<Semaphore>,
}

/// How its calls are made.
#[derive(Debug)]
enum Way {
    /// By a thread with its ids.
    Thread { identity: Arc<Identity>, able: bool },
    /// By a process with its ids.
    Process {
        process: Arc<CallerProcess>,
        /// Whether this process has the same user and group.
        same_user: bool,
        /// Whether this process has the same groups as well.
        same_ids: bool,
        starts_per_second: u64,
    },
}

impl CallerIdentities {
    /// Those of a broker of one process, with at most `jobs` threads at a time.
    pub fn new(jobs: usize) -> Self {
        let kind = Kind::Single {
            own: Identity::own().ok(),
            overrides: identity::overrides_files().unwrap_or(true),
            able: identity::can_change().unwrap_or(false),
        };
        Self { kind, jobs: Arc::new(Semaphore::new(jobs)) }
    }

    /// Those of a worker, with at most `jobs` calls at a time. The process is started when it is needed, at most this
    /// often.
    pub fn of_worker(
        jobs: usize,
        caller: Caller,
        process: CallerProcess,
        starts_per_second: u64,
    ) -> Self {
        let kind = Kind::Worker { caller, process: Arc::new(process), starts_per_second };
        Self { kind, jobs: Arc::new(Semaphore::new(jobs)) }
    }

    /// Ends the process that acts as the caller if it had nothing to do for this time.
    pub fn end_idle(&self, longest: std::time::Duration) {
        if let Kind::Worker { process, .. } = &self.kind {
            process.end_idle(longest);
        }
    }

    /// Whether that process runs.
    pub fn is_running(&self) -> bool {
        match &self.kind {
            Kind::Worker { process, .. } => process.is_running(),
            Kind::Single { .. } => false,
        }
    }

    /// The identity of a principal. Calls with the ids and the rights of this process are made directly. Root has all
    /// rights in any case.
    pub fn of(
        &self,
        principal: &Principal,
        user: &Arc<User>,
        privileged: Privileged,
    ) -> CallerIdentity {
        let subject = match principal {
            Principal::Local(subject) => subject,
            Principal::Certificate(_) | Principal::Token(_) => {
                return CallerIdentity {
                    client: None,
                    is_broker: false,
                    is_remote: true,
                    privileged,
                };
            }
        };
        let (uid, gid) = (subject.uid, subject.gid);
        let (way, is_broker) = match &self.kind {
            Kind::Single { own, overrides, able } => {
                let identity = Identity { uid, gid, groups: subject.groups.clone() };
                let same = own.as_ref().is_some_and(|own| own.is_same(&identity));
                let is_broker = same && (uid == 0 || !overrides);
                let (identity, able) = (Arc::new(identity), *able || same);
                ((!is_broker).then_some(Way::Thread { identity, able }), is_broker)
            }
            Kind::Worker { caller: Caller::Same, .. } => (None, true),
            Kind::Worker { caller, process, starts_per_second } => {
                let own = (process::effective_uid(), process::effective_gid());
                let (same_user, is_broker) = (own == (uid, gid), *caller == Caller::Broker);
                let (process, starts_per_second) = (process.clone(), *starts_per_second);
                let same_ids = same_user && is_broker;
                let way = Way::Process { process, same_user, same_ids, starts_per_second };
                (Some(way), is_broker)
            }
        };
        let (user, jobs) = (user.clone(), self.jobs.clone());
        let client = way.map(|way| Arc::new(Client { uid, gid, way, user, jobs }));
        CallerIdentity { client, is_broker, is_remote: false, privileged }
    }
}

impl CallerIdentity {
    /// Whether the caller is the broker's own user.
    pub fn is_broker(&self) -> bool {
        self.is_broker
    }

    /// Whether a message of such a socket gets the ids of the caller in place of credentials that it contains.
    pub(crate) fn signs(&self, domain: i32) -> bool {
        self.client.is_some() && domain == libc::AF_UNIX
    }

    /// How the calls reach what needs a capability.
    pub(crate) fn privileged(&self) -> &Privileged {
        &self.privileged
    }

    /// Makes a call on files as the caller: it may wait for a file system.
    pub(crate) async fn call_on_files(
        &self,
        name: &'static str,
        spec: SocketSpec,
        call: UnixCall,
        descriptors: Descriptors,
    ) -> OpResult<Reply> {
        if let Some(client) = self.client(spec, name)? {
            return client.call(name, call, descriptors).await;
        }
        let (done, result) = oneshot::channel();
        let body = move || {
            let borrowed: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
            // The receiver is gone if the call was cancelled.
            drop(done.send(perform(&call, &borrowed)));
        };
        let thread = thread::Builder::new().name("files".to_owned()).stack_size(FILES_STACK);
        thread.spawn(body).during(name)?;
        let ended = |_| OpError::Plain(format!("{name}: its thread ended early"));
        result.await.map_err(ended)?.during(name)
    }

    /// The client as which a call on such a socket is made; `None` if this process makes it.
    pub(crate) fn client(
        &self,
        spec: SocketSpec,
        call: &'static str,
    ) -> OpResult<Option<&Arc<Client>>> {
        if self.is_remote && spec.domain == libc::AF_UNIX {
            return Err(OpError::Remote(format!(
                "{call}: calls on AF_UNIX sockets are made with the ids of the caller, and a remote principal has none on \
                 this machine: use another address family"
            )));
        }
        match &self.client {
            Some(client) if spec.domain == libc::AF_UNIX => match client.way {
                Way::Thread { able: false, .. } => Err(OpError::Identity { call, uid: client.uid }),
                Way::Thread { able: true, .. } | Way::Process { .. } => Ok(Some(client)),
            },
            _ => Ok(None),
        }
    }

    /// The same for a call that shows the ids to a peer, and does not look up a path.
    pub(crate) fn client_by_ids(
        &self,
        spec: SocketSpec,
        call: &'static str,
    ) -> OpResult<Option<&Arc<Client>>> {
        let client = self.client(spec, call)?;
        Ok(client.filter(|client| !matches!(client.way, Way::Process { same_ids: true, .. })))
    }
}

impl Client {
    /// The user and the group with which its calls are made.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Whether this process can send messages that show the ids of the client to a peer.
    pub(crate) fn can_sign(&self) -> bool {
        !matches!(self.way, Way::Process { same_user: false, .. })
    }

    /// Makes a call as the client.
    pub(crate) async fn call(
        &self,
        name: &'static str,
        call: UnixCall,
        descriptors: Descriptors,
    ) -> OpResult<Reply> {
        self.attempt(name, call, descriptors).await?.during(name)
    }

    /// Makes a call as the client, and returns the call's own result.
    pub(crate) async fn attempt(
        &self,
        name: &'static str,
        call: UnixCall,
        descriptors: Descriptors,
    ) -> OpResult<io::Result<Reply>> {
        // The user's own limit first: a call that waits for it takes no place of others.
        let own = enter(&self.user.identities).await?;
        let held = Arc::new((own, enter(&self.jobs).await?));
        match &self.way {
            Way::Thread { identity, .. } => {
                let (sender, result) = oneshot::channel();
                let job = move || {
                    let borrowed: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
                    perform(&call, &borrowed)
                };
                let finish = move |outcome| {
                    // The receiver is gone if the call was cancelled.
                    drop((held, sender.send(outcome)));
                };
                identity::spawn_as(identity.clone(), job, finish).during(name)?;
                match result.await {
                    Ok(Ok(outcome)) => Ok(outcome),
                    Ok(Err(_unable)) => Err(OpError::Identity { call: name, uid: self.uid }),
                    Err(_ended) => Err(OpError::Plain(format!("{name}: its thread ended early"))),
                }
            }
            Way::Process { .. } => {
                let answered = match self.try_call(&call, &descriptors, &held).await {
                    // The process had ended before the call.
                    Err(Failure::NotSent) => self.try_call(&call, &descriptors, &held).await,
                    answered => answered,
                };
                match answered.map_err(|failure| self.describe(name, failure))? {
                    (UnixAnswer::Failed(errno), _) => Ok(Err(io::Error::from_raw_os_error(errno))),
                    (UnixAnswer::NoThread(errno), _) => Err(OpError::Os { call: name, errno }),
                    answered => Ok(Ok(answered)),
                }
            }
        }
    }

    async fn try_call(
        &self,
        call: &UnixCall,
        descriptors: &Descriptors,
        held: &Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    ) -> Result<Reply, Failure> {
        let link = self.link().await?;
        link.call(call.clone(), descriptors.clone(), held.clone()).await
    }

    /// The process that makes its calls, which is started if it does not run.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Failure> {
        match &self.way {
            Way::Process { process, .. } => process.link().await,
            Way::Thread { .. } => Err(Failure::Refused(CallerRefusal::Unable)),
        }
    }

    /// The error of a call without an answer.
    pub(crate) fn describe(&self, call: &'static str, failure: Failure) -> OpError {
        let uid = self.uid;
        let value = match self.way {
            Way::Process { starts_per_second, .. } => starts_per_second,
            Way::Thread { .. } => 0,
        };
        match failure {
            Failure::Refused(CallerRefusal::Unable) => OpError::Identity { call, uid },
            Failure::Refused(CallerRefusal::Starts) => {
                OpError::Limit { name: "worker_starts_per_second", value }
            }
            Failure::Refused(CallerRefusal::NotGranted) => OpError::Plain(format!(
                "{call}: the monitor does not start a process with the ids of user {uid}: no rule grants AF_UNIX"
            )),
            Failure::Refused(CallerRefusal::Failed(errno)) | Failure::Failed(errno) => {
                OpError::Os { call, errno }
            }
            Failure::NotSent | Failure::Ended => OpError::Plain(format!(
                "{call}: the process that acts as user {uid} ended, and may have made the call"
            )),
        }
    }
}

/// The stack of a thread that makes a few system calls.
const FILES_STACK: usize = 256 << 10;

async fn enter(gate: &Arc<Semaphore>) -> OpResult<OwnedSemaphorePermit> {
    let closed = |_| OpError::Session("the broker is shutting down");
    gate.clone().acquire_owned().await.map_err(closed)
}
