//! From the command line to a serving broker, and to its end.

pub mod args;
pub mod listen;
pub mod confine;
mod service;
mod sources;
mod signals;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sockbroker_proto::api::broker::Process;
use sockbroker_sys::capability::Capability;
use sockbroker_sys::process;

use crate::config::policy::{Loaded, PolicyError};
use crate::config::{self, ConfigError};
use crate::handlers;
use crate::observe::audit::{Audit, Destination, Limits as AuditLimits, Sink, Writer};
use crate::observe::log;
use crate::session::broker::Broker;
use crate::session::policy::Loader;
use crate::transport::server::Server;
use crate::transport::shutdown::ShutdownSwitch;
use args::Args;
use confine::Files;
use listen::Access;
use signals::Signals;
use sockbroker_policy::Policy;

/// Worker threads: two, so that one connection that computes does not stop the others.
const WORKERS: usize = 2;

/// What to do without a path for the socket.
const NO_SOCKET_PATH: &str = "no path for the socket: XDG_RUNTIME_DIR is not set; log in with a session that sets it, \
    or give --socket PATH";

/// Why the broker could not start. The exit codes are those of `sysexits.h`.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot be used (78, `EX_CONFIG`).
    Config(ConfigError),
    /// The policy cannot be used (78, `EX_CONFIG`).
    Policy(PolicyError),
    /// The socket cannot be made (69, `EX_UNAVAILABLE`).
    Listen(String),
    /// Something else of the system (71, `EX_OSERR`).
    System(String),
}

