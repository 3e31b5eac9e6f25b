//! Processes and their threads, as the kernel shows them in `/proc`.

use std::fs;

/// A thread of a process: its number, its state, and how often it has run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    number: u32,
    pub(crate) state: char,
    switches: Vec<String>,
}

/// The threads of a process; none if it does not exist. A thread that ends meanwhile is left out.
pub(crate) fn threads(number: u32) -> Vec<Thread> {
    let Ok(folder) = fs::read_dir(format!("/proc/{number}/task")) else { return Vec::new() };
    let thread = |entry: fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"].map(line);
        Some(Thread {
            number: entry.file_name().to_str()?.parse().ok()?,
            state: line("State:")?.trim().chars().next()?,
            switches: switches.into_iter().flatten().map(str::to_owned).collect(),
        })
    };
    folder.filter_map(|entry| thread(entry.ok()?)).collect()
}

/// Whether no thread of a broker and of the processes that it has started has anything to do: all sleep or are stopped, and none has run
/// between two looks, so that they all slept at one moment.
pub(crate) fn is_idle(broker: u32) -> bool {
    let look = || -> Vec<Thread> {
        let numbers = processes().filter(|number| *number == broker || has_parent(*number, broker));
        numbers.flat_map(threads).collect()
    };
    let first = look();
    first.iter().all(|thread| matches!(thread.state, 'S' | 'I' | 'T' | 'Z')) && first == look()
}

/// The numbers of all processes.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether a process is a child of another one.
pub(crate) fn has_parent(number: u32, parent: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    let found = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    found == Some(&parent.to_string())
}
