//! As whom a call on an `AF_UNIX` socket is made.
//!
//! The kernel judges paths by the ids of the thread that calls, and tells them to the other end
//! (`SO_PEERCRED`, `SCM_CREDENTIALS`). The broker must not lend its own: such calls are made as the
//! client, each in a thread that takes on the client's ids and ends afterwards, or they are refused.
//! A path may lead to a file system that does not answer, so these threads are few for each user; a
//! call that is cancelled leaves its thread to finish alone.

use std::io;
use std::sync::Arc;
use std::thread;

use sockbroker_sys::identity::{self, Identity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{During, OpError, OpResult};
use crate::principal::Principal;
use crate::quota::User;
use sockbroker_proto::socket_spec::SocketSpec;

/// The broker's own identity, and the gate before threads with others.
#[derive(Debug)]
pub struct CallerIdentities {
    /// `None` if the system does not tell: then nobody is taken for the broker.
    own: Option<Identity>,
    /// Whether the broker reads files that its user could not.
    overrides: bool,
    able: bool,
    jobs: Arc<Semaphore>,
}

/// As whom the calls of a connection are made.
#[derive(Debug, Clone)]
pub struct CallerIdentity(Option<Arc<Client>>);

/// A client that is somebody else than the broker.
#[derive(Debug)]
pub(crate) struct Client {
    identity: Arc<Identity>,
    able: bool,
    user: Arc<User>,
    jobs: Arc<Semaphore>,
}

impl CallerIdentities {
    /// With at most so many threads at a time.
    pub fn new(jobs: usize) -> Self {
        Self {
            own: Identity::own().ok(),
            overrides: identity::overrides_files().unwrap_or(true),
            able: identity::can_change().unwrap_or(false),
            jobs: Arc::new(Semaphore::new(jobs)),
        }
    }

    /// The caller of a subject. One with the broker's own ids acts directly, unless the broker could
    /// do more than that user; root could in any case.
    pub fn of(&self, principal: &Principal, user: &Arc<User>) -> CallerIdentity {
        let Principal::Local(subject) = principal;
        let (uid, gid, groups) = (subject.uid, subject.gid, subject.groups.clone());
        let identity = Identity { uid, gid, groups };
        let same = self.own.as_ref().is_some_and(|own| own.is_same(&identity));
        if same && (identity.uid == 0 || !self.overrides) {
            return CallerIdentity(None);
        }
        let able = self.able || same;
        let (user, jobs) = (user.clone(), self.jobs.clone());
        CallerIdentity(Some(Arc::new(Client { identity: Arc::new(identity), able, user, jobs })))
    }
}

impl CallerIdentity {
    /// Whether the caller is the broker's own user, for whom everything is as without a broker.
    pub fn is_broker(&self) -> bool {
        self.0.is_none()
    }

    /// Does something with files in a thread of its own that ends afterwards, as the caller. It may wait for a
    /// file system.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        facts: SocketSpec,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<T> {
        if let Some(client) = self.client(facts, call)? {
            return client.call(call, job).await;
        }
        let (done, result) = oneshot::channel();
        // A caller that has gone does not wait for the result.
        let body = move || drop(done.send(job()));
        let thread = thread::Builder::new().name("files".to_owned()).stack_size(FILES_STACK);
        thread.spawn(body).during(call)?;
        let ended = |_| OpError::Plain(format!("{call}: its thread ended early"));
        result.await.map_err(ended)?.during(call)
    }

    /// Whom a call on such a socket is to be made as; `None` for the broker itself.
    pub(crate) fn client(
        &self,
        facts: SocketSpec,
        call: &'static str,
    ) -> OpResult<Option<&Arc<Client>>> {
        match &self.0 {
            Some(client) if facts.domain == libc::AF_UNIX => {
                let uid = client.identity.uid;
                if client.able { Ok(Some(client)) } else { Err(OpError::Identity { call, uid }) }
            }
            _ => Ok(None),
        }
    }
}

impl Client {
    /// The ids that its calls are made with.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes a call as the client, once.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<T> {
        self.attempt(call, job).await?.during(call)
    }

    /// Makes a call as the client, and gives what it returned.
    pub(crate) async fn attempt<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> OpResult<io::Result<T>> {
        // The user's own limit first: a call that waits for it takes no place of others.
        let own = enter(&self.user.identities).await?;
        let all = enter(&self.jobs).await?;
        let (told, result) = oneshot::channel();
        let tell = move |outcome| {
            // A caller that has gone is not told.
            drop((own, all, told.send(outcome)));
        };
        identity::spawn_as(self.identity.clone(), job, tell).during(call)?;
        let uid = self.identity.uid;
        match result.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_unable)) => Err(OpError::Identity { call, uid }),
            Err(_ended) => Err(OpError::Plain(format!("{call}: its thread ended early"))),
        }
    }
}

/// A job is a few system calls.
const FILES_STACK: usize = 256 << 10;

async fn enter(gate: &Arc<Semaphore>) -> OpResult<OwnedSemaphorePermit> {
    let closed = |_| OpError::Session("the broker is shutting down");
    gate.clone().acquire_owned().await.map_err(closed)
}
