//! From the command line to a serving broker, and to its end.

pub mod args;
pub mod listen;
pub mod confine;
mod service;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sockbroker_sys::{capability, process};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, ConfigError};
use crate::dispatch::methods::MethodTable;
use crate::observe;
use crate::policy::Policy;
use crate::session::broker::Broker;
use crate::transport::server::Server;
use crate::transport::shutdown::ShutdownSwitch;
use args::Args;
use confine::Files;

/// Worker threads: two, so that one connection that computes does not stop the others.
const WORKERS: usize = 2;

/// Why the broker could not start. The exit codes are those of `sysexits.h`.
#[derive(Debug)]
pub enum StartError {
    /// The configuration or policy cannot be used (78, `EX_CONFIG`).
    Config(ConfigError),
    /// The socket cannot be made (69, `EX_UNAVAILABLE`).
    Listen(String),
    /// Something else of the system (71, `EX_OSERR`).
    System(String),
}

impl StartError {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Listen(_) => 69,
            Self::System(_) => 71,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen(text) | Self::System(text) => f.write_str(text),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Runs the broker as its arguments say, until it is told to end.
pub fn run(args: &Args) -> Result<(), StartError> {
    let config = config::load(args.config.as_deref())?;
    let policy = config::load_policy(args.policy.as_deref(), process::effective_uid())?;
    if args.check {
        return Ok(());
    }
    observe::log_to_stderr();
    process::keep_large_buffers();
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let passed = service::listening_socket()?;
    let path = args.socket.clone().or_else(|| config.socket.clone());
    let path = path.unwrap_or_else(config::default_socket);
    let confinement = confine::confine(&config.confine, &capability::ALL, &files(args, &path))?;
    tracing::info!("confined: {confinement}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| StartError::System(format!("cannot start the runtime: {error}")))?;
    let place = match (args.stdio, passed) {
        (true, _) => Place::Standard,
        (false, Some(socket)) => Place::Passed(socket),
        (false, None) => Place::Path(path),
    };
    let result = runtime.block_on(serve(place, config, policy));
    // Look-ups that are still running cannot be cancelled, and nobody waits for them.
    runtime.shutdown_background();
    result
}

/// Where clients are.
enum Place {
    /// At the other end of standard input and output.
    Standard,
    /// At a socket that the service manager listens on.
    Passed(OwnedFd),
    /// At a socket that the broker makes.
    Path(PathBuf),
}

/// The files that the broker needs while it serves.
fn files(args: &Args, socket: &Path) -> Files {
    let given = [&args.config, &args.policy];
    let read = given.into_iter().flatten().cloned().collect();
    Files { read, write: socket.parent().map(Path::to_owned).into_iter().collect() }
}

async fn serve(place: Place, config: Config, policy: Policy) -> Result<(), StartError> {
    // Before anybody can see the broker, so that no signal finds it unprepared.
    let signals = EndSignals::mind()?;
    let drain = Duration::from_secs(config.limits.drain_seconds);
    let broker = Arc::new(Broker::new(policy, config.limits));
    let methods = MethodTable::of_contract()
        .map_err(|error| StartError::System(format!("the method table: {error}")))?;
    let (switch, signal) = ShutdownSwitch::new();
    let server = Server::new(broker, methods, signal);
    let bound = match place {
        Place::Standard => {
            let result = until_told(server.standard(), signals, &switch, drain).await;
            return result.map_err(|error| StartError::Listen(format!("--stdio: {error}")));
        }
        Place::Passed(socket) => listen::adopt(socket)?,
        Place::Path(path) => listen::bind(&path).await?,
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
    mut signals: EndSignals,
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

/// SIGTERM and SIGINT, minded from the moment this is made.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn mind() -> Result<Self, StartError> {
        let handler = |kind| {
            let fail = |error| StartError::System(format!("signal handler: {error}"));
            signal(kind).map_err(fail)
        };
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
