//! Suite `remote`: a broker of another machine, against what TLS costs by itself, socat(1) and ssh(1).
//!
//! All of it is on loopback, but for the last figures: these cross a link with a round trip of 20 ms.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockbroker_test_support::Sshd;

use crate::broker::Broker;
use crate::client::{BLOCK, Framing, call, frame};
use crate::cpu_time::cpu_time_of;
use crate::error::{self, Result};
use crate::measure::{Sample, in_turn, median_seconds, number, ratio};
use crate::peers::{self, Peer, Role};
use crate::remote_lab::{Certificates, POLICY, TlsClient, free_port, pause};
use crate::report::{Report, Row, Target};

const ROUNDS: usize = 9;
const CALLS: usize = 1000;
/// The bytes of one round of a stream.
const STREAM: usize = 128 << 20;
/// How long programs may take to listen.
const START: Duration = Duration::from_secs(20);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let certificates = Certificates::create()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let broker = Broker::start_with(&certificates.section(address), POLICY)?;
    let bench = Bench { certificates, address, broker };
    bench.calls(report)?;
    bench.streams(report)?;
    bench.plain_channel(report)?;
    drop(bench);
    crate::remote_link::run(report)
}

struct Bench {
    certificates: Certificates,
    address: SocketAddr,
    broker: Broker,
}

/// Programs that end with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        peers::end(&mut self.0);
    }
}

impl Bench {
    fn connect(&self) -> Result<TlsClient> {
        TlsClient::connect(&self.certificates.folder, self.address)
    }

    /// A small call against an echo of the same bytes in one other process.
    fn calls(&self, report: &mut Report) -> Result<()> {
        let params = json!({ "x": 1 });
        let mut client = self.connect()?;
        let (_, length) = client.call("socket.htons", &params)?;
        let request = frame(&call(1, "socket.htons", &params), None, 0);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let tcp = TcpStream::connect(listener.local_addr()?)?;
        let role = Role::TlsEcho { request: request.len(), answer: length };
        let (theirs, from) = listener.accept()?;
        let _peer = Peer::serving(role, theirs.into(), &self.certificates.folder)?;
        let mut echo = TlsClient::over(&self.certificates.folder, tcp, from.ip())?;
        let exchange = |client: &mut TlsClient| {
            let mut answer = vec![0; length];
            median_seconds(CALLS, || {
                client.send(&request)?;
                client.read_exact(&mut answer)
            })
        };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((exchange(&mut client)?, exchange(&mut echo)?));
        }
        let time = Sample::map(&rounds, |(ours, _)| ours * 1e6);
        report.add(Row::new("small call over TLS", time, "us"));
        let row =
            Row::new("small call over TLS: time", Sample::map(&rounds, ratio), "x bare TLS echo");
        report.add(row.target(Target::AtMost(2.0)));
        Ok(())
    }

    /// A stream from a program to the client, against socat with TLS and ssh with its usual cipher.
    fn streams(&self, report: &mut Report) -> Result<()> {
        let source = sources()?;
        let params = json!({ "address": ["127.0.0.1", source.port()], "want_channel": true });
        let mut control = self.connect()?;
        let (made, _) = control.call("socket.create_connection", &params)?;
        let path = made.pointer("/channel/path").and_then(Value::as_str).ok_or("no channel")?;
        let mut channel = self.connect()?;
        channel.upgrade(path)?;
        let processes = self.broker.processes()?;
        let mut used = Vec::new();
        let mut ours = || {
            let before = cpu_time_of(&processes)?;
            let speed = flow(|buffer| channel.read(buffer))?;
            used.push((cpu_time_of(&processes)? - before) / number(STREAM) * 1e9);
            Ok(speed)
        };
        let port = free_port()?;
        let _socat = self.socat(port, source.port())?;
        let tcp = wait_for(port)?;
        let mut socat =
            TlsClient::over(&self.certificates.folder, tcp, Ipv4Addr::LOCALHOST.into())?;
        let rounds = in_turn(ROUNDS, &mut ours, || flow(|buffer| socat.read(buffer)))?;
        drop(socat);
        let speed = Sample::map(&rounds, |(ours, _)| ours / 1e9);
        report.add(Row::new("channel over TLS", speed, "GB/s"));
        let row = Row::new("channel over TLS: speed", Sample::map(&rounds, ratio), "x socat");
        report.add(row.target(Target::AtLeast(0.9)));
        let sshd = Sshd::start("/usr/bin/true", "");
        let port = free_port()?;
        let _ssh = ssh(&sshd, port, source.port())?;
        let mut tcp = wait_for(port)?;
        let rounds = in_turn(ROUNDS, &mut ours, || flow(|buffer| Ok(tcp.read(buffer)?)))?;
        let row = Row::new("channel over TLS: speed", Sample::map(&rounds, ratio), "x ssh -L");
        report.add(row.target(Target::AtLeast(1.5)));
        let row = Row::new("channel over TLS: CPU time of the broker", Sample::of(&used), "s/GB");
        report.add(row.target(Target::AtMost(1.1)));
        Ok(())
    }

    fn socat(&self, port: u16, to: u16) -> Result<Program> {
        let path = |name| self.certificates.path(name).display().to_string();
        let listen = format!(
            "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,nodelay,cert={},key={},cafile={},verify=1",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        );
        let mut command = Command::new("socat");
        command.args(["-b", "65536", &listen, &format!("TCP:127.0.0.1:{to}")]);
        start(&mut command)
    }

    /// The same stream through a descriptor of this machine.
    fn plain_channel(&self, report: &mut Report) -> Result<()> {
        let source = sources()?;
        let mut client = self.broker.connect(Framing::Lsp)?;
        let params = json!({ "address": ["127.0.0.1", source.port()] });
        let made = client.call("socket.create_connection", &params)?;
        client.call("channel.open", &json!({ "handle": made["handle"], "want_fd": true }))?;
        let mut stream = UnixStream::from(client.take_descriptor()?);
        let process = [self.broker.process()];
        let (mut speeds, mut used) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = cpu_time_of(&process)?;
            speeds.push(flow(|buffer| Ok(stream.read(buffer)?))? / 1e9);
            used.push((cpu_time_of(&process)? - before) / number(STREAM) * 1e9);
        }
        report.add(Row::new("plain channel", Sample::of(&speeds), "GB/s"));
        let row = Row::new("plain channel: CPU time of the broker", Sample::of(&used), "s/GB");
        report.add(row.target(Target::AtMost(0.3)));
        Ok(())
    }
}

