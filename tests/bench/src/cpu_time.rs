//! The CPU time of processes.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::error::Result;
use crate::measure::seconds;

/// The CPU time of a process with all its threads, also those that have ended, in seconds.
pub(crate) fn cpu_time(process: Pid) -> Result<f64> {
    Ok(Duration::from(clock_gettime(clock_getcpuclockid(process)?)?).as_secs_f64())
}

/// The CPU time of several processes.
pub(crate) fn cpu_time_of(processes: &[Pid]) -> Result<f64> {
    processes.iter().map(|process| cpu_time(*process)).sum()
}

/// The CPU time of the children that have ended.
pub(crate) fn children_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The processes of a broker: one, and all those that it has started.
pub(crate) fn family(first: Pid) -> Result<Vec<Pid>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Ok(process) = name.to_string_lossy().parse::<i32>() else { continue };
        // A process that has just ended has no file.
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // The name, in parentheses, can contain anything.
        let fields = stat.rsplit_once(") ").map_or("", |(_name, fields)| fields);
        let parent = fields.split(' ').nth(1).and_then(|parent| parent.parse().ok());
        parents.push((process, parent.unwrap_or(0)));
    }
    let mut found = vec![first.as_raw()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    Ok(found.into_iter().map(Pid::from_raw).collect())
}
