//! A worker: serves the connections that the monitor passes, all of one principal.

mod answers;
mod clock;
mod idle;
mod kept;

use std::collections::{HashMap, VecDeque};
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sockbroker_monitor::channel::ChannelError;
use sockbroker_monitor::claim::Claim;
use sockbroker_monitor::message::{
    Beginning, Build, Caller, MonitorChannel, PersistRefusal, Persisted, Query, ReaderRefusal,
    ToMonitor, ToWorker,
};
use sockbroker_monitor::role;
use sockbroker_proto::api::broker::Process;
use sockbroker_sys::identity::{Identity, become_user};
use sockbroker_sys::{capability, child, process};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use self::clock::Clock;
use super::audit;
use super::beginning::{Begun, begin};
use super::confine::{self, Files};
use super::error::StartError;
use super::first_steps::{sent_configuration, start_log};
use super::leases::Leases;
use super::sources::{in_memory, read_sealed_policy};
use crate::handlers;
use crate::network::{caller_process::Started, captures};
use crate::observe::audit::{Audit, Destination, Sink};
use crate::rpc::methods::MethodTable;
use crate::session::broker::Broker;
use crate::session::monitor_link::{MonitorLink, MonitorRequest, PassedConnection, QueryResults};
use crate::session::policy::NextPolicy;
use crate::table::readiness::register;
use crate::transport::server::{Server, Source};
use crate::transport::shutdown::ShutdownSwitch;

/// How often the worker checks whether it has nothing to do.
const CHECK: Duration = Duration::from_secs(1);
/// After this number of checks the monitor gets the counters. Those since then are lost if the worker is killed.
const CHECKS_OF_A_REPORT: u64 = 10;

/// The channel to the process that reads captures did not arrive.
const LOST_READER: ReaderRefusal = ReaderRefusal::Failed(libc::EMFILE);

/// Serves the connections that come over this channel.
pub(super) fn run(channel: OwnedFd, parent: u32) -> Result<(), StartError> {
    start_log()?;
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("worker: {error}"));
    let channel = MonitorChannel::over(channel);
    channel.send(&ToMonitor::Hello(Build::OWN), &[]).map_err(|error| fail(&error))?;
    let Begun { beginning, configuration, policy, opener } = begin(&channel)?;
    let Beginning { generation, first_number, epoch, activated, id, caller, remote } = beginning;
    let mut config = sent_configuration(configuration)?;
    capability::clear_bounding().map_err(|error| fail(&error))?;
    if let Some(id) = id {
        let identity = Identity { uid: id, gid: id, groups: [].into() };
        become_user(&identity).map_err(|error| fail(&error))?;
        if !config.confine.capabilities {
            // They are not in effect after a change from root to another user.
            capability::use_permitted().map_err(|error| fail(&error))?;
        }
        process::limit_threads(config.limits.worker_threads()).map_err(|error| fail(&error))?;
        role::begin(parent).map_err(|error| fail(&error))?;
    }
    if config.confine.tracing {
        child::allow_tracing().map_err(|error| fail(&error))?;
    }
    process::keep_large_buffers();
    // Below the monitor's, so that descriptors in flight of workers leave room for the connections that it passes. One
    // user takes less than what is left.
    config.limits.fit(process::lower_open_files().map_err(|error| fail(&error))?);
    process::limit_memory(config.limits.worker_memory()).map_err(|error| fail(&error))?;
    let files = Files::default().with_folders([&config.namespaces.files]);
    let process = confine::confine_worker(&config.confine, caller == Caller::Same, &files)?;
    confine::log(&process);
    let (audit, writer) = if config.audit.to == Destination::Off {
        (Audit::default(), None)
    } else {
        let pipe = process::inherited_descriptor(1).map_err(|error| fail(&error))?;
        let sink = Sink::to_monitor(PipeWriter::from(pipe)).map_err(|error| fail(&error))?;
        audit::start(sink, config.limits.audit())?
    };
    // One thread: a second one would make no call faster, and would have to be considered with each event. What takes long
    // runs on another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System(format!("cannot start the runtime: {error}")))?;
    let (link, requests) = MonitorLink::new(remote);
    let callers = link.clone().callers(caller, &config.limits);
    let mut broker = Broker::new(policy, config.limits)
        .running_as(Process { activated, ..process })
        .reloading(NextPolicy::Monitor(link.clone()), generation)
        .numbering_from(first_number, epoch)
        .auditing(audit)
        .with_opener(opener);
    broker.callers = callers;
    broker.captures = link.clone().captures();
    broker.name_files = config.namespaces.files;
    let result = runtime.block_on(serve(channel, Arc::new(broker), link, requests));
    // Running look-ups cannot be cancelled, and their results are not needed.
    runtime.shutdown_background();
    if let Some(writer) = writer {
        writer.finish();
    }
    result.map_err(|error| fail(&error))
}

