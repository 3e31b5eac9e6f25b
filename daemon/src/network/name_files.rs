//! The files that configure name resolution in a network namespace with a name: `resolv.conf(5)` and `hosts(5)` in the
//! folder of `ip-netns(8)`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// The most bytes of a file. A longer one is an error: names that are left out would lead elsewhere.
const LENGTH_MAX: u64 = 1 << 20;
/// The most servers that are asked (`MAXNS` of glibc).
const SERVERS_MAX: usize = 3;
/// The most suffixes that are tried (`MAXDNSRCH`).
const SUFFIXES_MAX: usize = 6;
/// The largest values of `options` (`RES_MAXNDOTS`, `RES_MAXRETRANS`, `RES_MAXRETRY`).
const DOTS_MAX: u64 = 15;
const SECONDS_MAX: u64 = 30;
const ATTEMPTS_MAX: u64 = 5;

const PORT: u16 = 53;

/// `resolv.conf(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverFile {
    pub servers: Vec<SocketAddr>,
    /// Suffixes of names that are not absolute.
    pub suffixes: Vec<String>,
    /// With as many dots, a name is first tried as it is.
    pub dots: usize,
    /// How long to wait for each answer.
    pub timeout: Duration,
    pub attempts: u64,
}

impl ResolverFile {
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&read(path)?))
    }

    /// Lines and options that are unknown are skipped, as glibc does.
    fn parse(text: &str) -> Self {
        let mut file = Self {
            servers: Vec::new(),
            suffixes: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    file.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                Some("search" | "domain") => {
                    file.suffixes = words.take(SUFFIXES_MAX).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| file.option(word)),
                _ => {}
            }
        }
        file.servers.truncate(SERVERS_MAX);
        file
    }

    fn option(&mut self, word: &str) {
        let number = |text: &str, most: u64| text.parse::<u64>().ok().map(|value| value.min(most));
        match word.split_once(':') {
            Some(("ndots", value)) => {
                let dots = number(value, DOTS_MAX).and_then(|dots| usize::try_from(dots).ok());
                self.dots = dots.unwrap_or(self.dots);
            }
            Some(("timeout", value)) => {
                let seconds = number(value, SECONDS_MAX).map(|seconds| seconds.max(1));
                self.timeout = seconds.map_or(self.timeout, Duration::from_secs);
            }
            Some(("attempts", value)) => {
                self.attempts =
                    number(value, ATTEMPTS_MAX).map_or(self.attempts, |count| count.max(1));
            }
            _ => {}
        }
    }

    /// The absolute names to try for a name, in order (`res_search()`).
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let suffixed = self.suffixes.iter().map(|suffix| suffix.trim_matches('.'));
        let mut names: Vec<_> = suffixed.map(|suffix| format!("{name}.{suffix}")).collect();
        let first = name.matches('.').count() >= self.dots;
        names.insert(if first { 0 } else { names.len() }, name.to_owned());
        names
    }
}

/// `hosts(5)`: an address and its names in each line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsFile(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    address: IpAddr,
    names: Vec<String>,
}

/// A host: its name, further names, and its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl HostsFile {
    /// A file that does not exist is empty.
    pub fn read(path: &Path) -> io::Result<Self> {
        match read(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            let names: Vec<_> = words.map(str::to_owned).collect();
            (!names.is_empty()).then_some(Line { address, names })
        });
        Self(lines.collect())
    }

    /// The host with a name. Without an entry, `localhost` has the addresses of the loopback interface (RFC 6761).
    pub fn by_name(&self, name: &str) -> Option<Host> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is = |other: &String| other.eq_ignore_ascii_case(name);
        let lines = self.0.iter().filter(|line| line.names.iter().any(is));
        let found = host_of(lines);
        let lower = name.to_ascii_lowercase();
        let is_local = lower == "localhost" || lower.ends_with(".localhost");
        found.or_else(|| {
            let addresses = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            is_local.then(|| Host { name: name.to_owned(), aliases: Vec::new(), addresses })
        })
    }

    pub fn by_address(&self, address: IpAddr) -> Option<Host> {
        host_of(self.0.iter().filter(|line| line.address == address).take(1))
    }
}

