//! Channels that were opened and whose token is not used yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sockbroker_proto::handle::Handle;
use tokio::time::Instant;

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::principal::PrincipalKey;
use crate::session::Session;
use crate::session::channel_place::ChannelPlace;
use crate::session::token::{Token, TokenHash};
use crate::table::channel::ChannelClaim;
use crate::table::entry::Entry;

/// A token of a channel that is about to be opened. It counts like one that is not used yet.
#[derive(Debug)]
pub struct ReservedToken {
    channels: PendingChannels,
    token: Token,
    principal: PrincipalKey,
}

impl Drop for ReservedToken {
    fn drop(&mut self) {
        let mut waiting = self.channels.lock();
        let reserved = waiting.reserved.iter().position(|principal| *principal == self.principal);
        if let Some(place) = reserved {
            waiting.reserved.swap_remove(place);
        }
    }
}

/// A channel whose token is not used yet. It does not keep its socket open.
#[derive(Debug)]
pub struct PendingChannel {
    pub session: Weak<Session>,
    pub handle: Handle,
    pub entry: Weak<Entry>,
    pub claim: ChannelClaim,
    pub place: ChannelPlace,
    /// Whether the handle is closed when the client has closed its end.
    pub close: bool,
    /// How many datagrams the kernel had dropped before.
    pub dropped: u32,
}

/// The channels whose tokens are not used yet.
#[derive(Debug, Default, Clone)]
pub struct PendingChannels(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    channels: HashMap<TokenHash, Pending>,
    /// The principals of reserved tokens.
    reserved: Vec<PrincipalKey>,
}

#[derive(Debug)]
struct Pending {
    channel: PendingChannel,
    principal: PrincipalKey,
    expires: Instant,
}

impl Pending {
    fn is_over(&self) -> bool {
        self.expires <= Instant::now() || self.channel.claim.end().is_some()
    }
}

impl PendingChannels {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a token, unless the user has too many that are not used yet.
    pub fn reserve(&self, session: &Session, limits: &Limits) -> OpResult<ReservedToken> {
        let token = Token::new(session.number())?;
        let principal = session.principal().key();
        let mut waiting = self.lock();
        waiting.channels.retain(|_, pending| !pending.is_over());
        let pending = waiting.channels.values().map(|pending| &pending.principal);
        let own = pending.chain(&waiting.reserved).filter(|other| **other == principal).count();
        if own >= size(limits.channel_tokens) {
            let value = limits.channel_tokens;
            return Err(OpError::Limit { name: "channel_tokens", value });
        }
        waiting.reserved.push(principal.clone());
        Ok(ReservedToken { channels: self.clone(), token, principal })
    }

    /// Gives a channel a token.
    pub fn add(&self, channel: PendingChannel, reserved: ReservedToken, limits: &Limits) -> Token {
        let (token, principal) = (reserved.token.clone(), reserved.principal.clone());
        let expires = Instant::now() + Duration::from_secs(limits.channel_token_seconds);
        let pending = Pending { channel, principal, expires };
        self.lock().channels.insert(token.hash(), pending);
        drop(reserved);
        token
    }

    /// Takes the channel of a token of this principal. The token is void from then on.
    pub fn take(&self, token: &str, principal: &PrincipalKey) -> Option<PendingChannel> {
        let hash = Token::parse(token)?.hash();
        let mut waiting = self.lock();
        // Another principal's token stays valid for its owner.
        waiting.channels.get(&hash).filter(|pending| pending.principal == *principal)?;
        let taken = waiting.channels.remove(&hash)?;
        (taken.expires > Instant::now()).then_some(taken.channel)
    }

    /// Forgets the channels whose tokens are no longer valid. Whether any are left.
    pub fn sweep(&self) -> bool {
        let mut waiting = self.lock();
        waiting.channels.retain(|_, pending| !pending.is_over());
        !waiting.channels.is_empty()
    }
}
