//! `proto::api::socket`: create, connect, accept, close and inspect sockets.

use sockbroker_proto::address::AddressValue;
use sockbroker_proto::api::socket::{
    AcceptParams, AttributesParams, BindParams, CloseParams, ConnectExParams, ConnectParams,
    CreateConnectionParams, CreateServerParams, DetachParams, DupParams, FilenoParams,
    FromfdParams, GetpeernameParams, GetsocknameParams, HasDualstackIpv6Params, ListenParams,
    PollParams, PositionParams, ResumeParams, ShutdownParams, SocketParams, SocketServer,
    SocketpairParams,
};
use sockbroker_proto::api::values::{Accepted, Attributes, Created, Position};
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::address::encode_address;
use crate::handlers::channel;
use crate::handlers::contents::Sizes;
use crate::handlers::creation::{self, GivenSpec};
use crate::handlers::parameters::{clip_backlog, int};
use crate::handlers::poll::poll_handles;
use crate::handlers::{Handlers, creation::admit, creation::admit_accepted};

use crate::ops::connect;
use crate::ops::descriptor;
use crate::ops::position;
use crate::ops::resume;
use crate::rpc::call::Call;
use crate::table::Resource;
use crate::table::entry::Entry;
use sockbroker_policy::action::Shutdown;
use sockbroker_policy::verb::Verb;

