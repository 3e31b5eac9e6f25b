//! The process in the role of the opener: it runs the code of the broker's opener, unconfined.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use bytes::BytesMut;
use nix::libc;
use sockbroker_monitor::message::Description;
use sockbroker_monitor::opener::{CaptureLimits, Host};
use sockbroker_policy::Policy;
use sockbroker_policy::file::{Directory, read};
use sockbroker_sys::poll::poll_for;
use sockbroker_sys::stream::receive_stream;

/// What the policy grants root, here and in its own network namespace.
const POLICY: &str = "version = 1\n\
                      [[rule]]\nname = \"here\"\nsubject = { uids = [0] }\nallow = [\"create\"]\n\
                      [[rule]]\nname = \"caller\"\nsubject = { uids = [0] }\nallow = [\"create\"]\n\
                      netns = [\"caller\"]\n";

/// The program around the opener. Its policy is [`POLICY`].
struct BareHost;

/// The policy names no users and groups.
impl Directory for BareHost {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

impl Host for BareHost {
    fn policy(&mut self, _: OwnedFd) -> Result<Policy, String> {
        let content = read("policy", POLICY, self).map_err(|error| error.to_string())?;
        let rules = content.rules.into_iter().map(|(rule, _)| rule).collect();
        Ok(Policy::new(0, rules, content.revokes))
    }

    fn confine(&mut self, _: OwnedFd, _: &Policy) -> Result<Description, String> {
        Ok(Description(Vec::new()))
    }

    fn capture_limits(&self) -> CaptureLimits {
        CaptureLimits { of_user: 0, in_all: 0, bytes_of_user: 0, bytes_in_all: 0 }
    }

    fn network_folders(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn replaced(&mut self, _: &Policy) {}
}

/// Runs the opener on the channel that comes over the socket of this process.
pub(crate) fn run(stream: &UnixStream) -> io::Result<()> {
    let channel = receive_descriptor(stream)?;
    sockbroker_monitor::opener::run(channel, BareHost).map_err(io::Error::other)
}

fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let (mut bytes, mut descriptors) = (BytesMut::new(), VecDeque::new());
    poll_for(&[(stream.as_fd(), libc::POLLIN)], None)?;
    receive_stream(stream.as_fd(), &mut bytes, 1, &mut descriptors)?;
    descriptors.pop_front().ok_or_else(|| io::Error::other("no descriptor came"))
}
