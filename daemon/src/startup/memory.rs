//! Whether the workers together may use more memory than the machine or its container has.

use std::fs;
use std::path::Path;

use sockbroker_sys::{host, peer};

use crate::config::limits::Limits;

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Reports it in the log. That is rarely a problem: most workers use much less than they may, and if they do not, the kernel
/// ends the largest.
pub(super) fn report(limits: &Limits, has_remote: bool) {
    let Ok(machine) = host::memory() else { return };
    let group = peer::own_control_group().ok();
    let limit = group.and_then(|group| limit_of_group(Path::new(CONTROL_GROUPS), &group));
    let available = limit.unwrap_or(u64::MAX).min(machine);
    let remote = if has_remote { limits.remote_workers } else { 0 };
    let workers = limits.workers.saturating_add(remote);
    let all = workers.saturating_mul(limits.worker_memory());
    if all > available {
        tracing::info!(
            workers,
            worker_mib = limits.worker_memory() >> 20,
            available_mib = available >> 20,
            "all workers together may use more memory than there is: see workers and buffered_bytes_per_user"
        );
    }
}

/// The lowest `memory.max` of a control group and of those that contain it, in bytes.
fn limit_of_group(root: &Path, group: &str) -> Option<u64> {
    let own = root.join(group.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let limits = groups.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok());
    // "max" means that there is none.
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_groups_counts() {
        let root = std::env::temp_dir().join(format!("sockbroker-groups-{}", std::process::id()));
        fs::create_dir_all(root.join("system.slice/broker.service")).unwrap();
        let write = |group: &str, limit: &str| {
            fs::write(root.join(group).join("memory.max"), limit).unwrap();
        };
        write("system.slice/broker.service", "max\n");
        assert_eq!(limit_of_group(&root, "/system.slice/broker.service"), None);
        write("system.slice", "4096\n");
        assert_eq!(limit_of_group(&root, "/system.slice/broker.service"), Some(4096));
        write("system.slice/broker.service", "1024\n");
        assert_eq!(limit_of_group(&root, "/system.slice/broker.service"), Some(1024));
        assert_eq!(limit_of_group(&root, "/"), None);
        fs::remove_dir_all(root).unwrap();
    }
}
