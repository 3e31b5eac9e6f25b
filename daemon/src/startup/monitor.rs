//! The start of the monitor, and what it needs of the program around it.

use std::ffi::OsString;
use std::io::PipeReader;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sockbroker_monitor::monitor::{
    Host, Limits, Monitor, OpenerLink, PolicyFiles, ReadPolicy, Refusal, RemoteSettings, Settings,
    read_policy, start_opener,
};
use sockbroker_policy::subject::RemoteIdentity;
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::events::Signals;
use sockbroker_sys::{process, sealed};

use super::args::Args;
use super::error::StartError;
use super::first_steps::start_log;
use super::listen::{self, Access, Bound, NO_SOCKET_PATH};
use super::{audit, confine, memory, remote, service, sources, worker_ids};
use crate::config::remote::Remote;
use crate::config::{self, Config};
use crate::observe::audit::{Audit, Intake, Record};
use crate::observe::refusals::{Reason, Refusals};
use crate::principal::PrincipalKey;

/// How often the log of refusals is swept while it has something to report.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves each principal by a worker of its own.
pub(super) fn run(args: &Args, config: &Config, from: Option<&Path>) -> Result<(), StartError> {
    // Before the first thread.
    let signals = Signals::block().map_err(|error| system("handle signals", &error))?;
    start_log()?;
    let configuration = sealed_file(from)?;
    let passed = service::passed_descriptors()?;
    let listeners = remote::listeners(&config.remote, passed.remote)?;
    let files = PolicyFiles(policy_arguments(args, &config.remote, !listeners.is_empty()));
    let policy = read_policy(&files).map_err(StartError::PolicyReader)?;
    let fitted = fitted_limits(config);
    let remote = remote::settings(listeners, &config.limits);
    if remote.is_some() {
        remote::check(&config.remote)?;
    }
    let of_remote = remote.as_ref().map_or(0, RemoteSettings::ids);
    let worker_ids = worker_ids::find(config.processes.worker_ids, fitted.workers, of_remote)?;
    let Bound { listener, path } = endpoint(args, config, passed.listener)?;
    let opener = divide_privileges(config, &configuration, &policy)?;
    let (audit, writer) = match audit::open(args, &config.audit.to)? {
        Some(sink) => audit::start(sink, config.limits.audit())?,
        None => (Audit::default(), None),
    };
    let name = path.as_ref().map_or("passed by systemd".to_owned(), listen::BoundPath::name);
    let host =
        Service::new(name, audit, config).map_err(|error| system("start the audit", &error))?;
    let settings = Settings {
        listener,
        limits: limits(&fitted),
        configuration,
        policy,
        opener,
        remote,
        warns_of_lost_capabilities: config.confine.capabilities,
        worker_ids,
        files,
        activated: path.is_none(),
        discarded: passed.unknown,
        stored: passed.stored,
        service_manager: service::store(),
    };
    let monitor = Monitor::new(settings, signals, host)
        .map_err(|error| system("start the monitor", &error))?;
    let result = monitor.run().map_err(|error| system("serve", &error));
    if let Some(path) = path {
        path.remove();
    }
    if let Some(writer) = writer {
        writer.finish();
    }
    result
}

/// The error of a step that the system refuses.
fn system(what: &str, error: &dyn std::fmt::Display) -> StartError {
    StartError::System(format!("cannot {what}: {error}"))
}

/// Starts the opener, if the policy needs it, and confines this process.
fn divide_privileges(
    config: &Config,
    configuration: &OwnedFd,
    policy: &ReadPolicy,
) -> Result<Option<OpenerLink>, StartError> {
    pass_capabilities().map_err(|error| system("pass capabilities to other processes", &error))?;
    process::refuse_new_privileges().map_err(|error| system("set no_new_privs", &error))?;
    if policy.reaches_networks {
        confine::warn_of_unreachable_networks();
    }
    // Without a confinement of capabilities workers have all of them.
    let drops = config.confine.capabilities && has_capabilities_of_opener();
    let begin = || start_opener(configuration.as_fd(), policy.memory.as_fd());
    let opener = (drops && policy.needs_opener).then(begin).transpose();
    let opener = opener.map_err(StartError::System)?;
    if drops {
        leave_capabilities_to_opener().map_err(|error| system("drop capabilities", &error))?;
    }
    // After the opener, which makes calls that no other process makes.
    confine::confine_monitor(&config.confine)?;
    Ok(opener)
}

