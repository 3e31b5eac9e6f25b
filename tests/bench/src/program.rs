//! The program that suite `exec` runs natively and under the launcher, and the launcher.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::getppid;
use rustix::net::bind;
use sockbroker_client::Endpoint;
use sockbroker_client::blocking;
use sockbroker_launcher::{Ended, Inherited, Output, Plan};

use crate::error::Result;
use crate::measure::{median_seconds, number};

/// The environment variable with the path of the broker's socket, for the launcher.
pub(crate) const BROKER: &str = "SOCKBROKER_BENCH_BROKER";

/// What the program does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A call that the filter passes.
    ParentId,
    /// A socket that the kernel gives every program.
    Plain,
    /// The same socket, with a port that the kernel selects.
    Bind,
    /// A socket that the kernel gives to root alone.
    Raw,
    /// A datagram of 1 KiB there and back.
    Data,
}

impl Action {
    pub(crate) const ALL: [Self; 5] =
        [Self::ParentId, Self::Plain, Self::Bind, Self::Raw, Self::Data];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ParentId => "getppid",
            Self::Plain => "plain",
            Self::Bind => "bind",
            Self::Raw => "raw",
            Self::Data => "data",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ParentId => "getppid()",
            Self::Plain => "socket() of UDP, and its close",
            Self::Bind => "the same with bind() to port 0",
            Self::Raw => "raw socket() by the broker, and its close",
            Self::Data => "1 KiB sent and received by UDP",
        }
    }

    pub(crate) fn most(self) -> f64 {
        match self {
            Self::ParentId => 1.3,
            Self::Plain => 1.05,
            Self::Bind => 3.0,
            Self::Raw => 15.0,
            Self::Data => 1.0,
        }
    }

    /// Returns the median of one action, in seconds.
    fn measure(self) -> Result<f64> {
        /// A clock read costs as much as a short call: such calls are measured in groups.
        const GROUP: usize = 1000;
        match self {
            Self::ParentId => {
                let group = median_seconds(60, || {
                    for _ in 0..GROUP {
                        std::hint::black_box(getppid());
                    }
                    Ok(())
                })?;
                Ok(group / number(GROUP))
            }
            Self::Plain => median_seconds(5000, || {
                drop(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None)?);
                Ok(())
            }),
            Self::Bind => {
                let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
                median_seconds(2000, || {
                    let kind = SockType::Datagram;
                    let made = socket(AddressFamily::Inet, kind, SockFlag::empty(), None)?;
                    Ok(bind(&made, &any)?)
                })
            }
            Self::Raw => median_seconds(500, || {
                let kind = SockType::Raw;
                drop(socket(AddressFamily::Inet, kind, SockFlag::empty(), SockProtocol::Icmp)?);
                Ok(())
            }),
            Self::Data => {
                let stream = UdpSocket::bind("127.0.0.1:0")?;
                stream.connect(stream.local_addr()?)?;
                let mut buffer = [0; 1024];
                median_seconds(5000, || {
                    stream.send(&buffer)?;
                    stream.recv(&mut buffer)?;
                    Ok(())
                })
            }
        }
    }
}

/// Measures each action that is named on standard input.
#[expect(clippy::print_stdout, reason = "the parent reads the figures there")]
pub(crate) fn run() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let action = Action::ALL.into_iter().find(|action| action.word() == line);
        println!("{:e}", action.ok_or("unknown action")?.measure()?);
    }
    Ok(())
}

/// `sockbroker exec` with the arguments of this process.
pub(crate) fn launch() -> Result<ExitCode> {
    let inherited = Inherited::list()?;
    let endpoint = Endpoint::Unix(std::env::var_os(BROKER).ok_or("no broker")?.into());
    let connect = move || blocking::Broker::connect_to(&endpoint);
    let plan = Plan {
        arguments: std::env::args_os().skip(1).collect(),
        root: false,
        netns: None,
        output: Output::StandardError,
        killable: true,
        delay: Duration::ZERO,
    };
    Ok(match sockbroker_launcher::run(plan, connect()?, connect, &inherited)? {
        Ended::Code(code) => ExitCode::from(code),
        Ended::Signal(_) | Ended::Unsupervised => ExitCode::FAILURE,
    })
}
