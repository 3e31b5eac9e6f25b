//! `proto::api::socket`: life of a socket.

use jsonrpsee::Extensions;
use jsonrpsee::core::{RpcResult, async_trait};
use sockbroker_proto::address::AddressValue;
use sockbroker_proto::api::socket::SocketServer;
use sockbroker_proto::api::values::{Accepted, Attributes, Created};
use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::address::spell;
use crate::handlers::creation::{self, GivenSpec};
use crate::handlers::number::{c_int, int};
use crate::handlers::poll::poll_handles;
use crate::handlers::{Handlers, creation::admit, creation::admit_accepted};
use crate::network::open;
use crate::network::open::Room;
use crate::ops::connect;
use crate::rpc::call::Call;
use sockbroker_policy::action::Inspect;
use sockbroker_policy::verb::Verb;

#[async_trait]
impl SocketServer for Handlers {
    async fn socket(
        &self,
        ext: &Extensions,
        family: Option<Constant>,
        kind: Option<Constant>,
        proto: Option<Constant>,
        fileno: Option<u32>,
        timeout: Option<f64>,
        want_fd: Option<bool>,
    ) -> RpcResult<Created> {
        let call = Call::of(ext)?;
        let timeout = call.timeout(4, timeout)?;
        let kind = GivenSpec { family, socktype: kind, proto };
        if let Some(ticket) = fileno {
            return Ok(creation::adopt(call, ticket, kind, timeout)?);
        }
        Ok(creation::create(call, kind, timeout, want_fd.unwrap_or(false))?)
    }

    async fn socketpair(
        &self,
        ext: &Extensions,
        family: Option<Constant>,
        kind: Option<Constant>,
        proto: Option<Constant>,
        timeout: Option<f64>,
        want_fd: Option<bool>,
    ) -> RpcResult<(Created, Created)> {
        let call = Call::of(ext)?;
        let timeout = call.timeout(3, timeout)?;
        let kind = GivenSpec { family, socktype: kind, proto };
        Ok(creation::pair(call, kind, timeout, want_fd.unwrap_or(false)).await?)
    }

    fn fromfd(
        &self,
        ext: &Extensions,
        fd: Option<u32>,
        family: Option<Constant>,
        kind: Option<Constant>,
        proto: Option<Constant>,
        timeout: Option<f64>,
    ) -> RpcResult<Created> {
        let call = Call::of(ext)?;
        let timeout = call.timeout(4, timeout)?;
        Ok(creation::adopt(
            call,
            fd.unwrap_or(0),
            GivenSpec { family, socktype: kind, proto },
            timeout,
        )?)
    }

    async fn create_connection(
        &self,
        ext: &Extensions,
        address: AddressValue,
        timeout: Option<f64>,
        source_address: Option<AddressValue>,
        all_errors: Option<bool>,
    ) -> RpcResult<Created> {
        let call = Call::of(ext)?;
        let timeout = call.timeout(1, timeout)?;
        let wanted = creation::Destination {
            address: &address,
            source: source_address.as_ref(),
            all_errors: all_errors.unwrap_or(false),
        };
        Ok(creation::connection(call, wanted, timeout).await?)
    }

    async fn create_server(
        &self,
        ext: &Extensions,
        address: AddressValue,
        family: Option<Constant>,
        backlog: Option<i64>,
        reuse_port: Option<bool>,
        dualstack_ipv6: Option<bool>,
    ) -> RpcResult<Created> {
        let call = Call::of(ext)?;
        let family = family.map_or(Ok(libc::AF_INET), int)?;
        let wanted = creation::Server {
            address: &address,
            family,
            backlog: clip_backlog(backlog)?,
            reuse_port: reuse_port.unwrap_or(false),
            dualstack: dualstack_ipv6.unwrap_or(false),
        };
        Ok(creation::server(call, wanted).await?)
    }

    fn has_dualstack_ipv6(&self, ext: &Extensions) -> RpcResult<bool> {
        Ok(creation::has_dualstack(Call::of(ext)?)?)
    }

    async fn accept(
        &self,
        ext: &Extensions,
        handle: Handle,
        want_fd: Option<bool>,
    ) -> RpcResult<Accepted> {
        let call = Call::of(ext)?;
        let want_fd = want_fd.unwrap_or(false);
        if want_fd {
            call.check_carries_descriptors()?;
        }
        let entry = call.entry(handle)?;
        let ticket = entry.receiving.join(call.connection().number());
        let permit = call.permit_accept(&entry)?;
        let timeout = call.session().default_timeout.get();
        // An accepted socket is of the same kind as the listening one. Its descriptor is judged before there is
        // a connection to lose.
        let handover = want_fd.then(|| call.permit_handover(entry.actual())).transpose()?;
        let room = || {
            let spare = want_fd.then(|| open::spare(&entry)).transpose()?;
            Ok(Room { handle: call.room()?, spare })
        };
        let (accepted, spare, peer) =
            connect::accept(permit, &entry, ticket, timeout, room).await?;
        let created = admit_accepted(call, accepted, handover.zip(spare))?;
        Ok(Accepted {
            handle: created.handle,
            family: created.family,
            r#type: created.r#type,
            proto: created.proto,
            timeout: created.timeout,
            address: spell(peer.as_ref()),
        })
    }

