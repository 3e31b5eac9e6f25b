//! Connections: the peer, the framing, and the session that each is attached to.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::resolve::Resolver;
use crate::observe::metrics::OpenConnection;
use crate::observe::refusals::Reason;
use crate::principal::Principal;
use crate::quota::User;
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::finished::LastCalls;
use sockbroker_policy::rights::Rights;
use sockbroker_policy::subject::Subject;

/// How the messages of a connection are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// LSP framing, with attachments and, on Unix sockets, descriptors.
    Lsp,
    /// Newline-delimited JSON, on Unix sockets with descriptors.
    Ndjson,
    Http,
    WebSocket,
    /// Data of a socket.
    Channel,
}

impl Framing {
    /// The word in `session.info` and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lsp => "lsp",
            Self::Ndjson => "ndjson",
            Self::Http => "http",
            Self::WebSocket => "websocket",
            Self::Channel => "channel",
        }
    }
}

/// The properties of a connection that never change.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who is at the other end.
    pub principal: Principal,
    pub framing: Framing,
    /// Whether framing and socket can carry descriptors.
    pub descriptors: bool,
    /// Its socket, by which the opener knows it; `None` on standard input.
    pub stream: Option<Weak<Descriptor>>,
}

/// The rights of a subject under one policy in one session.
#[derive(Debug)]
struct Selected {
    generation: u64,
    session: u64,
    restricted: usize,
    rights: Arc<Rights>,
}

/// A connection, attached to one session at a time.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    facts: Facts,
    user: Arc<User>,
    caller: CallerIdentity,
    resolver: Resolver,
    /// Whether every answer may carry attachments.
    attachments: AtomicBool,
    /// Whether answers may carry descriptors.
    descriptors: AtomicBool,
    calls: AtomicU64,
    _counted: OpenConnection,
    session: Mutex<Arc<Session>>,
    /// The subject's rights in the session, selected once.
    rights: Mutex<Option<Selected>>,
    broker: Arc<Broker>,
}

impl Connection {
    /// Begins a connection in an implicit session of its own.
    pub fn begin(broker: &Arc<Broker>, facts: Facts) -> Self {
        let number = broker.number();
        let session = broker.begin(&facts.principal);
        session.join(number);
        let user = broker.users.user(&facts.principal.key());
        Self {
            number,
            caller: broker.callers.of(
                &facts.principal,
                &user,
                broker.privileged(facts.stream.as_ref()),
            ),
            resolver: broker.resolver.of(&user),
            user,
            attachments: AtomicBool::new(false),
            descriptors: AtomicBool::new(facts.descriptors),
            calls: AtomicU64::new(0),
            _counted: broker.metrics.opened(facts.framing.word()),
            facts,
            session: Mutex::new(session),
            rights: Mutex::new(None),
            broker: broker.clone(),
        }
    }

    /// The number, as `call.resolve` names it.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Who is at the other end.
    pub fn principal(&self) -> &Principal {
        &self.facts.principal
    }

    /// What the rules of the policy judge of its principal.
    pub fn subject(&self) -> &Subject {
        self.facts.principal.subject()
    }

    /// Its principal's use of the limits.
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// The identity with which its calls on `AF_UNIX` sockets are made.
    pub fn caller(&self) -> &CallerIdentity {
        &self.caller
    }

    /// The resolver, with the limits of its principal.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The session that it is attached to.
    pub fn session(&self) -> Arc<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rights of its principal in a session, under the policy in force.
    pub fn rights(&self, session: &Session) -> Arc<Rights> {
        let (generation, restricted) = (self.broker.policy.generation(), session.restricted());
        let mut selected = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        let number = session.number();
        if let Some(own) = &*selected
            && (own.generation, own.session, own.restricted) == (generation, number, restricted)
        {
            return own.rights.clone();
        }
        let (policy, generation) = self.broker.policy.current();
        let restrictions = session.restrictions();
        let restricted = restrictions.len();
        let rights = Arc::new(policy.select(self.subject(), restrictions));
        let rights = selected.insert(Selected { generation, session: number, restricted, rights });
        rights.rights.clone()
    }

    /// Logs that the connection cannot be served.
    pub fn log_failure(&self, error: &io::Error) {
        let uid = self.subject().uid;
        self.broker.refuse(Reason::NotServed, Some(self.principal().key()), || {
            tracing::warn!(%error, uid, "cannot serve a connection");
        });
    }

    /// Counts a call of a known method.
    pub fn count_call(&self) {
        self.broker.activity.note();
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of calls of known methods.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether every answer may carry attachments, without a request for them.
    pub fn takes_attachments(&self) -> bool {
        self.attachments.load(Ordering::Relaxed)
    }

    /// Lets every later answer carry attachments; only LSP framing has them.
    pub fn ask_for_attachments(&self, wanted: bool) -> OpResult<()> {
        if wanted && self.facts.framing != Framing::Lsp {
            return Err(OpError::value("only LSP framing carries attachments"));
        }
        self.attachments.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    /// Whether answers may carry descriptors.
    pub fn carries_descriptors(&self) -> bool {
        self.descriptors.load(Ordering::Relaxed)
    }

    /// Lets later answers carry descriptors or not. A client behind a relay, which drops them, refuses them.
    pub fn ask_for_descriptors(&self, wanted: bool) -> OpResult<()> {
        if wanted && !self.facts.descriptors {
            return Err(OpError::value(
                "only LSP framing and newline-delimited JSON on a Unix socket carry descriptors",
            ));
        }
        self.descriptors.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that the kernel refuses to pass descriptors to the peer (`SO_PASSRIGHTS`, unix(7)).
    pub fn refuse_descriptors(&self) {
        self.descriptors.store(false, Ordering::Relaxed);
    }

    /// Attaches to another session. Refused while the present one would close with open handles.
    pub fn attach(&self, target: Arc<Session>) -> OpResult<()> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.number() == target.number() {
            return Ok(());
        }
        if session.restricted() > 0 {
            return Err(OpError::Session("a connection cannot leave a restricted session"));
        }
        if session.connections() == 1 && session.handles() > 0 {
            let refused = "the present session of this connection would close with open handles: close them first";
            return Err(OpError::Session(refused));
        }
        target.join(self.number);
        let left = std::mem::replace(&mut *session, target);
        drop(session);
        self.leave(&left, LastCalls::default());
        Ok(())
    }

    /// Detaches from the session, which closes with its last connection.
    pub fn end(&self, calls: LastCalls) {
        self.leave(&self.session(), calls);
    }

    fn leave(&self, session: &Arc<Session>, calls: LastCalls) {
        if session.leave(self.number, calls) {
            self.broker.close_left(session);
        }
        self.broker.sweeps.request();
    }
}
