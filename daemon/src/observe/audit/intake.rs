//! The monitor's side of the audit: a thread takes the records of all workers, and stamps each with the user that
//! the kernel reported for the worker's connections.

use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use sockbroker_sys::events::Events;
use sockbroker_sys::record;

use super::pipe::RecordReader;
use super::record::Record;

/// The user of a worker, and the name of a remote principal.
type Origin = (u32, Option<String>);

/// Passes the pipes of workers to the thread.
#[derive(Debug)]
pub struct Intake {
    pipes: Sender<(Origin, PipeReader)>,
    wake: std::os::fd::OwnedFd,
}

impl Intake {
    /// Starts the thread, which passes user and record to `report`. It ends after this value and every worker have
    /// ended.
    pub fn start(mut report: impl FnMut(u32, Record) + Send + 'static) -> io::Result<Self> {
        let (wake, woken) = record::pair()?;
        let (pipes, new) = mpsc::channel();
        let mut events = Events::new()?;
        events.add(woken.as_fd(), 0)?;
        let run = move || {
            if let Err(error) = take(&mut report, &mut events, &woken, &new) {
                tracing::error!(%error, "the audit has ended");
            }
        };
        thread::Builder::new().name("audit-intake".to_owned()).spawn(run)?;
        Ok(Self { pipes, wake })
    }

    /// Takes the records of a worker of this user, or of the remote principal that is counted by this number.
    pub fn add(&self, uid: u32, remote: Option<String>, pipe: PipeReader) {
        // An error means that the thread has ended, which it has logged.
        if self.pipes.send(((uid, remote), pipe)).is_ok() {
            drop(record::send(self.wake.as_fd(), &[0], &[]));
        }
    }
}

/// Takes records until the monitor has dropped the [`Intake`] and no pipe is left.
fn take(
    report: &mut dyn FnMut(u32, Record),
    events: &mut Events,
    woken: &std::os::fd::OwnedFd,
    new: &Receiver<(Origin, PipeReader)>,
) -> io::Result<()> {
    let mut workers = BTreeMap::new();
    let (mut next, mut is_open) = (1, true);
    while is_open || !workers.is_empty() {
        for ready in events.wait(None)? {
            if ready.token == 0 {
                while record::receive(woken.as_fd()).is_ok_and(|woken| woken.is_some()) {}
                for (origin, pipe) in new.try_iter() {
                    let reader = RecordReader::new(pipe)?;
                    events.add(reader.pipe().as_fd(), next)?;
                    workers.insert(next, (origin, reader));
                    next += 1;
                }
                if ready.hung_up {
                    is_open = false;
                    events.remove(woken.as_fd())?;
                }
                continue;
            }
            let Some(((uid, remote), reader)) = workers.get_mut(&ready.token) else { continue };
            let (uid, read) = (*uid, reader.read());
            match read {
                Ok(Some(records)) => {
                    for mut record in records {
                        record.set("uid", uid);
                        if let Some(remote) = remote.as_deref() {
                            record.set("principal", remote);
                        }
                        report(uid, record);
                    }
                }
                Ok(None) => drop(workers.remove(&ready.token)),
                Err(error) => {
                    tracing::error!(uid, %error, "dropped the audit of a worker");
                    workers.remove(&ready.token);
                }
            }
        }
    }
    Ok(())
}
