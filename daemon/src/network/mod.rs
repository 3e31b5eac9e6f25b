//! Networks: creating sockets in one, listing its interfaces, resolving names in it.

pub mod open;
pub mod interface;
pub mod resolve;
pub mod host;
pub mod caller_identity;
pub mod caller_process;
pub mod captures;
pub mod opener;
pub mod known;
pub mod other_namespace;
pub mod names;
pub mod stub;
pub mod name_files;

/// The network namespace in which a socket is created, an interface listed or a name resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network(Namespace);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Namespace {
    /// The namespace of the broker's threads.
    Own,
}

impl Network {
    /// The broker's own network.
    pub fn own() -> Self {
        Self(Namespace::Own)
    }

    /// Makes calls whose result depends on the network namespace of the thread.
    fn run<T>(&self, calls: impl FnOnce() -> T) -> T {
        match self.0 {
            Namespace::Own => calls(),
        }
    }
}
