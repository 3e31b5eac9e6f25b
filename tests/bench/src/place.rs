//! Where processes run: both ends on one CPU show the software alone, two CPUs add the wake-ups.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::measure::Result;

/// Where the two ends of a measurement run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Both on the same CPU.
    OneCpu,
    /// Each on a CPU of its own.
    TwoCpus,
    /// Wherever the scheduler puts them.
    Free,
}

impl Place {
    /// Its name in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::OneCpu => "one CPU",
            Self::TwoCpus => "two CPUs",
            Self::Free => "not pinned",
        }
    }
}

/// The CPUs this process was given at its start.
#[derive(Debug)]
pub(crate) struct Cpus(Vec<usize>);

impl Cpus {
    /// The CPUs of this process, which is not pinned yet.
    pub(crate) fn of_this_process() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let given = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        Ok(Self(given.collect()))
    }

    /// Puts this process on one side and others on the other.
    pub(crate) fn put(&self, place: Place, others: &[Pid]) -> Result<()> {
        let (own, theirs) = match (place, self.0.as_slice()) {
            (Place::Free, all) => (all, all),
            (Place::OneCpu, [.., last]) => (std::slice::from_ref(last), std::slice::from_ref(last)),
            (Place::TwoCpus, [.., first, last]) => {
                (std::slice::from_ref(last), std::slice::from_ref(first))
            }
            (Place::OneCpu | Place::TwoCpus, _) => return Err("there are too few CPUs".into()),
        };
        // A process that is not pinned is one thread; others are pinned thread by thread.
        pin(Pid::from_raw(0), own)?;
        for process in others {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                let number = thread?.file_name().to_string_lossy().parse()?;
                pin(Pid::from_raw(number), theirs)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cpus {
    /// What is measured next begins where this process began.
    fn drop(&mut self) {
        drop(pin(Pid::from_raw(0), &self.0));
    }
}

fn pin(thread: Pid, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(thread, &set)?)
}
