//! The identity with which a call on an `AF_UNIX` socket is made.
//!
//! The kernel checks paths by the ids of the calling thread and shows them to the peer (`SO_PEERCRED`,
//! `SCM_CREDENTIALS`). The broker must not lend its own ids: each such call is made in a thread that takes
//! the client's ids and ends afterwards, or it is refused. A path may lead to a file system that does not
//! answer, so the number of these threads is limited for each user. The thread of a cancelled call runs to
//! its end.

use std::io;
use std::sync::Arc;
use std::thread;

use sockbroker_sys::identity::{self, Identity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{During, OpError, OpResult};
use crate::network::opener::Privileged;
use crate::principal::Principal;
use crate::quota::User;
use sockbroker_proto::socket_spec::SocketSpec;

/// The broker's own identity, and the limit on threads with other ids.
#[derive(Debug)]
pub struct CallerIdentities {
    /// `None` if it is unknown: then no caller is taken for the broker.
    own: Option<Identity>,
    /// Whether the broker can read files that its user cannot.
    overrides: bool,
    able: bool,
    jobs: Arc<Semaphore>,
}

/// The identity with which the calls of a connection are made, and how they reach what needs a capability.
#[derive(Debug, Clone)]
pub struct CallerIdentity {
    /// `None` for the broker's own user.
    client: Option<Arc<Client>>,
    privileged: Privileged,
}

/// A client with other ids than the broker.
#[derive(Debug)]
pub(crate) struct Client {
    identity: Arc<Identity>,
    able: bool,
    user: Arc<User>,
    jobs: Arc<Semaphore>,
}

impl CallerIdentities {
    /// With at most `jobs` threads at a time.
    pub fn new(jobs: usize) -> Self {
        Self {
            own: Identity::own().ok(),
            overrides: identity::overrides_files().unwrap_or(true),
            able: identity::can_change().unwrap_or(false),
            jobs: Arc::new(Semaphore::new(jobs)),
        }
    }

    /// The identity of a principal. Calls with the broker's own ids are made directly, unless the broker has
    /// more rights than its user; root has them in any case.
    pub fn of(
        &self,
        principal: &Principal,
        user: &Arc<User>,
        privileged: Privileged,
    ) -> CallerIdentity {
        let Principal::Local(subject) = principal;
        let (uid, gid, groups) = (subject.uid, subject.gid, subject.groups.clone());
        let identity = Identity { uid, gid, groups };
        let same = self.own.as_ref().is_some_and(|own| own.is_same(&identity));
        if same && (identity.uid == 0 || !self.overrides) {
            return CallerIdentity { client: None, privileged };
        }
        let able = self.able || same;
        let (user, jobs) = (user.clone(), self.jobs.clone());
        let client = Client { identity: Arc::new(identity), able, user, jobs };
        CallerIdentity { client: Some(Arc::new(client)), privileged }
    }
}

impl CallerIdentity {
    /// Whether the caller is the broker's own user, whose calls are made directly.
    pub fn is_broker(&self) -> bool {
        self.client.is_none()
    }

    /// How the calls reach what needs a capability.
    pub(crate) fn privileged(&self) -> &Privileged {
        &self.privileged
    }

    /// Runs a job on files as the caller, in a thread of its own: it may wait for a file system.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        spec: SocketSpec,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<T> {
        if let Some(client) = self.client(spec, call)? {
            return client.call(call, job).await;
        }
        let (done, result) = oneshot::channel();
        // The receiver is gone if the call was cancelled.
        let body = move || drop(done.send(job()));
        let thread = thread::Builder::new().name("files".to_owned()).stack_size(FILES_STACK);
        thread.spawn(body).during(call)?;
        let ended = |_| OpError::Plain(format!("{call}: its thread ended early"));
        result.await.map_err(ended)?.during(call)
    }

    /// The client as which a call on such a socket is made; `None` for the broker itself.
    pub(crate) fn client(
        &self,
        spec: SocketSpec,
        call: &'static str,
    ) -> OpResult<Option<&Arc<Client>>> {
        match &self.client {
            Some(client) if spec.domain == libc::AF_UNIX => {
                let uid = client.identity.uid;
                if client.able { Ok(Some(client)) } else { Err(OpError::Identity { call, uid }) }
            }
            _ => Ok(None),
        }
    }
}

impl Client {
    /// The ids with which its calls are made.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes a call as the client.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<T> {
        self.attempt(call, job).await?.during(call)
    }

    /// Makes a call as the client, and returns the call's own result.
    pub(crate) async fn attempt<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<io::Result<T>> {
        // The user's own limit first: a call that waits for it takes no place of others.
        let own = enter(&self.user.identities).await?;
        let all = enter(&self.jobs).await?;
        let (sender, result) = oneshot::channel();
        let finish = move |outcome| {
            // The receiver is gone if the call was cancelled.
            drop((own, all, sender.send(outcome)));
        };
        identity::spawn_as(self.identity.clone(), job, finish).during(call)?;
        let uid = self.identity.uid;
        match result.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_unable)) => Err(OpError::Identity { call, uid }),
            Err(_ended) => Err(OpError::Plain(format!("{call}: its thread ended early"))),
        }
    }
}

/// The stack of a thread that makes a few system calls.
const FILES_STACK: usize = 256 << 10;

async fn enter(gate: &Arc<Semaphore>) -> OpResult<OwnedSemaphorePermit> {
    let closed = |_| OpError::Session("the broker is shutting down");
    gate.clone().acquire_owned().await.map_err(closed)
}
