//! `proto::api::option`: options, timeouts, filters, `ioctl`.

use sockbroker_proto::api::option::{
    AttachFilterParams, DetachFilterParams, GetInheritableParams, GetblockingParams,
    GetdefaulttimeoutParams, GetsockoptParams, GettimeoutParams, IoctlArgument, IoctlParams,
    OptionsServer, SetInheritableParams, SetblockingParams, SetdefaulttimeoutParams,
    SetsockoptParams, SettimeoutParams,
};
use sockbroker_proto::api::values::OptionValue;
use sockbroker_proto::constant::{self, Constant};
use sockbroker_proto::handle::Handle;
use sockbroker_sys::ioctl::{IntRequest, InterfaceRequest};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::number::{c_int, int};
use crate::ops::option::{self, Value};
use crate::ops::rcvall;
use crate::rpc::call::Call;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{Inspect, Interfaces, Ioctl, OptionAccess, SocketOption};

/// The largest buffer of `getsockopt`, as in CPython.
const MAX_OPTION_BYTES: i64 = 1024;
const SIO_RCVALL: i64 = 0x9800_0001;
/// `linux/sockios.h`; `libc` does not have it.
const SIOCATMARK: libc::Ioctl = 0x8905;
const RCVALL_OFF: i64 = 0;
const RCVALL_ON: i64 = 1;

impl OptionsServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn getsockopt(call: &Call, params: GetsockoptParams) -> OpResult<OptionValue> {
        let GetsockoptParams { handle, level, optname, buflen } = params;
        let entry = call.entry(handle)?;
        let (level, name) = (int(level)?, int(optname)?);
        let request = SocketOption::new(entry.actual(), OptionAccess::Read, level, name);
        let length = i64::from(c_int(buflen.unwrap_or(0))?);
        if !(0..=MAX_OPTION_BYTES).contains(&length) {
            return Err(OpError::Plain("getsockopt buflen out of range".to_owned()));
        }
        let length = u32::try_from(length).unwrap_or_default();
        Ok(spell(call, option::get(call.permit(request)?, &entry, length)?))
    }

    async fn setsockopt(call: Call, params: SetsockoptParams) -> OpResult<()> {
        let SetsockoptParams { handle, level, optname, value, optlen } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (level, name) = (int(level)?, int(optname)?);
        let value = read(&call, value, optlen)?;
        let bytes = value.bytes(entry.declared().domain);
        let permit = call.permit_option(&entry, level, name, &bytes)?;
        ticket.acquire().await;
        if (entry.actual().domain, level, name)
            == (libc::AF_PACKET, libc::SOL_PACKET, libc::PACKET_FANOUT)
        {
            return option::join_fanout(permit, &entry, &value, &call.broker().fanout);
        }
        option::set(permit, &entry, &value)
    }

    fn settimeout(call: &Call, params: SettimeoutParams) -> OpResult<()> {
        let SettimeoutParams { handle, value } = params;
        let entry = call.entry(handle)?;
        let timeout = Timeout::from_seconds(value.0).map_err(OpError::from)?;
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        option::set_timeout(permit, &entry, timeout)
    }

    fn gettimeout(call: &Call, params: GettimeoutParams) -> OpResult<Option<f64>> {
        let GettimeoutParams { handle } = params;
        Ok(call.entry(handle)?.timeout().seconds())
    }

    fn setblocking(call: &Call, params: SetblockingParams) -> OpResult<()> {
        let SetblockingParams { handle, flag } = params;
        let entry = call.entry(handle)?;
        let timeout = if flag { Timeout::Blocking } else { Timeout::NonBlocking };
        let permit = call.permit(Inspect { socket: entry.actual() })?;
        option::set_timeout(permit, &entry, timeout)
    }

    fn getblocking(call: &Call, params: GetblockingParams) -> OpResult<bool> {
        let GetblockingParams { handle } = params;
        Ok(call.entry(handle)?.timeout() != Timeout::NonBlocking)
    }

    fn get_inheritable(call: &Call, params: GetInheritableParams) -> OpResult<bool> {
        let GetInheritableParams { handle } = params;
        Ok(call.entry(handle)?.inheritable())
    }

    fn set_inheritable(call: &Call, params: SetInheritableParams) -> OpResult<()> {
        let SetInheritableParams { handle, inheritable } = params;
        call.entry(handle)?.set_inheritable(inheritable);
        Ok(())
    }

    fn getdefaulttimeout(call: &Call, _: GetdefaulttimeoutParams) -> OpResult<Option<f64>> {
        Ok(call.session().default_timeout.get().seconds())
    }

    fn setdefaulttimeout(call: &Call, params: SetdefaulttimeoutParams) -> OpResult<()> {
        let SetdefaulttimeoutParams { timeout } = params;
        let timeout = Timeout::from_seconds(timeout.0).map_err(OpError::from)?;
        call.session().default_timeout.set(timeout);
        Ok(())
    }

    async fn ioctl(call: Call, params: IoctlParams) -> OpResult<Option<OptionValue>> {
        let IoctlParams { handle, control, option } = params;
        run_ioctl(&call, handle, control, option).await
    }

    async fn attach_filter(call: Call, params: AttachFilterParams) -> OpResult<()> {
        let AttachFilterParams { handle, program } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let permit = call.permit_option(&entry, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &[])?;
        let program = call.bytes(program)?;
        ticket.acquire().await;
        option::attach_filter(permit, &entry, &program)
    }

    async fn detach_filter(call: Call, params: DetachFilterParams) -> OpResult<()> {
        let DetachFilterParams { handle } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let permit = call.permit_option(&entry, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &[])?;
        ticket.acquire().await;
        option::detach_filter(permit, &entry)
    }
}

