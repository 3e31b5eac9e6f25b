//! A stub resolver (RFC 1034, 5.3.1): asks the name servers of a network namespace on sockets that are made there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::str::FromStr as _;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype, ToName as _};
use domain::rdata::{A, Aaaa, Ptr};
use sockbroker_proto::socket_spec::SocketSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};

use crate::error::OpResult;
use crate::network::name_files::{Host, ResolverFile};

/// The most addresses that are taken from an answer.
const ADDRESSES_MAX: usize = 128;
/// The longest datagram without EDNS is shorter (RFC 1035, 4.2.1).
const DATAGRAM_MAX: usize = 4096;

/// Makes a socket in the network namespace, if the policy grants it.
pub type Open<'a> = dyn Fn(SocketSpec) -> OpResult<OwnedFd> + Send + Sync + 'a;

/// Why a name has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is no such name.
    Name,
    /// It has no data of this kind.
    Data,
    /// No server answered.
    Server,
}

/// The servers of a network namespace.
pub(crate) struct Stub<'a> {
    pub(crate) file: &'a ResolverFile,
    pub(crate) open: &'a Open<'a>,
}

/// The kinds of addresses to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub inet: bool,
    pub inet6: bool,
}

type Found<T> = Result<T, Missing>;

impl Stub<'_> {
    /// The host with a name, with the suffixes of the file. IPv6 addresses come first.
    pub(crate) async fn by_name(&self, name: &str, families: Families) -> OpResult<Found<Host>> {
        let mut missing = Missing::Name;
        for candidate in self.file.candidates(name) {
            match self.host(&candidate, families).await? {
                Ok(host) => return Ok(Ok(host)),
                Err(Missing::Name) => {}
                Err(Missing::Data) => missing = Missing::Data,
                Err(Missing::Server) => return Ok(Err(Missing::Server)),
            }
        }
        Ok(Err(missing))
    }

    async fn host(&self, name: &str, families: Families) -> OpResult<Found<Host>> {
        let asked = |is_asked, kind| async move {
            if is_asked { self.ask(name, kind).await } else { Ok(Err(Missing::Data)) }
        };
        let (six, four) =
            tokio::join!(asked(families.inet6, Rtype::AAAA), asked(families.inet, Rtype::A));
        let (six, four) = (six?, four?);
        let mut host = Host::default();
        let messages = [&six, &four];
        for message in messages.into_iter().flatten() {
            add_addresses(&mut host, message);
        }
        if host.addresses.is_empty() {
            let failures = messages.map(|asked| asked.as_ref().err().copied());
            let is = |missing| failures.contains(&Some(missing));
            let missing = if is(Missing::Server) {
                Missing::Server
            } else if failures == [Some(Missing::Name); 2]
                || is(Missing::Name) && !(families.inet && families.inet6)
            {
                Missing::Name
            } else {
                Missing::Data
            };
            return Ok(Err(missing));
        }
        if host.name != name {
            host.aliases.push(name.to_owned());
        }
        Ok(Ok(host))
    }

    /// The name of an address.
    pub(crate) async fn by_address(&self, address: IpAddr) -> OpResult<Found<String>> {
        let asked = self.ask(&reverse_name(address), Rtype::PTR).await?;
        Ok(asked.and_then(|message| pointer(&message).ok_or(Missing::Data)))
    }

    /// Asks one server after the other until one answers.
    async fn ask(&self, name: &str, kind: Rtype) -> OpResult<Found<Message<Vec<u8>>>> {
        let Some(query) = query(name, kind) else { return Ok(Err(Missing::Name)) };
        for _ in 0..self.file.attempts {
            for server in &self.file.servers {
                let mut answered = self.by_datagram(*server, &query).await?;
                if answered.as_ref().is_ok_and(|answer| answer.header().tc()) {
                    answered = self.by_stream(*server, &query).await?;
                }
                match answered.map(|answer| (answer.header().rcode(), answer)) {
                    Ok((Rcode::NOERROR, answer)) => return Ok(Ok(answer)),
                    Ok((Rcode::NXDOMAIN, _)) => return Ok(Err(Missing::Name)),
                    Ok((code, _)) => {
                        tracing::debug!(%server, %code, "a name server does not answer");
                    }
                    Err(error) => {
                        tracing::debug!(%server, %error, "a name server does not answer");
                    }
                }
            }
        }
        Ok(Err(Missing::Server))
    }

    async fn by_datagram(
        &self,
        server: SocketAddr,
        query: &Message<Vec<u8>>,
    ) -> OpResult<io::Result<Message<Vec<u8>>>> {
        let socket = (self.open)(spec(server, libc::SOCK_DGRAM))?;
        Ok(within(self.file.timeout, async move {
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            let socket = UdpSocket::from_std(socket)?;
            socket.send(query.as_slice()).await?;
            let mut buffer = vec![0; DATAGRAM_MAX];
            loop {
                let length = socket.recv(&mut buffer).await?;
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                // Anything else is not from the server, or an answer to nothing.
                if let Some(answer) = read(bytes, query) {
                    return Ok(answer);
                }
            }
        })
        .await)
    }

    async fn by_stream(
        &self,
        server: SocketAddr,
        query: &Message<Vec<u8>>,
    ) -> OpResult<io::Result<Message<Vec<u8>>>> {
        let socket = (self.open)(spec(server, libc::SOCK_STREAM))?;
        Ok(within(self.file.timeout, async move {
            let socket = std::net::TcpStream::from(socket);
            socket.set_nonblocking(true)?;
            let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
            let length = u16::try_from(query.as_slice().len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat()).await?;
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await?;
            read(bytes, query).ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .await)
    }
}

async fn within<T>(longest: Duration, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(longest, call).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn spec(server: SocketAddr, ty: i32) -> SocketSpec {
    let domain = if server.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    SocketSpec { domain, ty, protocol: 0 }
}

/// A question with a random id; `None` if the text is not a name.
fn query(name: &str, kind: Rtype) -> Option<Message<Vec<u8>>> {
    if name.is_empty() {
        return None;
    }
    let name = Name::<Vec<u8>>::from_str(&format!("{name}.")).ok()?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).ok()?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(u16::from_ne_bytes(id));
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, kind)).ok()?;
    Some(builder.into_message())
}

