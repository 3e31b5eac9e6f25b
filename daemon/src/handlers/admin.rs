//! `proto::api::admin`: sessions and handles that are open, and the reload of the policy.

use std::collections::HashSet;
use std::sync::Arc;

use sockbroker_monitor::message::{Query, WaitingSession};
use sockbroker_proto::api::admin::{
    AdminServer, ChannelEnded, HandleInfo, HandlesParams, HandlesServer, ReloadParams,
    ServingState, SessionHandlesParams, SessionSummary, SessionsParams,
};
use sockbroker_proto::api::policy::Generation;
use sockbroker_proto::api::session::Persistence;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::address::encode_address;
use crate::handlers::other_workers::{decoded, query, query_with_waiting};
use crate::ops::inspect::{self, State};
use crate::rpc::call::Call;
use crate::session::Session;
use crate::session::broker::Broker;
use crate::table::entry::Entry;
use sockbroker_policy::Permit;
use sockbroker_policy::action::Administer;

impl HandlesServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn handles(call: &Call, params: HandlesParams) -> OpResult<Vec<HandleInfo>> {
        let HandlesParams { all_sessions } = params;
        let sessions = match all_sessions {
            Some(true) => sessions_of_user(call)?,
            Some(false) | None => vec![call.session().clone()],
        };
        let mut infos = Vec::new();
        for session in sessions {
            for (handle, entry) in session.entries() {
                let state = inspect::own_state(&call.inspect(&entry)?);
                infos.push(info(session.number(), handle, &entry, &state));
            }
        }
        Ok(infos)
    }
}

/// The sessions of the caller's user. A session with restricted rights must not see the others.
fn sessions_of_user(call: &Call) -> Result<Vec<Arc<Session>>, OpError> {
    if call.session().restricted() > 0 {
        return Err(OpError::Session(
            "a session with restricted rights lists only its own handles",
        ));
    }
    let principal = call.session().principal().key();
    let mut sessions = call.broker().sessions();
    sessions.retain(|session| session.principal().key() == principal);
    Ok(sessions)
}

impl AdminServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn sessions(call: Call, _: SessionsParams) -> OpResult<Vec<SessionSummary>> {
        let Administer = call.permit(Administer)?.into_request();
        let mut all = summaries(call.broker());
        let (results, waiting) = query_with_waiting(call.broker(), Query::Sessions).await?;
        for (uid, result) in results {
            let sessions = decoded::<Vec<SessionSummary>>(uid, &result).unwrap_or_default();
            // A worker reports its own user only.
            all.extend(sessions.into_iter().filter(|session| session.uid == uid));
        }
        // A worker can have answered and ended since.
        let listed: HashSet<u64> = all.iter().map(|session| session.session).collect();
        let waiting = waiting.iter().filter(|session| !listed.contains(&session.number));
        all.extend(waiting.map(waiting_summary));
        Ok(all)
    }

    async fn session_handles(
        call: Call,
        params: SessionHandlesParams,
    ) -> OpResult<Vec<HandleInfo>> {
        let SessionHandlesParams { session } = params;
        let permit = call.permit(Administer)?;
        if let Some(infos) = handles_of(call.broker(), &permit, session) {
            return Ok(infos);
        }
        for (uid, result) in query(call.broker(), Query::Handles(session)).await? {
            if let Some(infos) = decoded::<Option<_>>(uid, &result).flatten() {
                return Ok(infos);
            }
        }
        Err(OpError::Session("no session with this number"))
    }

    async fn reload(call: Call, _: ReloadParams) -> OpResult<Generation> {
        let Administer = call.permit(Administer)?.into_request();
        Ok(Generation { generation: call.broker().reload().await? })
    }
}

pub(super) fn summaries(broker: &Broker) -> Vec<SessionSummary> {
    broker.sessions().iter().map(|session| summary(session)).collect()
}

/// The handles of a session of this process; `None` if it has no session with this number.
pub(super) fn handles_of(
    broker: &Broker,
    permit: &Permit<Administer>,
    session: u64,
) -> Option<Vec<HandleInfo>> {
    let found = broker.sessions().into_iter().find(|found| found.number() == session)?;
    let entries = found.entries();
    let states = inspect::states(permit, entries.iter().map(|(_, entry)| entry));
    let infos = entries.iter().zip(states);
    Some(infos.map(|((handle, entry), state)| info(session, *handle, entry, &state)).collect())
}

fn info(session: u64, handle: Handle, entry: &Entry, state: &State) -> HandleInfo {
    let declared = entry.declared();
    HandleInfo {
        handle,
        session,
        family: declared.domain,
        r#type: declared.ty,
        proto: declared.protocol,
        timeout: entry.timeout().seconds(),
        local: encode_address(entry, state.local.as_ref()),
        peer: encode_address(entry, state.peer.as_ref()),
        listening: state.listening,
        age: entry.age().as_secs_f64(),
        maker: entry.maker.get().cloned(),
        channel_ended: entry.channels.is_interrupted().then_some(ChannelEnded::Interrupted),
    }
}

fn summary(session: &Session) -> SessionSummary {
    SessionSummary {
        session: session.number(),
        uid: session.uid(),
        principal: session.principal().subject().remote.as_ref().map(ToString::to_string),
        connections: session.connections() as u64,
        handles: session.handles() as u64,
        opened: session.is_open(),
        linger: session.linger().as_secs_f64(),
        age: session.age().as_secs_f64(),
        persist: session.reach(),
        state: ServingState::Served,
        since: None,
        until: None,
    }
}

fn waiting_summary(session: &WaitingSession) -> SessionSummary {
    let persist = if session.is_stored { Persistence::Service } else { Persistence::Worker };
    SessionSummary {
        session: session.number,
        uid: session.uid,
        principal: None,
        connections: 0,
        handles: session.handles,
        opened: true,
        linger: session.linger.as_secs_f64(),
        age: session.age.as_secs_f64(),
        persist: Some(persist),
        state: ServingState::Waiting,
        since: Some(session.since.as_secs_f64()),
        until: Some(session.until.as_secs_f64()),
    }
}