impl StartError {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Policy(_) => 78,
            Self::Listen(_) => 69,
            Self::System(_) => 71,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Policy(error) => error.fmt(f),
            Self::Listen(text) | Self::System(text) => f.write_str(text),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<PolicyError> for StartError {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}

/// Runs the broker as its arguments say, until it is told to end.
pub fn run(args: &Args) -> Result<(), StartError> {
    let from = sources::config(args);
    let mut config = config::load(from.as_deref())?;
    let loaded = sources::load_policy(args)?;
    let level = log::wanted().map_err(|error| ConfigError::given("environment", error))?;
    // What is found in a check is for whoever asked for it.
    if args.check {
        log::start_on_stderr(level);
    } else {
        log::start(level);
    }
    let policy = in_force(loaded);
    if args.check {
        return Ok(());
    }
    process::keep_large_buffers();
    match process::raise_open_files() {
        Ok(open_files) => config.limits.fit(open_files),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
    let passed = service::listening_socket()?;
    let path = args.socket.clone().or_else(|| config.socket.clone());
    let path = match path.or_else(config::default_socket) {
        Some(path) => path,
        // Not used then.
        None if args.stdio || passed.is_some() => PathBuf::new(),
        None => return Err(StartError::Listen(NO_SOCKET_PATH.to_owned())),
    };
    let group = args.socket_group.as_deref().or(config.socket_group.as_deref());
    let mode = args.socket_mode.or(config.socket_mode).unwrap_or_default();
    // What is passed has the group and mode that the service manager gave it.
    let makes_socket = !args.stdio && passed.is_none();
    let access = Access::prepare(group.filter(|_| makes_socket), mode)?;
    let kept = confine::kept(&config.confine, &policy);
    // Before the confinement: the file may lie where the broker may not write later.
    let sink = open_audit(args, &config.audit.to)?;
    let process = confine::confine(&config.confine, &kept, &files(args, &path, &config.audit.to))?;
    let process = Process { activated: passed.is_some(), ..process };
    confine::tell(&process);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| StartError::System(format!("cannot start the runtime: {error}")))?;
    let endpoint = match (args.stdio, passed) {
        (true, _) => Endpoint::Standard,
        (false, Some(socket)) => Endpoint::Passed(socket),
        (false, None) => Endpoint::Path(path, access),
    };
    let (audit, writer) = match sink {
        Some(sink) => start_audit(sink, config.limits.audit())?,
        None => (Audit::default(), None),
    };
    let broker = Broker::new(policy, config.limits)
        .running_as(process)
        .reloading(loader(args.clone(), kept))
        .auditing(audit);
    let result = runtime.block_on(serve(endpoint, Arc::new(broker)));
    // Look-ups that are still running cannot be cancelled, and nobody waits for them.
    runtime.shutdown_background();
    if let Some(writer) = writer {
        writer.finish();
    }
    result
}

/// Opens what decisions are told to. One client on standard input is the broker's own user, of whom
/// nothing is told unless the configuration says where.
fn open_audit(args: &Args, to: &Destination) -> Result<Option<Sink>, StartError> {
    if args.stdio && *to == Destination::Auto {
        return Ok(None);
    }
    Sink::open(to).map_err(|error| StartError::System(format!("cannot open the audit: {error}")))
}

fn start_audit(sink: Sink, limits: AuditLimits) -> Result<(Audit, Option<Writer>), StartError> {
    let fail = |error| StartError::System(format!("cannot start the audit: {error}"));
    Audit::start(sink, limits).map(|(audit, writer)| (audit, Some(writer))).map_err(fail)
}

/// Where clients are.
enum Endpoint {
    /// At the other end of standard input and output.
    Standard,
    /// At a socket that the service manager listens on.
    Passed(OwnedFd),
    /// At a socket that the broker makes.
    Path(PathBuf, Access),
}

/// The files that the broker needs while it serves.
fn files(args: &Args, socket: &Path, audit: &Destination) -> Files {
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    // The audit's file is opened anew when it was moved.
    let audit = if let Destination::File(path) = audit { folder(path) } else { None };
    Files {
        read: sources::read_again(args),
        write: folder(socket).into_iter().chain(audit).collect(),
    }
}

/// The policy of these files; their warnings go to the log.
fn in_force(loaded: Loaded) -> Policy {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.into_policy(process::effective_uid())
}

/// Reads the policy anew, for a broker that has kept these capabilities.
fn loader(args: Args, kept: Vec<Capability>) -> Box<Loader> {
    Box::new(move || {
        let loaded = sources::load_policy(&args).map_err(|error| error.to_string())?;
        let policy = in_force(loaded);
        for lost in confine::lost(&policy, &kept) {
            let capability = lost.name();
            tracing::warn!(capability, "a new rule needs what was given up at the start: restart");
        }
        Ok(policy)
    })
}

async fn serve(endpoint: Endpoint, broker: Arc<Broker>) -> Result<(), StartError> {
    // Before anybody can see the broker, so that no signal finds it unprepared.
    let signals = Signals::mind(broker.clone())?;
    let drain = Duration::from_secs(broker.limits.drain_seconds);
    let (switch, signal) = ShutdownSwitch::new();
    let server = Server::new(broker, handlers::methods(), signal);
    let bound = match endpoint {
        Endpoint::Standard => {
            let result = until_told(server.standard(), signals, &switch, drain).await;
            return result.map_err(|error| StartError::Listen(format!("--stdio: {error}")));
        }
        Endpoint::Passed(socket) => listen::adopt(socket)?,
        Endpoint::Path(path, access) => listen::bind(&path, access).await?,
    };
    tracing::info!(socket = bound.name(), "serving");
    service::ready("serving");
    until_told(server.listen(bound.listener), signals, &switch, drain).await;
    if let Some(path) = bound.path {
        path.remove();
    }
    Ok(())
}

/// Serves until that ends by itself, or by a signal and what is in flight then.
async fn until_told<T>(
    serving: impl Future<Output = T>,
    mut signals: Signals,
    switch: &ShutdownSwitch,
    drain: Duration,
) -> T {
    tokio::pin!(serving);
    let ended = async {
        tokio::select! {
            result = serving.as_mut() => return result,
            () = signals.received() => {}
        }
        tracing::info!("ending: no new calls");
        service::stopping();
        switch.begin(drain);
        serving.await
    };
    tokio::select! {
        result = ended => result,
        never = service::keep_watchdog() => match never {},
    }
}
