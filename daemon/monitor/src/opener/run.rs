//! The main thread: follows the monitor. Each worker is served by threads of its own.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use sockbroker_sys::events::{Events, Signals};
use sockbroker_sys::prompt_close::PromptClose;

use super::host::Host;
use super::serve::serve;
use super::shared::{MonitorEnd, Opener, RunError, unsent};
use crate::channel::ChannelError;
use crate::message::{Build, FromOpener, ToOpener};

/// Serves until the monitor ends.
pub fn run<H: Host + Send + 'static>(channel: OwnedFd, mut host: H) -> Result<(), RunError> {
    // The monitor ends this process after the last worker, whatever the service manager sends to all processes.
    let _ignored = Signals::block()?;
    let mut closing = PromptClose::new()?;
    let monitor = MonitorEnd::over(channel);
    let mut events = Events::new()?;
    events.add(monitor.as_fd(), 0)?;
    monitor.send(&FromOpener::Hello(Build::OWN), &[]).map_err(unsent)?;
    let Some((generation, configuration, policy)) = begin(&monitor, &mut events)? else {
        return Ok(());
    };
    let policy = host.policy(policy).map_err(RunError::Host)?;
    let description = host.confine(configuration, &policy).map_err(RunError::Host)?;
    monitor.send(&FromOpener::Ready(description), &[]).map_err(unsent)?;
    let opener = Arc::new(Opener::new(monitor, host, (policy, generation), serve));
    loop {
        events.wait(None)?;
        if !opener.follow_monitor(&mut closing)? {
            return Ok(());
        }
    }
}

/// Waits for what the opener begins with; `None` if the monitor has ended.
fn begin(
    monitor: &MonitorEnd,
    events: &mut Events,
) -> Result<Option<(u64, OwnedFd, OwnedFd)>, RunError> {
    let mut greeted = false;
    loop {
        match monitor.receive() {
            Ok((ToOpener::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((ToOpener::Begin { generation }, descriptors)) if greeted => {
                let [configuration, policy] = <[OwnedFd; 2]>::try_from(descriptors)
                    .map_err(|_others| RunError::Monitor("descriptors are missing".to_owned()))?;
                return Ok(Some((generation, configuration, policy)));
            }
            Ok(_) => return Err(RunError::Monitor("it is of another build".to_owned())),
            Err(ChannelError::NotReady) => drop(events.wait(None)?),
            Err(ChannelError::Closed) => return Ok(None),
            Err(error) => return Err(RunError::Monitor(error.to_string())),
        }
    }
}
