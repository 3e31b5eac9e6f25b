//! A link with a delay between two network namespaces: two tun devices, and this program between them.
//!
//! socat(1) attaches to the devices. The kernel may lack `sch_netem`.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::link_peers::ADDRESSES;
use crate::peers::{self, Role};
use crate::remote_lab::pause;

/// How long a packet is under way.
const DELAY: Duration = Duration::from_millis(10);
/// The packets under way in one direction; the sender waits while there are more.
const UNDER_WAY: usize = 8192;
/// The longest packet.
const PACKET: usize = 65_536;
/// How long the devices may take.
const START: Duration = Duration::from_secs(10);

/// A link. Dropping it removes both namespaces.
#[derive(Debug)]
pub(crate) struct Link {
    folder: PathBuf,
    ends: Vec<Child>,
}

impl Link {
    /// Makes two namespaces and the link between them.
    pub(crate) fn start() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sockbroker-link-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let mut link = Self { folder, ends: Vec::new() };
        let mut relays = Vec::new();
        for (name, address) in ["left", "right"].into_iter().zip(ADDRESSES) {
            let (relay, own) = (link.path(name, "relay"), link.path(name, "device"));
            let socket = UnixDatagram::bind(&relay)?;
            let child = Command::new("unshare")
                .args(["--net", "--", "socat", "-b", "65536"])
                .arg(format!("TUN:{address}/24,iff-up,iff-no-pi,tun-name=tun0"))
                .arg(format!("UNIX-SENDTO:{},bind={}", relay.display(), own.display()))
                .stdin(Stdio::null())
                .spawn()?;
            link.ends.push(child);
            let deadline = Instant::now() + START;
            while !own.exists() {
                if Instant::now() > deadline {
                    return Err("socat does not attach to the tun device".into());
                }
                pause();
            }
            relays.push((Arc::new(socket), own));
        }
        for end in 0..2 {
            let up =
                link.command(end, Path::new("ip")).args(["link", "set", "lo", "up"]).status()?;
            if !up.success() {
                return Err("cannot use the loopback interface of a namespace".into());
            }
        }
        if let [(left, left_device), (right, right_device)] = relays.as_slice() {
            carry(left.clone(), right.clone(), right_device.clone());
            carry(right.clone(), left.clone(), left_device.clone());
        }
        Ok(link)
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}-{kind}"))
    }

    /// A command in the namespace of one end.
    pub(crate) fn command(&self, end: usize, program: &Path) -> Command {
        let pid = self.ends.get(end).map_or(0, Child::id);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(program);
        command
    }

    /// This program in another role, in the namespace of one end.
    pub(crate) fn role(&self, end: usize, role: Role) -> Result<Command> {
        let mut command = self.command(end, &std::env::current_exe()?);
        command.envs([role.variable()]);
        Ok(command)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ends.iter_mut().for_each(peers::end);
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Moves packets from one socket to a device until either is closed.
fn carry(from: Arc<UnixDatagram>, through: Arc<UnixDatagram>, to: PathBuf) {
    let (sender, receiver) = sync_channel(UNDER_WAY);
    thread::spawn(move || {
        let mut buffer = vec![0; PACKET];
        while let Ok(length) = from.recv(&mut buffer) {
            let packet = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + DELAY, packet)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || deliver(&receiver, &through, &to));
}

#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
fn deliver(
    packets: &Receiver<(Instant, Vec<u8>)>,
    through: &UnixDatagram,
    to: &Path,
) -> io::Result<()> {
    while let Ok((due, packet)) = packets.recv() {
        if let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
        through.send_to(&packet, to)?;
    }
    Ok(())
}
