//! A broker that serves its standard input and output.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::daemon::{Process, Start};
use crate::folder::Folder;
use crate::lsp::LspClient;
use crate::wire::Wire;

/// A broker started with `--stdio`, and the client that started it.
#[derive(Debug)]
pub struct StdioDaemon {
    /// The process.
    pub process: Process,
    /// The client.
    pub client: LspClient,
    _folder: Folder,
}

impl StdioDaemon {
    /// Over two pipes, as an editor starts a language server.
    pub fn over_pipes(start: Start) -> Self {
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command);
        let input = OwnedFd::from(process.child.stdout.take().unwrap());
        let output = OwnedFd::from(process.child.stdin.take().unwrap());
        let client = LspClient::on(Wire::pipes(input, output));
        Self { process, client, _folder: folder }
    }

    /// Over two sockets, as Node starts a program.
    pub fn over_two_sockets(start: Start) -> Self {
        let (output, stdin) = UnixStream::pair().unwrap();
        let (input, stdout) = UnixStream::pair().unwrap();
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout));
        let process = Process::spawn(command);
        let client = LspClient::on(Wire::pipes(input.into(), output.into()));
        Self { process, client, _folder: folder }
    }

    /// Over one socket, which carries descriptors.
    pub fn over_a_socket(start: Start) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut command, folder) = start.argument("--stdio").command();
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let process = Process::spawn(command);
        Self { process, client: LspClient::over(ours), _folder: folder }
    }
}
