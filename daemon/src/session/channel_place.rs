//! What a channel takes of the limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::limits::Limits;
use crate::error::{OpError, OpResult};
use crate::quota::{Reservation, Share, User};
use crate::session::Session;

/// What one channel takes of the limits, until this is dropped.
#[derive(Debug)]
pub struct ChannelPlace {
    count: Arc<AtomicU64>,
    _channel: Reservation,
    _buffers: Reservation,
}

impl ChannelPlace {
    fn new(count: &Arc<AtomicU64>, user: &Arc<User>, limits: &Limits) -> OpResult<Self> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let release = || count.fetch_sub(1, Ordering::AcqRel);
        if before >= limits.channels {
            release();
            return Err(OpError::Limit { name: "channels", value: limits.channels });
        }
        let reserve = || {
            let channel = user.take(Share::Channels, 1)?;
            Ok((channel, user.take(Share::Bytes, limits.channel_bytes.saturating_mul(2))?))
        };
        match reserve() {
            Ok((channel, buffers)) => {
                Ok(Self { count: count.clone(), _channel: channel, _buffers: buffers })
            }
            Err(error) => {
                release();
                Err(error)
            }
        }
    }
}

impl Drop for ChannelPlace {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Session {
    /// Reserves a channel for a user, unless the session or the user has too many.
    pub fn reserve_channel(&self, user: &Arc<User>, limits: &Limits) -> OpResult<ChannelPlace> {
        ChannelPlace::new(&self.channels, user, limits)
    }
}