    async fn bind(&self, ext: &Extensions, handle: Handle, address: AddressValue) -> RpcResult<()> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let (ticket, _barrier) = entry.join_both(call.connection().number());
        let target = call.target(&entry, &address, ("bind", Verb::Bind)).await?;
        let permit = call.permit_bind(&entry, target)?;
        ticket.acquire().await;
        Ok(connect::bind(permit, &entry, call.caller()).await?)
    }

    async fn listen(
        &self,
        ext: &Extensions,
        handle: Handle,
        backlog: Option<i64>,
    ) -> RpcResult<()> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let (ticket, _barrier) = entry.join_both(call.connection().number());
        let backlog = clip_backlog(backlog)?.unwrap_or(creation::DEFAULT_BACKLOG);
        call.settle(&entry, &ticket, Verb::Listen).await;
        let permit = call.permit_listen(&entry, backlog)?;
        ticket.acquire().await;
        Ok(connect::listen(permit, &entry, call.caller()).await?)
    }

    async fn connect(
        &self,
        ext: &Extensions,
        handle: Handle,
        address: AddressValue,
    ) -> RpcResult<()> {
        Ok(connect_handle(Call::of(ext)?, handle, &address).await?)
    }

    async fn connect_ex(
        &self,
        ext: &Extensions,
        handle: Handle,
        address: AddressValue,
    ) -> RpcResult<i32> {
        match connect_handle(Call::of(ext)?, handle, &address).await {
            Ok(()) => Ok(0),
            Err(OpError::Os { errno, .. }) => Ok(errno),
            // sock_connect_ex: a timeout is EWOULDBLOCK.
            Err(OpError::Timeout) => Ok(libc::EAGAIN),
            Err(error) => Err(error.into()),
        }
    }

    async fn shutdown(&self, ext: &Extensions, handle: Handle, how: Constant) -> RpcResult<()> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        Ok(connect::shutdown(permit, &entry, ticket, int(how)?).await?)
    }

    fn close(&self, ext: &Extensions, handle: Handle) -> RpcResult<()> {
        let entry = Call::of(ext)?.session().remove(handle)?;
        drop(entry);
        Ok(())
    }

    fn dup(&self, ext: &Extensions, handle: Handle, want_fd: Option<bool>) -> RpcResult<Created> {
        let call = Call::of(ext)?;
        let want_fd = want_fd.unwrap_or(false);
        if want_fd {
            call.check_carries_descriptors()?;
        }
        let entry = call.entry(handle)?;
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        Ok(admit(call, open::duplicate(permit, &entry, call.room()?)?, want_fd)?)
    }

    fn fileno(&self, ext: &Extensions, handle: Handle) -> RpcResult<u32> {
        Ok(hand_over(Call::of(ext)?, handle)?)
    }

    fn detach(&self, ext: &Extensions, handle: Handle) -> RpcResult<u32> {
        let call = Call::of(ext)?;
        let count = hand_over(call, handle)?;
        call.session().remove(handle)?;
        Ok(count)
    }

    fn getsockname(&self, ext: &Extensions, handle: Handle) -> RpcResult<AddressValue> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        Ok(spell(connect::local_address(permit, &entry)?.as_ref()))
    }

    fn getpeername(&self, ext: &Extensions, handle: Handle) -> RpcResult<AddressValue> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        Ok(spell(connect::peer_address(permit, &entry)?.as_ref()))
    }

    fn attributes(&self, ext: &Extensions, handle: Handle) -> RpcResult<Attributes> {
        let entry = Call::of(ext)?.entry(handle)?;
        let facts = entry.declared();
        Ok(Attributes {
            family: facts.domain,
            r#type: facts.ty,
            proto: facts.protocol,
            timeout: entry.timeout().seconds(),
        })
    }

    async fn poll(
        &self,
        ext: &Extensions,
        fds: Vec<(Handle, Constant)>,
        timeout: Option<f64>,
    ) -> RpcResult<Vec<(Handle, i32)>> {
        Ok(poll_handles(Call::of(ext)?, &fds, timeout).await?)
    }
}

/// `listen` takes negative numbers for 0, as CPython does.
fn clip_backlog(backlog: Option<i64>) -> OpResult<Option<i32>> {
    backlog.map(|backlog| Ok(c_int(backlog)?.max(0))).transpose()
}

async fn connect_handle(call: &Call, handle: Handle, address: &AddressValue) -> OpResult<()> {
    let entry = call.entry(handle)?;
    let (ticket, _barrier) = entry.join_both(call.connection().number());
    let target = call.target(&entry, address, ("connect", Verb::Connect)).await?;
    call.settle(&entry, &ticket, Verb::Connect).await;
    let permit = call.permit_connect(&entry, target)?;
    connect::connect(permit, &entry, ticket, call.caller()).await
}

fn hand_over(call: &Call, handle: Handle) -> OpResult<u32> {
    call.check_carries_descriptors()?;
    let entry = call.entry(handle)?;
    let permit = call.permit_handover(entry.actual())?;
    call.give_descriptor(open::hand_over(permit, &entry)?);
    Ok(1)
}