/// The answer to a question; `None` for any other bytes.
fn read(bytes: Vec<u8>, query: &Message<Vec<u8>>) -> Option<Message<Vec<u8>>> {
    Message::from_octets(bytes).ok().filter(|answer| answer.is_answer(query))
}

/// Adds the addresses of an answer to a host, and its name. Records that cannot be read end the list.
fn add_addresses(host: &mut Host, message: &Message<Vec<u8>>) {
    let Some(name) = message.canonical_name() else { return };
    let Ok(answer) = message.answer() else { return };
    host.name = name.to_string();
    let four = answer.limit_to_in::<A>().map_while(Result::ok);
    let four = four.filter(|record| record.owner().name_eq(&name));
    let six = answer.limit_to_in::<Aaaa>().map_while(Result::ok);
    let six = six.filter(|record| record.owner().name_eq(&name));
    let four = four.map(|record| IpAddr::V4(record.data().addr()));
    let found = six.map(|record| IpAddr::V6(record.data().addr())).chain(four);
    host.addresses.extend(found);
    host.addresses.truncate(ADDRESSES_MAX);
}

fn pointer(message: &Message<Vec<u8>>) -> Option<String> {
    let name = message.canonical_name()?;
    let records = message.answer().ok()?.limit_to_in::<Ptr<_>>();
    let mut records = records.map_while(Result::ok).filter(|record| record.owner().name_eq(&name));
    records.next().map(|record| record.data().ptrdname().to_string())
}

/// RFC 1035, 3.5, and RFC 3596, 2.5.
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(host) => {
            let [a, b, c, d] = host.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(host) => {
            let digits: Vec<_> = host
                .octets()
                .iter()
                .rev()
                .map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4))
                .collect();
            format!("{}ip6.arpa", digits.concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// An answer to a question, with records of these addresses, behind an alias.
    fn answer(query: &Message<Vec<u8>>, addresses: &[Ipv4Addr]) -> Message<Vec<u8>> {
        let name = |text: &str| Name::<Vec<u8>>::from_str(text).unwrap();
        let asked = query.sole_question().unwrap().qname().to_name::<Vec<u8>>();
        let mut builder = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
        builder.push((asked, 60, domain::rdata::Cname::new(name("real.test.")))).unwrap();
        for address in addresses {
            builder.push((name("real.test."), 60, A::new(*address))).unwrap();
        }
        builder.push((name("other.test."), 60, A::new(Ipv4Addr::new(9, 9, 9, 9)))).unwrap();
        builder.into_message()
    }

    #[test]
    fn addresses_of_an_alias_are_those_of_its_canonical_name() {
        let query = query("a.test", Rtype::A).unwrap();
        let mut host = Host::default();
        add_addresses(&mut host, &answer(&query, &[Ipv4Addr::new(10, 0, 0, 1)]));
        assert_eq!(host.name, "real.test");
        assert_eq!(host.addresses, [IpAddr::from([10, 0, 0, 1])]);
        let many = vec![Ipv4Addr::LOCALHOST; ADDRESSES_MAX + 9];
        add_addresses(&mut host, &answer(&query, &many));
        assert_eq!(host.addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let (own, other) = (query("a.test", Rtype::A).unwrap(), query("b.test", Rtype::A).unwrap());
        let bytes = |message: &Message<Vec<u8>>| message.as_slice().to_vec();
        let good = answer(&own, &[]);
        assert!(read(bytes(&good), &own).is_some());
        assert!(read(bytes(&answer(&other, &[])), &own).is_none());
        assert!(read(bytes(&own), &own).is_none());
        let mut forged = bytes(&good);
        forged[1] ^= 1;
        assert!(read(forged, &own).is_none());
        for length in 0..good.as_slice().len() {
            let cut = good.as_slice()[..length].to_vec();
            if let Some(message) = read(cut, &own) {
                add_addresses(&mut Host::default(), &message);
                pointer(&message);
            }
        }
    }

    #[test]
    fn texts_that_are_no_names_have_no_query() {
        for text in ["", "a..b", &"a".repeat(64), &"a.".repeat(200), ".a"] {
            assert!(query(text, Rtype::A).is_none(), "{text:?}");
        }
        assert!(query(&"a".repeat(63), Rtype::A).is_some());
    }

    #[test]
    fn addresses_have_reverse_names() {
        let four = reverse_name(Ipv4Addr::new(10, 1, 2, 3).into());
        assert_eq!(four, "3.2.1.10.in-addr.arpa");
        let six = reverse_name("2001:db8::567:89ab".parse::<Ipv6Addr>().unwrap().into());
        assert_eq!(six, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }
}
