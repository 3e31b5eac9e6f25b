//! The gateway, which serves clients on other machines.

use std::os::fd::OwnedFd;
use std::thread;

use sockbroker_gateway::authority::Authority;
use sockbroker_gateway::serve;
use sockbroker_monitor::message::gateway::ChannelOfGateway;
use sockbroker_sys::process;

use super::confine;
use super::error::StartError;
use super::first_steps::{sent_configuration, start_log, take_id};

/// Its threads at most: cryptography takes the time.
const THREADS: usize = 4;
/// Open files apart from connections.
const OPEN_FILES: u64 = 256;
/// The limit on its memory (`RLIMIT_DATA`) apart from connections.
const MEMORY: u64 = 128 << 20;
/// What one connection takes at most: buffers of TLS and of both directions.
const MEMORY_OF_CONNECTION: u64 = 512 << 10;

/// Serves remote clients.
pub(super) fn run(channel: OwnedFd, parent: u32) -> Result<(), StartError> {
    start_log()?;
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("gateway: {error}"));
    let channel = ChannelOfGateway::over(channel);
    let begun = serve::begin(&channel).map_err(|error| fail(&error))?;
    let config = sent_configuration(begun.configuration)?;
    let has_own_id = begun.id.is_some();
    take_id(begun.id, parent, &config).map_err(|error| fail(&error))?;
    let settings = config.remote.settings(&config.limits);
    // The connection and a copy, and both ends of the pair, one on its way to a worker.
    let open_files = settings.connections.saturating_mul(4).saturating_add(OPEN_FILES);
    // The kernel compares with it all descriptors that are in flight for the user.
    if has_own_id {
        process::limit_open_files(open_files).map_err(|error| fail(&error))?;
    }
    let memory = settings.connections.saturating_mul(MEMORY_OF_CONNECTION).saturating_add(MEMORY);
    process::limit_memory(memory).map_err(|error| fail(&error))?;
    // Before the confinement, after which the gateway opens no file.
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS);
    let authority = Authority::new(&begun.credentials, &settings).map_err(|error| fail(&error))?;
    confine::confine_gateway(&config.confine)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| fail(&error))?;
    let (listeners, generation) = (begun.listeners, begun.generation);
    let served = serve::serve(channel, listeners, settings, authority, generation);
    runtime.block_on(served).map_err(|error| fail(&error))
}
