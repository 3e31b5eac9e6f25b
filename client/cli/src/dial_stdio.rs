//! `sockbroker dial-stdio`: connects standard input and output to a broker, for clients that use ssh.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use clap::{Args, ValueHint};
use sockbroker_client::{Attempt, Endpoint, Error};
use sockbroker_sys::{option, poll};

use crate::connection::failure;
use crate::failure::{Exit, Failure};

/// The line that precedes the bytes of the broker. Clients skip what a login shell prints before it.
const MARKER: &[u8] = b"sockbroker dial-stdio 1\n";
/// The bytes that one call copies.
const CHUNK: usize = 64 << 10;
/// `include/uapi/asm-generic/socket.h`, since Linux 6.16.
const SO_PASSRIGHTS: i32 = 83;

/// Connect standard input and output to the socket of a broker.
///
/// Clients on another machine run it by ssh, for `ssh://HOST`, if sshd does not forward sockets. It prints one line
/// before the bytes of the broker. The broker sees the user of this program. Descriptors are not passed on.
#[derive(Debug, Args)]
pub(crate) struct DialStdioArgs {
    /// The socket. Default: the one that SOCKBROKER names, else the user's, else the system's.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
}

pub(crate) fn run(args: &DialStdioArgs) -> Result<Exit, Failure> {
    let endpoint = match &args.socket {
        Some(path) => Endpoint::Unix(path.clone()),
        None => Endpoint::find().map_err(|error| failure("connect", &error))?,
    };
    let Endpoint::Unix(path) = &endpoint else {
        return Err(Failure::usage(format!(
            "dial-stdio connects to a socket, and not to {endpoint}"
        )));
    };
    let stream = UnixStream::connect(path).map_err(|error| {
        let (errno, reason) = (error.raw_os_error(), error.to_string());
        let attempt = Attempt { endpoint: endpoint.clone(), reason, errno };
        failure("connect", &Error::Connect { attempts: vec![attempt] })
    })?;
    // The broker then refuses to pass descriptors, which this program would drop. Older kernels do not have the option.
    option::set_int(stream.as_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, 0).ok();
    let to_broker = stream.try_clone().map_err(|error| Failure::system("dup", &error))?;
    let input =
        file(io::stdin().as_fd()).map_err(|error| Failure::stream("standard input", &error))?;
    let mut output =
        file(io::stdout().as_fd()).map_err(|error| Failure::stream("standard output", &error))?;
    let broken = |error| Failure::stream("standard output", &error);
    output.write_all(MARKER).map_err(broken)?;
    // The thread can still wait for input when the broker has closed the connection, so nothing joins it.
    thread::spawn(move || {
        copy(input, &to_broker);
        // The broker answers what it has received, and then closes.
        drop(to_broker.shutdown(Shutdown::Write));
        // A call can wait without limit, and nobody would read its answer.
        if poll::wait_for_hang_up(io::stdout().as_fd()).is_ok() {
            drop(to_broker.shutdown(Shutdown::Both));
        }
    });
    copy(&stream, output);
    Ok(Exit::Done)
}

/// The same open file without a buffer.
fn file(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    descriptor.try_clone_to_owned().map(File::from)
}

/// Copies until the end or an error of either side, which both mean that no more bytes are wanted.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            return;
        }
    }
}
