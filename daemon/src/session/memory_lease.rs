//! Kernel memory that the monitor has leased to this worker, so that all workers together stay within a limit.

use std::sync::atomic::Ordering;

use sockbroker_monitor::message::MemoryLimit;
use tokio::sync::MutexGuard;

use crate::error::{OpError, OpResult};
use crate::quota::Share;
use crate::session::broker::Broker;

/// Bytes that a call can use while this exists.
#[derive(Debug)]
pub struct MemoryLease<'a> {
    _using: MutexGuard<'a, ()>,
}

impl Broker {
    /// Leases what this worker needs in order to use this number of further bytes. `None` without a monitor, where the
    /// limits of this process are those of all.
    pub async fn lease_kernel_memory(&self, more: u64) -> OpResult<Option<MemoryLease<'_>>> {
        let Some(monitor) = self.monitor() else { return Ok(None) };
        let using = self.using_memory.lock().await;
        let wanted = self.users.used(Share::Kernel).saturating_add(more);
        let missing = wanted.saturating_sub(self.leased_memory.load(Ordering::Relaxed));
        if missing > 0 {
            let (name, value) = match monitor.lease_memory(missing).await? {
                Ok(()) => return Ok(Some(MemoryLease { _using: using })),
                Err(MemoryLimit::InAll) => ("kernel_bytes_in_all", self.limits.kernel_bytes_in_all),
                Err(MemoryLimit::OfUser) => {
                    ("kernel_bytes_per_user", self.limits.kernel_bytes_per_user)
                }
            };
            return Err(OpError::Limit { name, value });
        }
        Ok(Some(MemoryLease { _using: using }))
    }

    /// Adds bytes that the monitor has leased.
    pub fn memory_leased(&self, bytes: u64) {
        self.leased_memory.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether bytes are leased, which are given back some time after they were used.
    pub(super) fn has_leased_memory(&self) -> bool {
        self.leased_memory.load(Ordering::Relaxed) > 0 || self.using_memory.try_lock().is_err()
    }

    /// Takes leased bytes that are not used, for the monitor; returns their number.
    pub fn give_back_memory(&self) -> u64 {
        // A call that is about to use them keeps them.
        let Ok(_using) = self.using_memory.try_lock() else { return 0 };
        let used = self.users.used(Share::Kernel);
        let unused = self.leased_memory.load(Ordering::Relaxed).saturating_sub(used);
        self.leased_memory.fetch_sub(unused, Ordering::Relaxed);
        unused
    }
}