async fn serve(
    channel: MonitorChannel,
    broker: Arc<Broker>,
    link: MonitorLink,
    requests: mpsc::UnboundedReceiver<MonitorRequest>,
) -> io::Result<()> {
    let (switch, signal) = ShutdownSwitch::new();
    let methods = handlers::methods();
    let server = Server::new(broker.clone(), methods.clone(), signal);
    #[expect(clippy::disallowed_methods, reason = "the monitor bounds the connections of a worker")]
    let (passed, connections) = mpsc::unbounded_channel();
    let copy = channel.as_fd().try_clone_to_owned()?;
    let mut follower = Follower {
        channel,
        ready: register(copy, Interest::READABLE | Interest::WRITABLE)?,
        outgoing: VecDeque::new(),
        link,
        passed,
        broker,
        methods,
        switch,
        taken: 0,
        open: 0,
        idle_since: Some(Instant::now()),
        counters: Vec::new(),
        next: 0,
        reloads: HashMap::new(),
        leases: Leases::default(),
        claims: HashMap::new(),
        callers: HashMap::new(),
        readers: HashMap::new(),
        queries: HashMap::new(),
        persists: HashMap::new(),
        restrictions: HashMap::new(),
    };
    let broken = follower.broker.opener.as_ref().map(|(opener, _)| opener.clone());
    let broken = async {
        match broken {
            Some(opener) => opener.broken().await,
            None => std::future::pending().await,
        }
    };
    let serving = server.listen(Source::Monitor(connections));
    tokio::pin!(serving);
    tokio::select! {
        () = serving.as_mut() => Ok(()),
        ended = follower.follow(requests) => match ended {
            // The monitor has ended, and nobody can be served.
            Err(error) => Err(error),
            Ok(End::Idle) => Ok(()),
        },
        () = broken => Err(io::Error::other("the opener does not answer")),
    }
}

/// Why the worker ends by itself.
enum End {
    Idle,
}

/// Follows the monitor: takes what it sends, and sends the requests of this worker.
struct Follower {
    channel: MonitorChannel,
    /// A copy of the socket of the channel, for the event loop.
    ready: AsyncFd<OwnedFd>,
    /// Messages for which the channel has no room yet.
    outgoing: VecDeque<(ToMonitor, Option<OwnedFd>)>,
    link: MonitorLink,
    passed: mpsc::UnboundedSender<(OwnedFd, PassedConnection)>,
    broker: Arc<Broker>,
    methods: MethodTable,
    switch: ShutdownSwitch,
    /// The number of connections that were received, and of those that are open.
    taken: u64,
    open: u64,
    idle_since: Option<Instant>,
    /// The page of metrics that the monitor has.
    counters: Vec<u8>,
    /// The number of the last request.
    next: u64,
    reloads: HashMap<u64, oneshot::Sender<Result<u64, String>>>,
    leases: Leases,
    claims: HashMap<u64, (Claim, oneshot::Sender<bool>)>,
    callers: HashMap<u64, oneshot::Sender<Started>>,
    readers: HashMap<u64, oneshot::Sender<captures::Started>>,
    persists: HashMap<u64, oneshot::Sender<Result<Persisted, PersistRefusal>>>,
    restrictions: HashMap<u64, oneshot::Sender<Result<(), PersistRefusal>>>,
    /// Answers of other workers, and how many could not be read.
    queries: HashMap<u64, (QueryResults, u64, oneshot::Sender<QueryResults>)>,
}

