//! Starts a broker that serves one client on its standard input and output.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::daemon::{Process, Start};
use crate::folder::Folder;
use crate::lsp::LspClient;
use crate::wire::Wire;

/// A broker with `--stdio` and its client.
#[derive(Debug)]
pub struct StdioDaemon {
    pub process: Process,
    pub client: LspClient,
    _folder: Folder,
}

impl StdioDaemon {
    /// Connects through two pipes, as an editor does with a language server.
    pub fn over_pipes(start: Start) -> Self {
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command);
        let input = OwnedFd::from(process.child.stdout.take().unwrap());
        let output = OwnedFd::from(process.child.stdin.take().unwrap());
        let client = LspClient::on(Wire::pipes(input, output));
        Self { process, client, _folder: folder }
    }

    /// Connects through two sockets, as Node.js does.
    pub fn over_two_sockets(start: Start) -> Self {
        let (output, stdin) = UnixStream::pair().unwrap();
        let (input, stdout) = UnixStream::pair().unwrap();
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout));
        let process = Process::spawn(command);
        let client = LspClient::on(Wire::pipes(input.into(), output.into()));
        Self { process, client, _folder: folder }
    }

    /// Connects through one socket, which can pass descriptors.
    pub fn over_a_socket(start: Start) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let process = Process::spawn(command);
        Self { process, client: LspClient::over(ours), _folder: folder }
    }
}
