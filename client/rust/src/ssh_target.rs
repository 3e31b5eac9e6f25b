//! The address of a broker that is reached through ssh.

use std::fmt;
use std::path::PathBuf;

/// The socket of the system's broker, where a target names none.
const DEFAULT_PATH: &str = "/run/sockbroker/socket";
/// The characters of a path in addition to letters and digits. Others have a meaning for ssh or for the shell of the
/// other host.
const PATH_CHARACTERS: &str = "/._-+,=@";

/// A socket on another host, and the login to reach it: `ssh://[USER@]HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshTarget {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: Option<PathBuf>,
}

impl SshTarget {
    /// Parses what follows `ssh:`. The error is a message.
    pub(crate) fn parse(rest: &str) -> Result<Self, String> {
        let fail =
            |why: &str| Err(format!("\"ssh:{rest}\" {why}: use ssh://[USER@]HOST[:PORT][/PATH]"));
        let Some(rest) = rest.strip_prefix("//") else { return fail("is not an endpoint") };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(address) => match address.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, after)) => (host, Some(after.strip_prefix(':').unwrap_or("?"))),
                None => return fail("has no closing bracket"),
            },
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let is_name = |text: &str, more: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric() || "_:".contains(first))
                && text.chars().all(|one| one.is_ascii_alphanumeric() || more.contains(one))
        };
        if !is_name(host, "._-:") {
            return fail("has no valid host");
        }
        if !user.is_none_or(|user| is_name(user, "._-\\+@")) {
            return fail("has no valid user");
        }
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port @ 1..)) => Some(port),
            Some(_) => return fail("has no valid port"),
        };
        if path.contains(|one: char| !one.is_ascii_alphanumeric() && !PATH_CHARACTERS.contains(one))
        {
            return fail("has a path with other characters than letters, digits and /._-+,=@");
        }
        let path = Some(path).filter(|path| !path.is_empty() && *path != "/").map(PathBuf::from);
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port, path })
    }

    /// The host, as ssh resolves it: a name, an address, or an alias of its configuration.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host with the user, if the target names one: the destination for ssh.
    pub(crate) fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path of the socket, if the target names one.
    pub(crate) fn named_path(&self) -> Option<&str> {
        self.path.as_deref().and_then(|path| path.to_str())
    }

    /// The path of the socket.
    pub(crate) fn path(&self) -> &str {
        self.named_path().unwrap_or(DEFAULT_PATH)
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "{}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed_and_displayed() {
        for (text, destination, port, path) in [
            ("ssh://lab7", "lab7", None, DEFAULT_PATH),
            ("ssh://alice@lab7:2222/run/x/s", "alice@lab7", Some(2222), "/run/x/s"),
            ("ssh://[::1]:22/s", "::1", Some(22), "/s"),
            ("ssh://a.b@c@[fe80::1]", "a.b@c@fe80::1", None, DEFAULT_PATH),
        ] {
            let target = SshTarget::parse(&text[4..]).unwrap();
            assert_eq!(target.destination(), destination);
            assert_eq!((target.port(), target.path()), (port, path));
            assert_eq!(target.to_string(), text);
        }
        assert_eq!(SshTarget::parse("//lab7/").unwrap().to_string(), "ssh://lab7");
    }

    #[test]
    fn targets_that_ssh_or_a_shell_could_misread_are_refused() {
        for rest in [
            "lab7",
            "//",
            "///run/s",
            "//-oProxyCommand=x",
            "//a b",
            "//u@",
            "//-l@h",
            "//h:0",
            "//h:",
            "//h:65536",
            "//h:x",
            "//[::1",
            "//[::1]x",
            "//..",
            "//h/a:b",
            "//h/a b",
            "//h/%h",
            "//h/$(x)",
            "//h/a;b",
            "//h/a'b",
            "//h/\u{e9}",
            "//h\n/s",
            "//@h",
        ] {
            let error = SshTarget::parse(rest).unwrap_err();
            assert!(error.contains("use ssh://"), "{rest}: {error}");
        }
    }
}