impl Follower {
    async fn follow(
        &mut self,
        mut requests: mpsc::UnboundedReceiver<MonitorRequest>,
    ) -> io::Result<End> {
        let mut clock = Clock::start(CHECK)?;
        let mut checks = 0;
        let broker = self.broker.clone();
        // Whether the checks wait until something happens.
        let mut rests = false;
        loop {
            tokio::select! {
                ready = self.ready.readable() => {
                    ready?.clear_ready();
                    if let Some(end) = self.receive().await? {
                        return Ok(end);
                    }
                }
                ready = self.ready.writable(), if !self.outgoing.is_empty() => {
                    ready?.clear_ready();
                    self.flush()?;
                }
                Some(request) = requests.recv() => {
                    self.request(request)?;
                    self.broker.activity.note();
                }
                tick = clock.tick(), if !rests => {
                    tick?;
                    if checks % CHECKS_OF_A_REPORT == 0 {
                        self.report_counters()?;
                    }
                    checks += 1;
                    self.check_idle()?;
                    rests = self.may_rest()?;
                }
                () = broker.activity.begun(), if rests => {
                    rests = false;
                    checks = 1;
                    clock.restart()?;
                }
            }
        }
    }

    /// Handles the messages that have come.
    async fn receive(&mut self) -> io::Result<Option<End>> {
        loop {
            match self.channel.receive() {
                Ok((message, descriptors)) => {
                    if let Some(end) = self.handle(message, descriptors).await? {
                        return Ok(Some(end));
                    }
                }
                Err(ChannelError::NotReady) => return Ok(None),
                Err(ChannelError::LostDescriptors {
                    message: ToWorker::Connection { number },
                    ..
                }) => self.send(ToMonitor::NotReceived { number }, None)?,
                Err(ChannelError::LostDescriptors {
                    message: ToWorker::Caller { request },
                    ..
                }) => self.caller_started(request, None, None),
                Err(ChannelError::LostDescriptors {
                    message: ToWorker::Reader { request },
                    ..
                }) => self.reader_started(request, Err(LOST_READER)),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    async fn handle(
        &mut self,
        message: ToWorker,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Option<End>> {
        let mut descriptors = descriptors.into_iter();
        match message {
            ToWorker::Connection { number } => {
                descriptors.next().map_or(Ok(()), |connection| self.take(connection, number))?;
            }
            ToWorker::EndConnection { number, reason } => self.link.end(number, reason),
            ToWorker::CloseSessions => self.close_sessions(),
            ToWorker::Policy { generation } => {
                self.put_in_force(generation, descriptors.next()).await?;
            }
            ToWorker::Reloaded { request, result } => self.reloaded(request, result),
            ToWorker::Query { number, query } => self.answer_query(number, query).await?,
            ToWorker::QueryResult { request, uid } => {
                self.add_result(request, uid, descriptors.next());
            }
            ToWorker::QueryEnd { request, missing } => self.end_query(request, missing),
            ToWorker::Leased { request, sessions } => {
                self.leases.sessions_leased(&self.broker, request, sessions);
            }
            ToWorker::MemoryLeased { request, leased } => {
                self.leases.memory_leased(&self.broker, request, leased);
            }
            ToWorker::Claimed { request, granted } => self.claimed(request, granted)?,
            ToWorker::Caller { request } => {
                self.caller_started(request, descriptors.next().zip(descriptors.next()), None);
            }
            ToWorker::CallerRefused { request, refusal } => {
                self.caller_started(request, None, Some(refusal));
            }
            ToWorker::Reader { request } => {
                self.reader_started(request, descriptors.next().ok_or(LOST_READER));
            }
            ToWorker::ReaderRefused { request, refusal } => {
                self.reader_started(request, Err(refusal));
            }
            ToWorker::Kept(message) => self.handle_kept(message, descriptors)?,
            ToWorker::MayEnd => return Ok(Some(End::Idle)),
            ToWorker::Stop => self.stop(),
            ToWorker::Hello(_) | ToWorker::Begin(_) | ToWorker::BeginWithOpener(..) => {
                return Err(io::Error::other("the monitor began twice"));
            }
        }
        Ok(None)
    }

    fn take(&mut self, connection: OwnedFd, number: u64) -> io::Result<()> {
        self.broker.activity.note();
        self.taken += 1;
        self.open += 1;
        self.send(ToMonitor::Received { number }, None)?;
        // During a shutdown nobody receives it, and it is closed.
        drop(self.passed.send((connection, self.link.connection(number))));
        Ok(())
    }

    fn close_sessions(&self) {
        for session in self.broker.sessions() {
            self.broker.close(&session);
        }
    }

    /// Begins the end of the process.
    fn stop(&self) {
        let drain = Duration::from_secs(self.broker.limits.drain_seconds);
        self.broker.begin_stop();
        self.switch.begin(drain);
        tracing::info!("shutting down: accepting no new calls");
    }

    /// Answers the worker of an administrator.
    async fn answer_query(&mut self, number: u64, query: Query) -> io::Result<()> {
        handlers::query::prepare(&self.broker, &query).await;
        let (broker, methods) = (self.broker.clone(), self.methods.clone());
        // It lists what can be many, and calls go on meanwhile.
        let answer = move || handlers::query::answer(&broker, &methods, query);
        let answer = spawn_blocking(answer).await.map_err(io::Error::other)?;
        // Without a descriptor for it, the asker learns that the answer of a worker is missing.
        match in_memory("answer", &answer) {
            Some(answer) => self.send(ToMonitor::QueryResult { number }, Some(answer)),
            None => Ok(()),
        }
    }

    async fn put_in_force(&mut self, generation: u64, memory: Option<OwnedFd>) -> io::Result<()> {
        let memory = memory.ok_or_else(|| io::Error::other("no policy came"))?;
        // A policy can be large.
        let read = spawn_blocking(move || read_sealed_policy(&memory));
        let policy = read.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.broker.put_in_force(policy, generation).await;
        self.send(ToMonitor::InForce { generation }, None)
    }

    fn request(&mut self, request: MonitorRequest) -> io::Result<()> {
        self.next += 1;
        let number = self.next;
        match request {
            MonitorRequest::Closed(number) => {
                self.open = self.open.saturating_sub(1);
                self.send(ToMonitor::Closed { number }, None)
            }
            MonitorRequest::Reload(sender) => {
                self.reloads.insert(number, sender);
                self.send(ToMonitor::Reload { request: number }, None)
            }
            MonitorRequest::Lease(sessions, sender) => {
                self.leases.of_sessions(number, sender);
                self.send(ToMonitor::Lease { request: number, sessions }, None)
            }
            MonitorRequest::LeaseMemory(bytes, sender) => {
                self.leases.of_memory(number, bytes, sender);
                self.send(ToMonitor::LeaseMemory { request: number, bytes }, None)
            }
            MonitorRequest::Claim(claim, sender) => {
                self.claims.insert(number, (claim, sender));
                self.send(ToMonitor::Claim { request: number, claim }, None)
            }
            MonitorRequest::Unclaim(claim) => self.send(ToMonitor::Unclaim { claim }, None),
            MonitorRequest::Counters(page) => self.send_counters(page),
            MonitorRequest::StartCaller(sender) => {
                self.callers.insert(number, sender);
                self.send(ToMonitor::StartCaller { request: number }, None)
            }
            MonitorRequest::StartReader(sender) => {
                self.readers.insert(number, sender);
                self.send(ToMonitor::StartReader { request: number }, None)
            }
            MonitorRequest::Kept(request) => self.request_kept(number, request),
            MonitorRequest::QueryOthers(query, sender) => {
                self.queries.insert(number, (QueryResults::default(), 0, sender));
                self.send(ToMonitor::QueryOthers { request: number, query }, None)
            }
        }
    }

    fn send_counters(&mut self, page: Vec<u8>) -> io::Result<()> {
        // Without a descriptor for it, the next report has all of it.
        let Some(memory) = in_memory("metrics", &page) else { return Ok(()) };
        self.counters = page;
        self.send(ToMonitor::Counters, Some(memory))
    }

    fn send(&mut self, message: ToMonitor, descriptor: Option<OwnedFd>) -> io::Result<()> {
        self.outgoing.push_back((message, descriptor));
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((message, descriptor)) = self.outgoing.front() {
            let borrowed: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &borrowed) {
                Ok(()) => drop(self.outgoing.pop_front()),
                Err(ChannelError::NotReady) => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}
