//! The policy reader: reads the policy's files, resolves the names in them, and sends the result to the monitor.

use std::os::fd::{AsFd, OwnedFd};

use sockbroker_monitor::channel::Channel;
use sockbroker_monitor::message::{FromReader, Nothing};
use sockbroker_sys::{capability, process, sealed};

use super::args::Args;
use super::error::StartError;
use super::{confine, sources};
use crate::config::policy::ResolvedPolicy;

/// Reads the policy that the arguments name.
pub(super) fn run(args: &Args, channel: OwnedFd) -> Result<(), StartError> {
    let fail =
        |error: &dyn std::fmt::Display| StartError::System(format!("policy-reader: {error}"));
    let channel = Channel::<FromReader, Nothing>::over(channel);
    // The files are readable for the broker's user, as without this process.
    capability::keep_only(&[]).map_err(|error| fail(&error))?;
    process::refuse_new_privileges().map_err(|error| fail(&error))?;
    let owner = process::effective_uid();
    let read = sources::policy_files(args).and_then(|files| ResolvedPolicy::read(&files, owner));
    let (resolved, loaded) = match read {
        Ok(read) => read,
        Err(error) => {
            let message = FromReader::Unusable(error.to_string());
            return channel.send(&message, &[]).map_err(|error| fail(&error));
        }
    };
    for warning in &loaded.warnings {
        channel
            .send(&FromReader::Warning(warning.to_string()), &[])
            .map_err(|error| fail(&error))?;
    }
    let encoded = resolved.encode().map_err(|error| fail(&error))?;
    let memory = sealed::create("policy", &encoded).map_err(|error| fail(&error))?;
    let needs_opener = confine::needs_opener(&loaded.into_policy(owner));
    channel
        .send(&FromReader::Policy { needs_opener }, &[memory.as_fd()])
        .map_err(|error| fail(&error))
}
