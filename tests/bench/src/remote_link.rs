//! The figures of suite `remote` over a link with a round trip of 20 ms.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Stdio};

use serde::Deserialize;
use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::error::{self, Result};
use crate::link::Link;
use crate::link_peers::ADDRESSES;
use crate::measure::{Sample, ratio};
use crate::peers::{self, Role};
use crate::remote_lab::{Certificates, POLICY, free_port};
use crate::report::{Report, Row, Target};

const ROUNDS: usize = 5;

/// What a program in the namespace of the client prints.
#[derive(Debug, Deserialize)]
struct Figures {
    /// Seconds of a round trip, of each round.
    trip: Vec<f64>,
    /// Seconds of a GET.
    get: Vec<f64>,
}

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("remote: the link is not measured: needs root, to make namespaces");
        return Ok(());
    }
    let link = Link::start()?;
    let certificates = Certificates::create()?;
    let port = free_port()?;
    let section = certificates.section(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let broker = Broker::start_by(link.role(1, Role::Broker)?, &section, POLICY)?;
    let mut server = link.role(1, Role::LinkServer)?.stdout(Stdio::piped()).spawn()?;
    let ports = ports_of(&mut server)?;
    let measured = bulk(&link, &certificates, (port, &ports), report)
        .and_then(|()| http(&link, &certificates, (port, &ports), report));
    peers::end(&mut server);
    drop(broker);
    measured
}

/// The ports of sources and of the HTTP server.
type Ports = (u16, u16);

fn ports_of(server: &mut Child) -> Result<Ports> {
    let mut output = BufReader::new(server.stdout.take().ok_or("no standard output")?);
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok::<u16, Box<dyn std::error::Error>>(line.trim().parse()?)
    };
    Ok((line()?, line()?))
}

/// A stream through a channel against one without a broker.
fn bulk(
    link: &Link,
    certificates: &Certificates,
    (port, ports): (u16, &Ports),
    report: &mut Report,
) -> Result<()> {
    let role = Role::LinkClient { broker: port, source: ports.0 };
    let output = link
        .role(0, role)?
        .current_dir(&certificates.folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the client behind the link has failed".into());
    }
    let rounds: Vec<(f64, f64)> = serde_json::from_slice(&output.stdout)?;
    let speed = Sample::map(&rounds, |(ours, _)| ours / 1e6);
    report.add(Row::new("channel over TLS, 20 ms", speed, "MB/s"));
    let row = Row::new("channel over TLS, 20 ms: speed", Sample::map(&rounds, ratio), "x the link");
    report.add(row.target(Target::AtLeast(0.9)));
    Ok(())
}

/// A GET by the Python package in mode `remote`.
fn http(
    link: &Link,
    certificates: &Certificates,
    (port, ports): (u16, &Ports),
    report: &mut Report,
) -> Result<()> {
    let host = certificates.path("config/sockbroker").join(ADDRESSES[1]);
    fs::create_dir_all(&host)?;
    for (name, file) in [("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key")] {
        fs::copy(certificates.path(file), host.join(name))?;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = link
        .command(0, Path::new("python3"))
        .arg(root.join("python/remote_get.py"))
        .args(["--broker", &format!("tls://{}:{port}", ADDRESSES[1])])
        .args(["--server", ADDRESSES[1], "--port", &ports.1.to_string()])
        .args(["--rounds", &ROUNDS.to_string()])
        .env("XDG_CONFIG_HOME", certificates.path("config"))
        .env("PYTHONPATH", root.join("../../client/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim_end().into());
    }
    let figures: Figures = serde_json::from_slice(&output.stdout)?;
    let trip = Sample::of(&figures.trip);
    report.add(Row::new("round trip of the link", Sample::map(&figures.trip, |s| s * 1e3), "ms"));
    let trips = Sample::map(&figures.get, |seconds| seconds / trip.median);
    let row = Row::new("HTTP GET of 300 kB, Python in mode remote", trips, "round trips");
    report.add(row.target(Target::AtMost(6.0)));
    Ok(())
}
