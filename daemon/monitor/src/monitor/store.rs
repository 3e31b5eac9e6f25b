//! The descriptor store of the service manager (`FDSTORE`, `sd_notify(3)`). Nothing waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::service_manager::ServiceManager;

/// When to try again to send what the service manager had no room for.
const RETRY: Duration = Duration::from_millis(20);
/// Messages that wait. Beyond it the service manager does not read, and further ones are dropped.
const WAITING: usize = 1024;
/// The descriptors of one name.
const OF_NAME: u64 = 2;

/// The store, and the messages that wait to be sent to it.
#[derive(Debug)]
pub(super) struct Store {
    manager: Option<ServiceManager>,
    /// The descriptors that the service manager states to keep; `None` if it states nothing (systemd before 254).
    places: Option<u64>,
    /// The names of what it has.
    names: BTreeSet<String>,
    waiting: VecDeque<(String, Vec<OwnedFd>)>,
    pub(super) retry_at: Option<Instant>,
}

impl Store {
    /// The store of a service manager that states to keep this number of descriptors, and has some under these names.
    pub(super) fn new(
        (manager, places): (Option<ServiceManager>, Option<u64>),
        names: impl IntoIterator<Item = String>,
    ) -> Self {
        let names = names.into_iter().collect();
        Self { manager, places, names, waiting: VecDeque::new(), retry_at: None }
    }

    /// Whether the service manager may keep what is stored next. One that states nothing keeps it over a restart if it is
    /// an earlier systemd, and discards it otherwise.
    pub(super) fn has_room(&self) -> bool {
        let used = self.names.len() as u64 * OF_NAME;
        self.manager.is_some() && self.places.is_none_or(|places| used + OF_NAME <= places)
    }

    /// Whether the service manager states that a broker that is started later gets what is stored.
    pub(super) fn is_stated(&self) -> bool {
        self.manager.is_some() && self.places.is_some()
    }

    /// Stores the two ends of a lot under a name.
    pub(super) fn add(&mut self, name: &str, descriptors: Vec<OwnedFd>) {
        self.names.insert(name.to_owned());
        self.send(format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptors);
    }

    /// Whether something was stored under a name.
    pub(super) fn has_stored(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Removes what has this name.
    pub(super) fn remove(&mut self, name: &str) {
        if self.names.remove(name) {
            self.send(format!("FDSTOREREMOVE=1\nFDNAME={name}"), Vec::new());
        }
    }

    /// The end of a pipe whose other end the service manager closes once it has handled all earlier messages.
    pub(super) fn barrier(&mut self) -> io::Result<OwnedFd> {
        let (own, other) = io::pipe()?;
        self.send("BARRIER=1".to_owned(), vec![other.into()]);
        Ok(own.into())
    }

    fn send(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        if self.manager.is_none() {
            return;
        }
        if self.waiting.len() >= WAITING {
            tracing::error!("the service manager does not read its notifications");
            return;
        }
        self.waiting.push_back((text, descriptors));
        self.flush();
    }

    /// Sends what waits, as far as the service manager has room.
    pub(super) fn flush(&mut self) {
        self.retry_at = None;
        let Some(manager) = &self.manager else { return };
        while let Some((text, descriptors)) = self.waiting.front() {
            let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
            match manager.send(text, &borrowed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(Instant::now() + RETRY);
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot notify the service manager"),
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn what_is_stored_counts_until_it_is_removed() {
        let names = ["lots-1".to_owned()];
        assert!(!Store::new((None, Some(100)), names.clone()).has_room());
        let folder = std::env::temp_dir().join(format!("store-{}", std::process::id()));
        let address = SocketAddr::from_pathname(&folder).unwrap();
        let _socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = || ServiceManager::at(folder.as_os_str()).unwrap();
        assert!(!Store::new((Some(manager()), Some(1)), []).has_room());
        let silent = Store::new((Some(manager()), None), names.clone());
        assert!(silent.has_room() && !silent.is_stated());
        let mut store = Store::new((Some(manager()), Some(5)), names);
        std::fs::remove_file(&folder).unwrap();
        assert!(store.has_room() && store.is_stated());
        store.add("lots-2", Vec::new());
        assert!(!store.has_room());
        store.remove("lots-9");
        assert!(!store.has_room());
        store.remove("lots-1");
        assert!(store.has_room());
    }
}
