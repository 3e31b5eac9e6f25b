//! Both faces through crashes of a worker and restarts of the service, under a stand-in for systemd
//! (`tests/restart/serve.py`).

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fixture;
mod blocking;
mod asynchronous;