fn host_of<'a>(lines: impl Iterator<Item = &'a Line>) -> Option<Host> {
    let mut host = Host::default();
    for line in lines {
        if !host.addresses.contains(&line.address) {
            host.addresses.push(line.address);
        }
        for name in &line.names {
            if host.name.is_empty() {
                host.name.clone_from(name);
            } else if host.name != *name && !host.aliases.contains(name) {
                host.aliases.push(name.clone());
            }
        }
    }
    (!host.addresses.is_empty()).then_some(host)
}

/// The text of a file, whose bytes can be of any kind. `EFBIG` if it is too long, `EINVAL` if it is not an ordinary file.
fn read(path: &Path) -> io::Result<String> {
    // A pipe or a device must not let the caller wait.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut bytes = Vec::new();
    // With one more byte, a file at the limit differs from a longer one.
    let length = file.take(LENGTH_MAX + 1).read_to_end(&mut bytes)? as u64;
    if length > LENGTH_MAX {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_file_has_servers_suffixes_and_options() {
        let text = "# comment\nnameserver 10.0.0.1\nnameserver ::1 # x\nnameserver x\nnameserver 10.0.0.2\n\
                    nameserver 10.0.0.3\nsearch a b\nsearch lab.test example.\nsortlist x\n\
                    options ndots:2 timeout:1 attempts:99 rotate ndots:x";
        let file = ResolverFile::parse(text);
        let servers: Vec<_> = file.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"]);
        assert_eq!((file.dots, file.timeout.as_secs(), file.attempts), (2, 1, ATTEMPTS_MAX));
        assert_eq!(file.candidates("a.b"), ["a.b.lab.test", "a.b.example", "a.b"]);
        assert_eq!(file.candidates("a.b.c"), ["a.b.c", "a.b.c.lab.test", "a.b.c.example"]);
        assert_eq!(file.candidates("a."), ["a"]);
        let empty = ResolverFile::parse("options timeout:0 attempts:0");
        assert_eq!((empty.timeout.as_secs(), empty.attempts), (1, 1));
        assert!(empty.servers.is_empty());
        let many = format!("search {}", "x ".repeat(9));
        assert_eq!(ResolverFile::parse(&many).suffixes.len(), SUFFIXES_MAX);
    }

    #[test]
    fn a_hosts_file_has_names_and_addresses() {
        let file = HostsFile::parse(
            "10.0.0.1 gate.lab.test gate # gate2\n::2 Gate\n10.0.0.1 other\nx y\n10.0.0.3\n",
        );
        let gate = file.by_name("GATE.").unwrap();
        assert_eq!(gate.name, "gate.lab.test");
        assert_eq!(gate.aliases, ["gate", "Gate"]);
        let addresses: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::2".parse().unwrap()];
        assert_eq!(gate.addresses, addresses);
        assert_eq!(file.by_address(addresses[0]).unwrap().name, "gate.lab.test");
        assert_eq!(file.by_name("gate2"), None);
        assert_eq!(file.by_address("10.0.0.3".parse().unwrap()), None);
        for local in ["localhost", "LocalHost.", "a.localhost"] {
            assert_eq!(file.by_name(local).unwrap().addresses.len(), 2, "{local}");
        }
        assert_eq!(file.by_name("ümlaut.local"), None);
        assert_eq!(HostsFile::read(Path::new("/nowhere/hosts")).unwrap(), HostsFile::default());
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let path = std::env::temp_dir().join(format!("sockbroker-hosts-{}", std::process::id()));
        let mut text = b"10.0.0.1 a\n#".to_vec();
        text.resize(usize::try_from(LENGTH_MAX).unwrap(), b'#');
        std::fs::write(&path, &text).unwrap();
        assert!(HostsFile::read(&path).unwrap().by_name("a").is_some());
        text.push(b'#');
        std::fs::write(&path, &text).unwrap();
        let errno = HostsFile::read(&path).unwrap_err().raw_os_error();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(errno, Some(libc::EFBIG));
    }

    #[test]
    fn a_pipe_or_a_device_does_not_let_the_caller_wait() {
        let path = std::env::temp_dir().join(format!("sockbroker-pipe-{}", std::process::id()));
        // That of a killed test whose process had the same ID.
        std::fs::remove_file(&path).ok();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let errno = HostsFile::read(&path).unwrap_err().raw_os_error();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(errno, Some(libc::EINVAL));
        let device = ResolverFile::read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(device.raw_os_error(), Some(libc::EINVAL));
    }
}
