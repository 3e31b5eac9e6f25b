//! `proto::api::delegation`: a socket, or one call on a socket, for a program that keeps its sockets itself.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use sockbroker_proto::address::AddressValue;
use sockbroker_proto::api::delegation::{
    AppliedOption, ApplyParams, DelegateParams, DelegationServer, PROGRAM_NAME_BYTES, Program,
};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::creation::{self, DEFAULT_SOCKET, GivenSpec};
use crate::handlers::option;
use crate::handlers::parameters::int;
use crate::network::open;
use crate::network::other_namespace;
use crate::ops::descriptor;
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use crate::table::timeout::Timeout;
use sockbroker_policy::verb::Verb;

impl DelegationServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn delegate(call: &Call, params: DelegateParams) -> OpResult<u32> {
        let DelegateParams { family, kind, proto, program, netns } = params;
        call.check_carries_descriptors()?;
        note(call, program)?;
        let selection = call.selection(netns.as_ref())?;
        let given = GivenSpec { family, socktype: kind, proto };
        let (spec, nonblocking) = given.without_minus_one().resolve(DEFAULT_SOCKET)?;
        if open::is_emulated(spec) {
            // Its descriptor would be a packet socket.
            return Err(OpError::Os { call: "socket", errno: libc::EPROTONOSUPPORT });
        }
        let timeout = if nonblocking { Timeout::NonBlocking } else { Timeout::Blocking };
        let entry = creation::create_entry(call, spec, &selection, timeout)?;
        let passed = descriptor::pass(&call.permit_handover(&entry)?);
        call.session().networks.note(passed.as_fd(), entry.namespace());
        call.attach_descriptor(passed);
        Ok(1)
    }

    async fn apply(call: Call, params: ApplyParams) -> OpResult<()> {
        let ApplyParams { fd, bind, option, program } = params;
        note(&call, program)?;
        let change = match (bind, option) {
            (Some(address), None) => Change::Bind(address),
            (None, Some(option)) => Change::Option(option),
            (Some(_), Some(_)) | (None, None) => {
                return Err(OpError::type_error("apply takes either bind or option"));
            }
        };
        let passed = open::examine(call.take_descriptor(fd.unwrap_or(0))?)?;
        let actual = passed.socket;
        // The socket does not become one of the session, so that only the call on it is judged.
        // Rules without `netns` are about the namespace of the broker.
        let (privileged, known) = (call.caller().privileged(), &call.session().networks);
        let namespace = other_namespace::of_passed(passed.descriptor.as_fd(), privileged, known);
        let entry =
            open::borrow(passed, &namespace, actual, Timeout::Blocking, call.reserve_handle()?)?;
        let entry = Arc::new(entry);
        let made = make(&call, &entry, change).await;
        // Also after a failure: a port stays taken as long as any copy of the socket is open.
        Entry::close(entry).await;
        made
    }
}

/// The call to make on a passed socket.
enum Change {
    Bind(AddressValue),
    Option(AppliedOption),
}

async fn make(call: &Call, entry: &Arc<Entry>, change: Change) -> OpResult<()> {
    match change {
        Change::Bind(address) => {
            let target = call.target(entry, &address, ("bind", Verb::Bind)).await?;
            creation::bind(call, &call.permit_bind(entry, target)?).await
        }
        Change::Option(AppliedOption { level, optname, value, optlen }) => {
            let value = option::read(call, value, optlen)?;
            let permitted = call.permit_set_option(entry, int(level)?, int(optname)?, value)?;
            option::set(call, &permitted).await
        }
    }
}

/// Notes the program for the audit.
fn note(call: &Call, program: Option<Program>) -> OpResult<()> {
    let Some(program) = program else { return Ok(()) };
    if program.name.len() > PROGRAM_NAME_BYTES {
        let text = format!("the name of a program has at most {PROGRAM_NAME_BYTES} bytes");
        return Err(OpError::value(text));
    }
    call.note_program(program);
    Ok(())
}
