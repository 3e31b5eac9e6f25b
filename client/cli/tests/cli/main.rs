//! Runs the program and checks its output, its errors and its exit codes.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
)]

mod program;
mod call;
mod failures;
mod lists;
mod nc;
mod netns;
mod persist;
mod agent;
mod pairs;
mod watches;
mod connecting;
mod socks;
mod ping;
mod ssh;
mod sniff;
mod sniff_end;
mod sniff_options;
mod sniff_files;
mod sniff_tcpdump;
mod extcap;
mod extcap_capture;
mod extcap_toolbar;
mod extcap_tshark;
mod replay;
mod demo;
mod generate;
mod policy;
mod remote;
mod package;
