//! `proto::api::session`: sessions, the outcome of lost calls, constants.

use std::collections::BTreeMap;
use std::time::Duration;

use sockbroker_proto::PROTOCOL_VERSION;
use sockbroker_proto::api::session::{
    AttachParams, CallServer, CallState, CloneSessionParams, CloseParams, Constants,
    ConstantsParams, InfoParams, LimitInfo, LimitsParams, ModuleServer, OpenParams, Opened,
    ResolveParams, Resolved, SessionInfo, SessionServer,
};
use sockbroker_proto::constant;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::policy::restriction;
use crate::rpc::answer::resolved_json;
use crate::rpc::call::Call;
use crate::session::Session;
use crate::session::finished::{CallOutcome, KeptAnswer};
use crate::session::token::Token;
use sockbroker_policy::action::{OpenSession, PersistSession};

impl ModuleServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn constants(_call: &Call, _: ConstantsParams) -> OpResult<Constants> {
        let constants = constant::names().map(|(name, value)| (name.to_owned(), value)).collect();
        // In CPython has_ipv6 is true if IPv6 was compiled in, which is always the case on Linux.
        Ok(Constants { constants, has_ipv6: true })
    }
}

impl SessionServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn open(call: Call, params: OpenParams) -> OpResult<Opened> {
        let OpenParams { linger, attachments, rules, filters, descriptors, persist, exactly_once } =
            params;
        // Before the permit: a connection that cannot have a session must be able to refuse them too.
        if let Some(wanted) = descriptors {
            call.connection().ask_for_descriptors(wanted)?;
        }
        let OpenSession = call.permit(OpenSession)?.into_request();
        let persists = persist == Some(true);
        if persists {
            let PersistSession = call.permit(PersistSession)?.into_request();
            if rules.is_some() || filters.is_some() {
                return Err(OpError::value(
                    "persist applies to the session of this connection: open the restricted session with it after session.attach",
                ));
            }
        }
        if exactly_once == Some(true) && !persists {
            return Err(OpError::value("exactly_once applies to sessions with persist"));
        }
        let linger = linger.map(|seconds| read_linger(&call, seconds)).transpose()?;
        if let Some(wanted) = attachments {
            call.connection().ask_for_attachments(wanted)?;
        }
        let token = if rules.is_some() || filters.is_some() {
            let restriction = restriction(&call, rules, filters)?;
            let _place = call.broker().lease_session().await?;
            call.broker().open_restricted(call.session(), linger, restriction)?
        } else {
            // A session that is opened again makes no further one.
            let is_further = !call.session().is_open();
            let _place = if is_further { call.broker().lease_session().await? } else { None };
            call.broker().open(call.session(), linger)?
        };
        if persists {
            call.session().set_exactly_once(exactly_once)?;
            call.broker().persist(call.session()).await?;
            return Ok(opened(&call, call.session(), &token));
        }
        let session = call.session();
        let own = (token.session() == session.number()).then_some(session);
        Ok(match own {
            Some(session) => opened(&call, session, &token),
            None => Opened { persist: None, ..opened(&call, session, &token) },
        })
    }

    fn attach(call: &Call, params: AttachParams) -> OpResult<Opened> {
        let AttachParams { token, attachments, descriptors } = params;
        if let Some(wanted) = descriptors {
            call.connection().ask_for_descriptors(wanted)?;
        }
        let session = call.broker().find(&token, &call.connection().principal().key())?;
        let token = session.token().ok_or(OpError::Session("the session is closed"))?;
        if let Some(wanted) = attachments {
            call.connection().ask_for_attachments(wanted)?;
        }
        call.connection().attach(session.clone())?;
        Ok(opened(call, &session, &token))
    }

    async fn clone_session(call: Call, _: CloneSessionParams) -> OpResult<Opened> {
        let OpenSession = call.permit(OpenSession)?.into_request();
        let _place = call.broker().lease_session().await?;
        let token = call.broker().duplicate(call.session())?;
        Ok(Opened { persist: None, ..opened(&call, call.session(), &token) })
    }

    fn close(call: &Call, _: CloseParams) -> OpResult<()> {
        call.broker().close(call.session());
        Ok(())
    }

    fn info(call: &Call, _: InfoParams) -> OpResult<SessionInfo> {
        let (session, connection) = (call.session(), call.connection());
        let (facts, subject) = (connection.facts(), connection.subject());
        Ok(SessionInfo {
            session: session.number(),
            connection: connection.number(),
            connections: session.connections() as u64,
            handles: session.handles() as u64,
            default_timeout: session.default_timeout.get().seconds(),
            linger: session.linger().as_secs_f64(),
            opened: session.is_open(),
            uid: subject.uid,
            principal: subject.remote.as_ref().map(ToString::to_string),
            gid: subject.gid,
            pid: subject.pid,
            framing: facts.framing.word().to_owned(),
            descriptors: connection.carries_descriptors(),
            attachments: connection.takes_attachments(),
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn limits(call: &Call, _: LimitsParams) -> OpResult<BTreeMap<String, LimitInfo>> {
        Ok(call.broker().limits.describe())
    }
}

impl CallServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn resolve(call: Call, params: ResolveParams) -> OpResult<Resolved> {
        let ResolveParams { connection, request } = params;
        let check = |kept: &KeptAnswer| call.check_attaches(kept);
        Ok(match call.session().call_outcome(connection, &request, check).await? {
            CallOutcome::Unknown if is_interrupted(&call, connection) => {
                Resolved { state: CallState::Interrupted, answer: None, sent: None }
            }
            CallOutcome::Unknown => {
                Resolved { state: CallState::Unknown, answer: None, sent: None }
            }
            CallOutcome::Cancelled(sent) => {
                let sent = (sent > 0).then_some(sent);
                Resolved { state: CallState::Cancelled, answer: None, sent }
            }
            CallOutcome::Answered(kept) => {
                let answer = Some(resolved_json(&kept)?);
                call.attach_kept(kept);
                Resolved { state: CallState::Answered, answer, sent: None }
            }
        })
    }
}

fn opened(call: &Call, session: &Session, token: &Token) -> Opened {
    Opened {
        token: token.text(),
        connection: call.connection().number(),
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: call.broker().epoch,
        persist: session.reach(),
    }
}

/// Whether a call was in progress, or its response not received, in a process that has ended.
fn is_interrupted(call: &Call, connection: u64) -> bool {
    call.session().reach().is_some() && call.broker().is_earlier(connection)
}

fn read_linger(call: &Call, seconds: f64) -> OpResult<Duration> {
    let limit = call.broker().limits.linger_seconds;
    let linger = Duration::try_from_secs_f64(seconds)
        .map_err(|_error| OpError::value("linger must be a number of seconds from 0"))?;
    if linger > Duration::from_secs(limit) {
        return Err(OpError::Limit { name: "linger_seconds", value: limit });
    }
    Ok(linger)
}