/// The content of a file, or nothing, in sealed memory.
fn sealed_file(path: Option<&Path>) -> Result<OwnedFd, StartError> {
    let text = path.map(std::fs::read).transpose();
    let sealed = text.and_then(|text| sealed::create("configuration", &text.unwrap_or_default()));
    sealed.map_err(|error| StartError::System(format!("cannot read the configuration: {error}")))
}

/// The limits of the configuration that fit the open files of this process.
fn fitted_limits(config: &Config) -> config::limits::Limits {
    let mut fitted = config.limits.clone();
    match process::raise_open_files() {
        Ok(open_files) => fitted.fit(open_files),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    memory::report(&fitted, config.remote.is_on());
    fitted
}

/// The arguments with which the policy is read again.
fn policy_arguments(args: &Args, remote: &Remote, has_remote: bool) -> Vec<OsString> {
    let files = if has_remote { sources::remote_files(remote) } else { Vec::new() };
    let files = files.into_iter();
    let files =
        files.flat_map(|(kind, path)| ["--remote-file".into(), kind.into(), path.into_os_string()]);
    policy_of(args).into_iter().chain(files).collect()
}

fn policy_of(args: &Args) -> Vec<OsString> {
    if args.built_in_policy {
        return vec!["--built-in-policy".into()];
    }
    let named = args.policy.as_ref();
    // The reader works in the root directory.
    let absolute = named.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let given = absolute.map(|path| vec!["--policy".into(), path.into_os_string()]);
    given.unwrap_or_default()
}

fn endpoint(args: &Args, config: &Config, passed: Option<OwnedFd>) -> Result<Bound, StartError> {
    if let Some(passed) = passed {
        return listen::adopt(passed);
    }
    let path = args.socket.clone().or_else(|| config.socket.clone());
    let path = path.or_else(config::default_socket);
    let path = path.ok_or_else(|| StartError::Listen(NO_SOCKET_PATH.to_owned()))?;
    let group = args.socket_group.as_deref().or(config.socket_group.as_deref());
    let mode = args.socket_mode.or(config.socket_mode).unwrap_or_default();
    listen::bind(&path, Access::prepare(group, mode)?)
}

fn limits(limits: &config::limits::Limits) -> Limits {
    Limits {
        connections: limits.connections,
        connections_reserved: limits.connections_reserved,
        connections_per_user: limits.connections_per_user,
        detect: Duration::from_secs(limits.detect_seconds),
        sessions: limits.sessions,
        sessions_reserved: limits.sessions_reserved,
        sessions_per_user: limits.sessions_per_user,
        kernel_bytes: limits.kernel_bytes_in_all,
        kernel_bytes_per_user: limits.kernel_bytes_per_user,
        persistent_sessions: limits.persistent_sessions_in_all,
        persistent_sessions_per_user: limits.persistent_sessions_per_user,
        persistent_handles: limits.persistent_handles_in_all,
        persistent_handles_per_user: limits.persistent_handles_per_user,
        restrictions: limits.restrictions,
        persistent_bytes_per_user: limits.persistent_bytes_per_user,
        reattach: Duration::from_secs(limits.reattach_seconds),
        linger: Duration::from_secs(limits.linger_seconds),
        workers: limits.workers,
        workers_per_user: limits.workers_per_user,
        starts_per_second: limits.worker_starts_per_second,
        drain: Duration::from_secs(limits.drain_seconds),
    }
}

/// Lets other processes have the capabilities of this one; each keeps those that it needs. Programs that root
/// runs have all in any case.
fn pass_capabilities() -> std::io::Result<()> {
    let mut held = Vec::new();
    for capability in capability::ALL {
        if capability::has(capability)? {
            held.push(capability);
        }
    }
    let held: &[Capability] = &held;
    if process::effective_uid() == 0 { Ok(()) } else { capability::raise_ambient(held) }
}

fn has_capabilities_of_opener() -> bool {
    confine::OF_OPENER.iter().any(|one| capability::has(*one).unwrap_or(false))
}

/// Drops the capabilities that only the opener has. To be called before the first thread, which would keep them.
fn leave_capabilities_to_opener() -> std::io::Result<()> {
    capability::drop_these(&confine::OF_OPENER)?;
    pass_capabilities()
}

/// The program around the monitor.
struct Service {
    name: String,
    audit: Audit,
    intake: Intake,
    refusals: Refusals,
    /// Whether a refusal was reported since the last sweep.
    pending: bool,
}

impl Service {
    fn new(name: String, audit: Audit, config: &Config) -> std::io::Result<Self> {
        let to = audit.clone();
        let report = move |uid, record| to.report(PrincipalKey::of_uid(uid), move || record);
        let intake = Intake::start(report)?;
        let refusals = Refusals::new(config.limits.refusal_lines_per_minute);
        Ok(Self { name, audit, intake, refusals, pending: false })
    }
}

impl Host for Service {
    fn serving(&mut self) {
        tracing::info!(socket = self.name, "serving");
        service::ready("serving");
    }

    fn reloading(&mut self) {
        service::reloading();
        self.audit.reopen();
    }

    fn reloaded(&mut self, result: &Result<u64, String>) {
        let record = Record::new("policy");
        self.audit.report_own(|| match result {
            Ok(generation) => record.with("state", "loaded").with("number", *generation),
            Err(reason) => record.with("state", "kept").with("reason", reason.as_str()),
        });
        service::ready(match result {
            Ok(_) => "serving",
            Err(_) => "serving with the old policy: the new one is not usable",
        });
    }

    fn stopping(&mut self) {
        service::stopping();
    }

    fn watchdog(&self) -> Option<Duration> {
        service::watchdog()
    }

    fn alive(&mut self) {
        service::alive();
    }

    fn audit(&mut self, uid: u32, remote: Option<String>, pipe: PipeReader) {
        self.intake.add(uid, remote, pipe);
    }

    fn refused(&mut self, refusal: Refusal, remote: Option<RemoteIdentity>) {
        self.pending = true;
        let principal = remote.as_ref().map(ToString::to_string);
        let is_local = remote.is_none();
        let remote = remote.map(|identity| PrincipalKey::from(Arc::new(identity)));
        let key = |uid| remote.unwrap_or_else(|| PrincipalKey::of_uid(uid));
        match refusal {
            Refusal::Limit { uid, limit } => {
                let (key, uid) = (key(uid), is_local.then_some(uid));
                self.refusals.report(Reason::Limit(limit), Some(key), || {
                    tracing::warn!(
                        uid,
                        principal,
                        limit,
                        "closed a connection: too many connections or workers"
                    );
                });
            }
            Refusal::UnknownPeer(error) => {
                self.refusals.report(Reason::UnknownPeer, None, || {
                    tracing::warn!(%error, "closed a connection: cannot read the peer's credentials");
                });
            }
            Refusal::NotAccepted(error) => {
                self.refusals.report(Reason::NotAccepted, None, || {
                    tracing::warn!(%error, "cannot accept connections: pausing");
                });
            }
            Refusal::NoFiles { uid } => {
                let (key, uid) = (key(uid), is_local.then_some(uid));
                self.refusals.report(Reason::NotAccepted, Some(key), || {
                    tracing::warn!(
                        uid,
                        principal,
                        "cannot accept connections: the worker cannot open more files"
                    );
                });
            }
            Refusal::NotStarted { uid, error } => {
                let (key, uid) = (key(uid), is_local.then_some(uid));
                self.refusals.report(Reason::NotServed, Some(key), || {
                    tracing::error!(uid, principal, %error, "closed a connection: cannot start a worker");
                });
            }
        }
    }

    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        if self.pending {
            self.refusals.sweep();
            self.pending = self.refusals.is_counting();
        }
        self.pending.then(|| now + SWEEP)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.refusals.finish();
    }
}
