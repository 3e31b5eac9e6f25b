//! `sendfile`: from an adopted descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use sockbroker_sys::file;

use super::error::{During, OpError, OpResult};
use super::send::Progress;
use super::wait::{Direction, Patience, until_done};
use crate::policy::Permit;
use crate::policy::action::Send;
use crate::table::entry::Entry;
use crate::table::lane::Place;
use crate::table::timeout::Timeout;

/// `sendfile(2)` in steps of this many bytes, so that one call does not hold a worker for long.
const FILE_STEP: usize = 1 << 20;

/// `sendfile(2)` from a regular file, up to `count` bytes or its end (`_sendfile_use_sendfile`).
pub async fn send_file(
    permit: Permit<Send>,
    entry: &Entry,
    place: Place<'_>,
    source: &OwnedFd,
    range: (u64, Option<u64>),
    progress: &Progress,
) -> OpResult<u64> {
    let Send { .. } = permit.into_request();
    place.turn().await;
    if entry.timeout() == Timeout::NonBlocking {
        return Err(OpError::value("non-blocking sockets are not supported"));
    }
    if entry.facts().kind != libc::SOCK_STREAM {
        return Err(OpError::value("only SOCK_STREAM type sockets are supported"));
    }
    if !file::is_regular(source.as_fd()).during("fstat")? {
        return Err(OpError::value("not a regular file"));
    }
    let (mut offset, count) = range;
    let mut sent: u64 = 0;
    while count.is_none_or(|count| sent < count) {
        let left = count.map_or(u64::MAX, |count| count - sent);
        let step = usize::try_from(left).unwrap_or(FILE_STEP).min(FILE_STEP);
        let patience = || Patience::of(entry, Direction::Send, 0);
        let n = until_done(entry, Direction::Send, "sendfile", patience, || {
            entry.without_blocking(|fd| file::send_file(fd, source.as_fd(), &mut offset, step))
        })
        .await
        .map_err(|error| error.after(sent))?;
        if n == 0 {
            break;
        }
        sent += n as u64;
        progress.store(sent, Ordering::Relaxed);
    }
    Ok(sent)
}