/// Reads a stream. Returns bytes per second.
fn flow(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<f64> {
    let mut buffer = vec![0; BLOCK];
    let (start, mut bytes) = (Instant::now(), 0);
    while bytes < STREAM {
        match read(&mut buffer)? {
            0 => return Err("a stream has ended".into()),
            read => bytes += read,
        }
    }
    Ok(number(bytes) / start.elapsed().as_secs_f64())
}

/// Accepts connections. To each, a process writes without end.
fn sources() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut sources = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            match Role::Source.command().and_then(|mut command| {
                let input = Stdio::from(std::os::fd::OwnedFd::from(stream));
                Ok(Program(command.stdin(input).stderr(Stdio::null()).spawn()?))
            }) {
                Ok(source) => sources.push(source),
                Err(error) => error::report(&format!("remote: {error}")),
            }
        }
    });
    Ok(address)
}

fn ssh(sshd: &Sshd, port: u16, to: u16) -> Result<Program> {
    let url = sshd.url(None, "/x".as_ref());
    let server = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let mut command = Command::new("ssh");
    command.arg("-F").arg(sshd.folder().join("config/sockbroker/127.0.0.1/ssh_config")).args([
        "-N",
        "-p",
        server,
        "-L",
        &format!("127.0.0.1:{port}:127.0.0.1:{to}"),
        "127.0.0.1",
    ]);
    start(&mut command)
}

fn start(command: &mut Command) -> Result<Program> {
    let name = command.get_program().to_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    Ok(Program(child.map_err(|error| format!("{}: {error}", name.display()))?))
}

/// Connects once a program listens.
fn wait_for(port: u16) -> Result<TcpStream> {
    let deadline = Instant::now() + START;
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => pause(),
            Ok(stream) => return Ok(stream),
        }
    }
}
