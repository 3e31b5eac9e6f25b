//! What a worker begins with: the first message of the monitor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sockbroker_monitor::channel::ChannelError;
use sockbroker_monitor::message::{Beginning, Build, Description, MonitorChannel, ToWorker};
use sockbroker_policy::Policy;
use sockbroker_proto::api::broker::Process;
use sockbroker_sys::events::Events;
use sockbroker_sys::sealed;

use super::error::StartError;
use super::sources::{MEMORY, read_sealed_policy};
use crate::network::opener::Opener;

/// What the monitor sends first.
pub(super) struct Begun {
    pub(super) beginning: Beginning,
    pub(super) configuration: Vec<u8>,
    pub(super) policy: Policy,
    pub(super) opener: Option<(Opener, Process)>,
}

impl Begun {
    fn new(
        beginning: Beginning,
        descriptors: Vec<OwnedFd>,
        opener: Option<Process>,
    ) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or("the first message lacks descriptors");
        let configuration = sealed::read(next()?.as_fd(), MEMORY).map_err(text)?;
        let policy = read_sealed_policy(&next()?)?;
        let opener = match opener {
            Some(process) => Some((Opener::over([next()?, next()?]).map_err(text)?, process)),
            None => None,
        };
        Ok(Self { beginning, configuration, policy, opener })
    }
}

/// Waits for it.
pub(super) fn begin(channel: &MonitorChannel) -> Result<Begun, StartError> {
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("worker: {error}"));
    let mut events = Events::new().map_err(|error| fail(&error))?;
    events.add(channel.as_fd(), 0).map_err(|error| fail(&error))?;
    let mut greeted = false;
    loop {
        match channel.receive() {
            Ok((ToWorker::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((ToWorker::Begin(beginning), descriptors)) if greeted => {
                return Begun::new(beginning, descriptors, None).map_err(|error| fail(&error));
            }
            Ok((ToWorker::BeginWithOpener(beginning, Description(about)), descriptors))
                if greeted =>
            {
                let opener = postcard::from_bytes(&about).map_err(|error| fail(&error))?;
                let begun = Begun::new(beginning, descriptors, Some(opener));
                return begun.map_err(|error| fail(&error));
            }
            Ok(_) => return Err(fail(&"the monitor is of another build")),
            Err(ChannelError::NotReady) => {
                events.wait(None).map_err(|error| fail(&error))?;
            }
            Err(error) => return Err(fail(&error)),
        }
    }
}
