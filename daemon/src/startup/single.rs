//! A broker of one process, which serves every principal.

use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sockbroker_monitor::opener::Namespaces;
use sockbroker_proto::api::broker::Process;
use sockbroker_sys::capability::Capability;
use sockbroker_sys::process;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use super::args::Args;
use super::confine::{self, Files};
use super::error::StartError;
use super::first_steps::log_filter;
use super::listen::{self, Access, NO_SOCKET_PATH};
use super::signals::Signals;
use super::{audit, credentials, remote, service, sources};
use crate::config::policy::Loaded;
use crate::config::{self, Config, ConfigError};
use crate::handlers;
use crate::observe::audit::{Audit, Destination};
use crate::observe::log;
use crate::session::broker::Broker;
use crate::session::policy::{Loader, NextPolicy};
use crate::transport::server::{Server, Source};
use crate::transport::shutdown::ShutdownSwitch;
use sockbroker_policy::Policy;

/// Worker threads. With two, a connection that computes does not stop the others.
const WORKERS: usize = 2;

/// Serves every principal in this process.
pub(super) fn run(args: &Args, mut config: Config) -> Result<(), StartError> {
    let loaded = sources::load_policy(args)?;
    let filter = log_filter()?;
    // The findings of a check go to the caller and not to the journal.
    if args.check {
        log::start_on_stderr(filter);
    } else {
        log::start(filter);
    }
    let policy = in_force(loaded);
    if args.check {
        return check_credentials(&config);
    }
    process::keep_large_buffers();
    match process::raise_open_files() {
        Ok(open_files) => config.limits.fit(open_files),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    let passed = passed_socket(args)?;
    let path = args.socket.clone().or_else(|| config.socket.clone());
    let path = match path.or_else(config::default_socket) {
        Some(path) => path,
        // The path is not used.
        None if args.stdio || passed.is_some() => PathBuf::new(),
        None => return Err(StartError::Listen(NO_SOCKET_PATH.to_owned())),
    };
    let group = args.socket_group.as_deref().or(config.socket_group.as_deref());
    let mode = args.socket_mode.or(config.socket_mode).unwrap_or_default();
    // A passed socket has the group and mode that the service manager set.
    let makes_socket = !args.stdio && passed.is_none();
    let access = Access::prepare(group.filter(|_| makes_socket), mode)?;
    let kept = kept(&config, &policy);
    // Before the confinement, after which the file may be out of reach.
    let sink = audit::open(args, &config.audit.to)?;
    let files = files(args, &path, &config.audit.to).with_folders(config.namespaces.all());
    let process = confine::confine(&config.confine, &kept, &files)?;
    let process = Process { activated: passed.is_some(), ..process };
    confine::log(&process);
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
        Some(sink) => audit::start(sink, config.limits.audit())?,
        None => (Audit::default(), None),
    };
    let mut broker = Broker::new(policy, config.limits)
        .running_as(process)
        .reloading(NextPolicy::Loader(loader(args.clone(), kept)), 1)
        .auditing(audit);
    broker.namespaces = Arc::new(Namespaces::new(config.namespaces.folders));
    broker.name_files = config.namespaces.files;
    let result = run_inside(&runtime, serve(endpoint, Arc::new(broker)));
    // Running look-ups cannot be cancelled, and their results are not needed.
    runtime.shutdown_background();
    if let Some(writer) = writer {
        writer.finish();
    }
    result
}

/// Waits for a task of the event loop. On this thread, each call of the client of `--stdio` would have to wake it.
fn run_inside<T: Send + 'static>(
    runtime: &Runtime,
    task: impl Future<Output = T> + Send + 'static,
) -> T {
    match runtime.block_on(runtime.spawn(task)) {
        Ok(done) => done,
        Err(error) => resume_unwind(Box::new(error.to_string())),
    }
}

/// The control socket that systemd passed.
fn passed_socket(args: &Args) -> Result<Option<OwnedFd>, StartError> {
    let (control, remote) = service::listening_sockets()?;
    if !args.stdio && !remote.is_empty() {
        let text = "systemd passed a socket for remote clients, which are served only by workers: remove processes.workers = false";
        return Err(StartError::Listen(text.to_owned()));
    }
    Ok(control)
}

/// Checks the files of remote access, if it is on.
fn check_credentials(config: &Config) -> Result<(), StartError> {
    if !config.remote.is_on() {
        return Ok(());
    }
    remote::check(&config.remote)?;
    let read = credentials::read(sources::remote_files(&config.remote));
    let (_, warnings) = read.map_err(|reason| ConfigError::given("configuration", reason))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// The capabilities to keep. Warns of those that rules need and this process does not have.
fn kept(config: &Config, policy: &Policy) -> Vec<Capability> {
    if policy.reaches_networks() {
        confine::warn_of_unreachable_networks();
    }
    confine::kept(&config.confine, policy)
}

/// Where the broker serves clients.
enum Endpoint {
    /// On standard input and output.
    Standard,
    /// On a socket that the service manager passed.
    Passed(OwnedFd),
    /// On a socket that the broker creates.
    Path(PathBuf, Access),
}

/// The files that the broker needs while it serves.
fn files(args: &Args, socket: &Path, audit: &Destination) -> Files {
    let folder = |path: &Path| path.parent().map(Path::to_owned);
    // The audit file is reopened after a rotation.
    let audit = if let Destination::File(path) = audit { folder(path) } else { None };
    Files {
        read: sources::read_again(args),
        write: folder(socket).into_iter().chain(audit).collect(),
    }
}

/// The policy of the files that were read; their warnings go to the log.
fn in_force(loaded: Loaded) -> Policy {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.into_policy(process::effective_uid())
}

/// Reloads the policy, for a broker that has kept these capabilities.
fn loader(args: Args, kept: Vec<Capability>) -> Box<Loader> {
    Box::new(move || {
        let loaded = sources::load_policy(&args).map_err(|error| error.to_string())?;
        let policy = in_force(loaded);
        confine::warn_of_lost(&confine::lost(&policy, &kept));
        Ok(policy)
    })
}

async fn serve(endpoint: Endpoint, broker: Arc<Broker>) -> Result<(), StartError> {
    // Before the broker can be seen, so that every signal is handled.
    let signals = Signals::handle(broker.clone())?;
    let drain = Duration::from_secs(broker.limits.drain_seconds);
    let (switch, signal) = ShutdownSwitch::new();
    let server = Server::new(broker, handlers::methods(), signal);
    let bound = match endpoint {
        Endpoint::Standard => {
            let result = until_ended(server.standard(), signals, &switch, drain).await;
            return result.map_err(|error| StartError::Listen(format!("--stdio: {error}")));
        }
        Endpoint::Passed(socket) => listen::adopt(socket)?,
        Endpoint::Path(path, access) => listen::bind(&path, access)?,
    };
    tracing::info!(socket = bound.name(), "serving");
    service::ready("serving");
    let listener = UnixListener::from_std(bound.listener.into());
    let listener = listener
        .map_err(|error| StartError::Listen(format!("cannot wait for connections: {error}")))?;
    until_ended(server.listen(Source::Listener(listener)), signals, &switch, drain).await;
    if let Some(path) = bound.path {
        path.remove();
    }
    Ok(())
}

/// Serves until serving ends by itself, or until a signal and the end of the calls in flight.
async fn until_ended<T>(
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
        tracing::info!("shutting down: accepting no new calls");
        service::stopping();
        switch.begin(drain);
        serving.await
    };
    tokio::select! {
        result = ended => result,
        never = service::keep_watchdog() => match never {},
    }
}
