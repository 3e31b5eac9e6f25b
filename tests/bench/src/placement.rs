//! Pins processes to CPUs: with both ends on one CPU a figure shows the software alone, two CPUs add wake-ups.

use std::fs;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Result;

/// The CPUs of the two ends of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Both ends on the same CPU.
    OneCpu,
    /// Each end on its own CPU.
    TwoCpus,
    /// Not pinned: the scheduler decides.
    Free,
}

impl Placement {
    /// The name in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::OneCpu => "one CPU",
            Self::TwoCpus => "two CPUs",
            Self::Free => "not pinned",
        }
    }
}

/// The CPUs that this process was allowed to use at its start.
#[derive(Debug)]
pub(crate) struct Cpus(Vec<usize>);

impl Cpus {
    /// Returns the CPUs that this process had at the first call, which MUST come before it is pinned.
    pub(crate) fn of_this_process() -> Result<Self> {
        static GIVEN: OnceLock<Vec<usize>> = OnceLock::new();
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let now = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        Ok(Self(GIVEN.get_or_init(|| now.collect()).clone()))
    }

    /// Pins this process to one end and other processes to the other end.
    pub(crate) fn put(&self, placement: Placement, others: &[Pid]) -> Result<()> {
        let (own, theirs) = match (placement, self.0.as_slice()) {
            (Placement::Free, all) => (all, all),
            (Placement::OneCpu, [.., last]) => {
                (std::slice::from_ref(last), std::slice::from_ref(last))
            }
            (Placement::TwoCpus, [.., first, last]) => {
                (std::slice::from_ref(last), std::slice::from_ref(first))
            }
            (Placement::OneCpu | Placement::TwoCpus, _) => {
                return Err("there are too few CPUs".into());
            }
        };
        // This process has one thread here; other processes are pinned thread by thread.
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
    /// Restores the CPUs of this process for the next measurement.
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