fn spell(call: &Call, value: Value) -> OptionValue {
    match value {
        Value::Int(value) => OptionValue::Int(value),
        Value::Bytes(bytes) => OptionValue::Bytes(call.give_bytes(bytes)),
        Value::Null(_) => OptionValue::Int(0),
    }
}

fn read(call: &Call, value: Option<OptionValue>, optlen: Option<i64>) -> OpResult<Value> {
    match (value, optlen) {
        (Some(OptionValue::Int(value)), None) => Ok(Value::Int(value)),
        (Some(OptionValue::Bytes(bytes)), None) => Ok(Value::Bytes(call.bytes(bytes)?.to_vec())),
        (None, Some(length)) => {
            let length = u32::try_from(length)
                .map_err(|_error| OpError::overflow("optlen does not fit into unsigned int"))?;
            Ok(Value::Null(length))
        }
        (Some(_), Some(_)) => Err(OpError::type_error("optlen goes with a null value alone")),
        (None, None) => Err(OpError::type_error("a null value needs optlen")),
    }
}

async fn run_ioctl(
    call: &Call,
    handle: Handle,
    control: Constant,
    argument: Option<IoctlArgument>,
) -> OpResult<Option<OptionValue>> {
    let entry = call.entry(handle)?;
    let socket = entry.actual();
    if control.0 == SIO_RCVALL {
        let ticket = entry.sending.join(call.connection().number());
        let permit = call.permit_capture(&entry)?;
        let on = switch(argument)?;
        ticket.acquire().await;
        rcvall::receive_all(permit, &entry, on)?;
        return Ok(None);
    }
    if let Some(request) = int_request(control) {
        let number = u64::try_from(control.0).unwrap_or_default();
        let permit = call.permit(Ioctl { socket, request: number })?;
        let value = option::ioctl_int(permit, &entry, request)?;
        return Ok(Some(OptionValue::Int(value.into())));
    }
    if let Some(request) = interface_request(control) {
        let Some(IoctlArgument::Name(name)) = argument else {
            return Err(OpError::type_error("this request takes an interface name"));
        };
        let value = option::ioctl_interface(call.permit(Interfaces)?, &entry, request, &name)?;
        return Ok(Some(spell(call, value)));
    }
    Err(OpError::Os { call: "ioctl", errno: libc::ENOTTY })
}

/// `RCVALL_ON` or `RCVALL_OFF`, by number or name.
fn switch(argument: Option<IoctlArgument>) -> OpResult<bool> {
    let value = match argument {
        Some(IoctlArgument::Number(number)) => Some(number),
        Some(IoctlArgument::Name(name)) => constant::number(&name),
        None => None,
    };
    match value {
        Some(RCVALL_ON) => Ok(true),
        Some(RCVALL_OFF) => Ok(false),
        Some(_) | None => Err(OpError::value("SIO_RCVALL takes RCVALL_ON or RCVALL_OFF")),
    }
}

fn is(control: Constant, request: libc::Ioctl) -> bool {
    u64::try_from(control.0).is_ok_and(|number| number == request)
}

/// `SIOCINQ` is `FIONREAD`.
fn int_request(control: Constant) -> Option<IntRequest> {
    let table = [
        (libc::FIONREAD, IntRequest::Fionread),
        (libc::TIOCOUTQ, IntRequest::Siocoutq),
        (SIOCATMARK, IntRequest::Siocatmark),
    ];
    table.into_iter().find(|(number, _)| is(control, *number)).map(|(_, request)| request)
}

fn interface_request(control: Constant) -> Option<InterfaceRequest> {
    let table = [
        (libc::SIOCGIFINDEX, InterfaceRequest::Index),
        (libc::SIOCGIFFLAGS, InterfaceRequest::Flags),
        (libc::SIOCGIFMTU, InterfaceRequest::Mtu),
        (libc::SIOCGIFADDR, InterfaceRequest::Address),
        (libc::SIOCGIFNETMASK, InterfaceRequest::Netmask),
        (libc::SIOCGIFBRDADDR, InterfaceRequest::Broadcast),
        (libc::SIOCGIFHWADDR, InterfaceRequest::Hardware),
    ];
    table.into_iter().find(|(number, _)| is(control, *number)).map(|(_, request)| request)
}
