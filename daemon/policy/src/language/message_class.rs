//! Classes of netlink messages: what a rule grants of the verb `send` on netlink sockets.

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::vocabulary::words;

words! {
    /// A class of netlink messages.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum MessageClass {
        Get "get" "Read without changing anything: `RTM_GET*`, socket diagnosis, names of generic families.";
        Link "link" "Add, change and delete interfaces.";
        Address "address" "Add, change and delete addresses and their labels.";
        Route "route" "Add, change and delete routes, rules and next hops.";
        Neighbour "neighbour" "Add, change and delete neighbours and their tables.";
        Traffic "traffic" "Add, change and delete queueing disciplines, classes, filters and actions.";
        Destroy "destroy" "Close sockets of other processes (`SOCK_DESTROY`).";
        Peer "peer" "Messages to other processes or groups instead of the kernel.";
        Unknown "unknown" "Everything else: other protocols, other messages, messages that cannot be parsed, and those about other network namespaces than that of the socket.";
    }
}

impl<'de> Deserialize<'de> for MessageClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::ALL.iter().copied().find(|class| class.word() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|class| class.word()).collect();
            let known = known.join(", ");
            D::Error::custom(format!("unknown message class `{word}`; the classes are: {known}"))
        })
    }
}