impl SocketServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn socket(call: Call, params: SocketParams) -> OpResult<Created> {
        let SocketParams { family, kind, proto, fileno, timeout, want_fd, netns, want_channel } =
            params;
        let wanted = want_channel.unwrap_or(false);
        let timeout = call.timeout(timeout)?;
        let given = GivenSpec { family, socktype: kind, proto };
        let reserved = wanted.then(|| channel::reserve(&call)).transpose()?;
        if let Some(index) = fileno {
            if netns.is_some() {
                let text = "a descriptor has its network namespace: netns is for new sockets";
                return Err(OpError::value(text));
            }
            let created = creation::adopt(&call, index, given, timeout)?;
            return channel::of_new(&call, created, reserved);
        }
        let want_fd = want_fd.unwrap_or(false);
        let created = creation::create(&call, given, timeout, netns.as_ref(), want_fd)?;
        channel::of_new(&call, created, reserved)
    }

    async fn socketpair(call: Call, params: SocketpairParams) -> OpResult<(Created, Created)> {
        let SocketpairParams { family, kind, proto, timeout, want_fd, netns } = params;
        let timeout = call.timeout(timeout)?;
        let given = GivenSpec { family, socktype: kind, proto };
        creation::pair(&call, given, timeout, netns.as_ref(), want_fd.unwrap_or(false)).await
    }

    fn fromfd(call: &Call, params: FromfdParams) -> OpResult<Created> {
        let FromfdParams { fd, family, kind, proto, timeout } = params;
        let timeout = call.timeout(timeout)?;
        creation::adopt(call, fd.unwrap_or(0), GivenSpec { family, socktype: kind, proto }, timeout)
    }

    async fn create_connection(call: Call, params: CreateConnectionParams) -> OpResult<Created> {
        let CreateConnectionParams {
            address,
            timeout,
            source_address,
            all_errors,
            netns,
            want_channel,
        } = params;
        let timeout = call.timeout(timeout)?;
        let wanted = creation::Destination {
            address: &address,
            source: source_address.as_ref(),
            all_errors: all_errors.unwrap_or(false),
            netns: netns.as_ref(),
        };
        let wants_channel = want_channel.unwrap_or(false);
        let reserved = wants_channel.then(|| channel::reserve(&call)).transpose()?;
        let created = creation::connection(&call, wanted, timeout).await?;
        channel::of_new(&call, created, reserved)
    }

    async fn create_server(call: Call, params: CreateServerParams) -> OpResult<Created> {
        let CreateServerParams { address, family, backlog, reuse_port, dualstack_ipv6, netns } =
            params;
        let family = family.map_or(Ok(libc::AF_INET), int)?;
        let wanted = creation::Server {
            address: &address,
            family,
            backlog: clip_backlog(backlog)?,
            reuse_port: reuse_port.unwrap_or(false),
            dualstack: dualstack_ipv6.unwrap_or(false),
            netns: netns.as_ref(),
        };
        creation::server(&call, wanted).await
    }

    fn has_dualstack_ipv6(call: &Call, _: HasDualstackIpv6Params) -> OpResult<bool> {
        creation::has_dualstack(call)
    }

    async fn accept(call: Call, params: AcceptParams) -> OpResult<Accepted> {
        let AcceptParams { handle, want_fd, want_channel } = params;
        let want_fd = want_fd.unwrap_or(false);
        if want_fd {
            call.check_carries_descriptors()?;
        }
        let entry = call.entry(handle)?;
        let ticket = entry.receiving.join(call.connection().number());
        call.settle(&entry, &ticket, Verb::Accept).await;
        let permitted = call.permit_accept(&entry)?;
        let timeout = call.session().default_timeout.get();
        // An accepted socket has the same type as the listening one. The policy judges the transfer of its
        // descriptor before a connection is accepted, so that a refusal cannot lose the connection.
        let handover = want_fd.then(|| call.permit_handover(&entry)).transpose()?;
        let wants_channel = want_channel.unwrap_or(false);
        let reserve = || {
            let channel = wants_channel.then(|| channel::reserve(&call)).transpose()?;
            Ok((call.reserve_handle()?, channel))
        };
        let (accepted, peer, reserved) =
            connect::accept(&permitted, ticket, timeout, reserve).await?;
        let created = admit_accepted(&call, accepted, handover)?;
        let created = channel::of_new(&call, created, reserved)?;
        Ok(Accepted {
            handle: created.handle,
            family: created.family,
            r#type: created.r#type,
            proto: created.proto,
            timeout: created.timeout,
            address: encode_address(&entry, peer.as_ref()),
            channel: created.channel,
        })
    }

    async fn bind(call: Call, params: BindParams) -> OpResult<()> {
        let BindParams { handle, address } = params;
        let entry = call.entry(handle)?;
        let (ticket, _barrier) = entry.join_both(call.connection().number());
        let target = call.target(&entry, &address, ("bind", Verb::Bind)).await?;
        call.settle(&entry, &ticket, Verb::Bind).await;
        let permitted = call.permit_bind(&entry, target)?;
        ticket.acquire().await;
        let bound = creation::bind(&call, &permitted).await;
        call.session().save(handle)?;
        bound
    }

    async fn listen(call: Call, params: ListenParams) -> OpResult<()> {
        let ListenParams { handle, backlog } = params;
        let entry = call.entry(handle)?;
        let (ticket, _barrier) = entry.join_both(call.connection().number());
        let backlog = clip_backlog(backlog)?.unwrap_or(creation::DEFAULT_BACKLOG);
        call.settle(&entry, &ticket, Verb::Listen).await;
        let permitted = call.permit_listen(&entry, backlog)?;
        ticket.acquire().await;
        connect::listen(&permitted, call.caller()).await
    }

    async fn connect(call: Call, params: ConnectParams) -> OpResult<()> {
        let ConnectParams { handle, address } = params;
        connect_handle(&call, handle, &address).await
    }

    async fn connect_ex(call: Call, params: ConnectExParams) -> OpResult<i32> {
        let ConnectExParams { handle, address } = params;
        match connect_handle(&call, handle, &address).await {
            Ok(()) => Ok(0),
            Err(OpError::Os { errno, .. }) => Ok(errno),
            // As in sock_connect_ex: a timeout is EWOULDBLOCK.
            Err(OpError::Timeout) => Ok(libc::EAGAIN),
            Err(error) => Err(error),
        }
    }

    async fn shutdown(call: Call, params: ShutdownParams) -> OpResult<()> {
        let ShutdownParams { handle, how } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let how = int(how)?;
        let permitted = call.authorize(&entry, |socket| Shutdown { socket, how })?;
        connect::shutdown(&permitted, ticket).await
    }

    async fn close(call: Call, params: CloseParams) -> OpResult<()> {
        let CloseParams { handle } = params;
        match call.session().remove(handle)? {
            Resource::Socket(entry) => Entry::close(entry).await,
            Resource::Stream(stream) => drop(stream),
        }
        Ok(())
    }

    fn dup(call: &Call, params: DupParams) -> OpResult<Created> {
        let DupParams { handle, want_fd } = params;
        let want_fd = want_fd.unwrap_or(false);
        if want_fd {
            call.check_carries_descriptors()?;
        }
        let entry = call.entry(handle)?;
        let permitted = call.inspect(&entry)?;
        admit(call, descriptor::duplicate(&permitted, call.reserve_handle()?)?, want_fd)
    }

    fn fileno(call: &Call, params: FilenoParams) -> OpResult<u32> {
        let FilenoParams { handle } = params;
        pass_descriptor(call, handle)
    }

    fn detach(call: &Call, params: DetachParams) -> OpResult<u32> {
        let DetachParams { handle } = params;
        let count = pass_descriptor(call, handle)?;
        call.session().remove(handle)?;
        Ok(count)
    }

    fn getsockname(call: &Call, params: GetsocknameParams) -> OpResult<AddressValue> {
        let GetsocknameParams { handle } = params;
        let entry = call.entry(handle)?;
        Ok(encode_address(&entry, connect::local_address(&call.inspect(&entry)?)?.as_ref()))
    }

    fn getpeername(call: &Call, params: GetpeernameParams) -> OpResult<AddressValue> {
        let GetpeernameParams { handle } = params;
        let entry = call.entry(handle)?;
        Ok(encode_address(&entry, connect::peer_address(&call.inspect(&entry)?)?.as_ref()))
    }

    fn position(call: &Call, params: PositionParams) -> OpResult<Position> {
        let PositionParams { handle } = params;
        let entry = call.entry(handle)?;
        let position::Position { sent, received } = position::of_tcp(&call.inspect(&entry)?)?;
        Ok(Position { sent, received })
    }

    fn resume(call: &Call, params: ResumeParams) -> OpResult<u64> {
        let ResumeParams { handle, received } = params;
        let entry = call.entry(handle)?;
        let permitted = call.permit_receive(&entry, Sizes { length: 0, ancillary: 0, flags: 0 })?;
        resume::resume(&permitted, received)
    }

    fn attributes(call: &Call, params: AttributesParams) -> OpResult<Attributes> {
        let AttributesParams { handle } = params;
        let entry = call.entry(handle)?;
        let declared = entry.declared();
        Ok(Attributes {
            family: declared.domain,
            r#type: declared.ty,
            proto: declared.protocol,
            timeout: entry.timeout().seconds(),
        })
    }

    async fn poll(call: Call, params: PollParams) -> OpResult<Vec<(Handle, i32)>> {
        let PollParams { fds, timeout } = params;
        poll_handles(&call, &fds, timeout).await
    }
}

async fn connect_handle(call: &Call, handle: Handle, address: &AddressValue) -> OpResult<()> {
    let entry = call.entry(handle)?;
    let (ticket, _barrier) = entry.join_both(call.connection().number());
    let target = call.target(&entry, address, ("connect", Verb::Connect)).await?;
    call.settle(&entry, &ticket, Verb::Connect).await;
    let permitted = call.permit_connect(&entry, target)?;
    let connected = connect::connect(&permitted, ticket, call.caller()).await;
    call.session().save(handle)?;
    connected
}

fn pass_descriptor(call: &Call, handle: Handle) -> OpResult<u32> {
    call.check_carries_descriptors()?;
    let entry = call.entry(handle)?;
    let passed = descriptor::pass(&call.permit_handover(&entry)?);
    // The next process must know that a client has it.
    call.session().save(handle)?;
    call.attach_descriptor(passed);
    Ok(1)
}
