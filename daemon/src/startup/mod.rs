//! From the command line to a serving broker, and to its end.

pub mod args;
pub mod listen;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_sys::process;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, ConfigError};
use crate::dispatch::methods::MethodTable;
use crate::observe;
use crate::policy::Policy;
use crate::session::broker::Broker;
use crate::transport::server::Server;
use crate::transport::shutdown::ShutdownSwitch;
use args::Args;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| StartError::System(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(serve(args, config, policy));
    // Look-ups that are still running cannot be cancelled, and nobody waits for them.
    runtime.shutdown_background();
    result
}

async fn serve(args: &Args, config: Config, policy: Policy) -> Result<(), StartError> {
    // Before anybody can see the broker, so that no signal finds it unprepared.
    let mut signals = EndSignals::mind()?;
    let drain = Duration::from_secs(config.limits.drain_seconds);
    let broker = Arc::new(Broker::new(policy, config.limits));
    let methods = MethodTable::of_contract()
        .map_err(|error| StartError::System(format!("the method table: {error}")))?;
    let (switch, signal) = ShutdownSwitch::new();
    let server = Server::new(broker, methods, signal);
    if args.stdio {
        let serving = server.standard();
        tokio::pin!(serving);
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = signals.received() => {
                switch.begin(drain);
                serving.await
            }
        };
        return result.map_err(|error| StartError::Listen(format!("--stdio: {error}")));
    }
    let path = args.socket.clone().or(config.socket).unwrap_or_else(config::default_socket);
    let bound = listen::bind(&path).await?;
    tracing::info!(socket = %path.display(), "serving");
    let serving = server.listen(bound.listener);
    tokio::pin!(serving);
    tokio::select! {
        () = serving.as_mut() => {}
        () = signals.received() => {
            tracing::info!("ending: no new calls");
            switch.begin(drain);
            serving.await;
        }
    }
    bound.path.remove();
    Ok(())
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
