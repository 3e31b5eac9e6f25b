//! `proto::api::option`: socket options, timeouts, filters and `ioctl`.

use sockbroker_proto::api::option::{
    AttachFilterParams, DetachFilterParams, GetInheritableParams, GetblockingParams,
    GetdefaulttimeoutParams, GetsockoptParams, GettimeoutParams, IoctlArgument, IoctlParams,
    OptionsServer, SetInheritableParams, SetblockingParams, SetdefaulttimeoutParams,
    SetsockoptParams, SettimeoutParams,
};
use sockbroker_proto::api::values::OptionValue;
use sockbroker_proto::constant::{self, Constant};
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::parameters::{c_int, int};
use crate::ops::option;
use crate::ops::rcvall;
use crate::rpc::call::Call;
use crate::table::permitted::Permitted;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{
    GetOption, InterfaceIoctl, Ioctl, OptionValue as KernelValue, SetFilter, SetOption,
};

/// The largest buffer of `getsockopt`, as in CPython.
const MAX_OPTION_BYTES: i64 = 1024;
const SIO_RCVALL: i64 = 0x9800_0001;
const RCVALL_OFF: i64 = 0;
const RCVALL_ON: i64 = 1;

impl OptionsServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn getsockopt(call: &Call, params: GetsockoptParams) -> OpResult<OptionValue> {
        let GetsockoptParams { handle, level, optname, buflen } = params;
        let entry = call.entry(handle)?;
        let (level, name) = (int(level)?, int(optname)?);
        let length = i64::from(c_int(buflen.unwrap_or(0))?);
        if !(0..=MAX_OPTION_BYTES).contains(&length) {
            return Err(OpError::Plain("getsockopt buflen out of range".to_owned()));
        }
        let length = u32::try_from(length).unwrap_or_default();
        let request = |socket| GetOption { socket, level, name, length };
        Ok(encode(call, option::get(&call.authorize(&entry, request)?)?))
    }

    async fn setsockopt(call: Call, params: SetsockoptParams) -> OpResult<()> {
        let SetsockoptParams { handle, level, optname, value, optlen } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (level, name) = (int(level)?, int(optname)?);
        let value = read(&call, value, optlen)?;
        let permitted = call.permit_set_option(&entry, level, name, value)?;
        ticket.acquire().await;
        let done = set(&call, &permitted).await;
        call.session().save(handle)?;
        done
    }

    fn settimeout(call: &Call, params: SettimeoutParams) -> OpResult<()> {
        let SettimeoutParams { handle, value } = params;
        let entry = call.entry(handle)?;
        let timeout = Timeout::from_seconds(value.0).map_err(OpError::from)?;
        option::set_timeout(&call.inspect(&entry)?, timeout)?;
        call.session().save(handle)
    }

    fn gettimeout(call: &Call, params: GettimeoutParams) -> OpResult<Option<f64>> {
        let GettimeoutParams { handle } = params;
        Ok(call.entry(handle)?.timeout().seconds())
    }

    fn setblocking(call: &Call, params: SetblockingParams) -> OpResult<()> {
        let SetblockingParams { handle, flag } = params;
        let entry = call.entry(handle)?;
        let timeout = if flag { Timeout::Blocking } else { Timeout::NonBlocking };
        option::set_timeout(&call.inspect(&entry)?, timeout)?;
        call.session().save(handle)
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
        call.session().save(handle)
    }

    fn getdefaulttimeout(call: &Call, _: GetdefaulttimeoutParams) -> OpResult<Option<f64>> {
        Ok(call.session().default_timeout.get().seconds())
    }

    fn setdefaulttimeout(call: &Call, params: SetdefaulttimeoutParams) -> OpResult<()> {
        let SetdefaulttimeoutParams { timeout } = params;
        let timeout = Timeout::from_seconds(timeout.0).map_err(OpError::from)?;
        call.session().default_timeout.set(timeout);
        call.session().save_state()
    }

    async fn ioctl(call: Call, params: IoctlParams) -> OpResult<Option<OptionValue>> {
        let IoctlParams { handle, control, option } = params;
        let done = run_ioctl(&call, handle, control, option).await;
        call.session().save(handle)?;
        done
    }

    async fn attach_filter(call: Call, params: AttachFilterParams) -> OpResult<()> {
        let AttachFilterParams { handle, program } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let program = Some(call.bytes(program)?.to_vec());
        let permitted = call.authorize(&entry, |socket| SetFilter { socket, program })?;
        ticket.acquire().await;
        option::set_filter(&permitted)
    }

    async fn detach_filter(call: Call, params: DetachFilterParams) -> OpResult<()> {
        let DetachFilterParams { handle } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let permitted = call.authorize(&entry, |socket| SetFilter { socket, program: None })?;
        ticket.acquire().await;
        option::set_filter(&permitted)
    }
}

fn encode(call: &Call, value: KernelValue) -> OptionValue {
    match value {
        KernelValue::Int(value) => OptionValue::Int(value),
        KernelValue::Bytes(bytes) => OptionValue::Bytes(call.encode_bytes(bytes)),
        KernelValue::Null(_) => OptionValue::Int(0),
    }
}

pub(super) fn read(
    call: &Call,
    value: Option<OptionValue>,
    optlen: Option<i64>,
) -> OpResult<KernelValue> {
    match (value, optlen) {
        (Some(OptionValue::Int(value)), None) => Ok(KernelValue::Int(value)),
        (Some(OptionValue::Bytes(bytes)), None) => {
            Ok(KernelValue::Bytes(call.bytes(bytes)?.to_vec()))
        }
        (None, Some(length)) => {
            let length = u32::try_from(length)
                .map_err(|_error| OpError::overflow("optlen does not fit into unsigned int"))?;
            Ok(KernelValue::Null(length))
        }
        (Some(_), Some(_)) => Err(OpError::type_error("optlen is valid only with a null value")),
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
    if control.0 == SIO_RCVALL {
        let ticket = entry.sending.join(call.connection().number());
        let permitted = call.permit_capture(&entry, switch(argument)?)?;
        ticket.acquire().await;
        rcvall::receive_all(&permitted)?;
        return Ok(None);
    }
    let request = u64::try_from(control.0).unwrap_or_default();
    if option::int_request(request).is_some() {
        let permitted = call.authorize(&entry, |socket| Ioctl { socket, request })?;
        return Ok(Some(OptionValue::Int(option::ioctl(&permitted)?.into())));
    }
    if option::interface_request(request).is_some() {
        let Some(IoctlArgument::Name(name)) = argument else {
            return Err(OpError::type_error("this request takes an interface name"));
        };
        let permitted = call.authorize(&entry, |_socket| InterfaceIoctl { request, name })?;
        return Ok(Some(encode(call, option::ioctl_interface(&permitted)?)));
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

/// Sets an option, after claiming what the principal must not share with others. `EADDRINUSE` if another has it.
pub(super) async fn set(call: &Call, permitted: &Permitted<SetOption>) -> OpResult<()> {
    let claimed = match option::claim(permitted) {
        Some(claim) => Some(call.claim(claim, "setsockopt").await?),
        None => None,
    };
    let lease = match option::memory_growth(permitted) {
        0 => None,
        more => call.broker().lease_kernel_memory(more).await?,
    };
    option::set(permitted, claimed, call.caller())?;
    drop(lease);
    if let Some(claim) = option::chosen_group(permitted)? {
        option::note_group(permitted, call.claim(claim, "setsockopt").await?);
    }
    Ok(())
}
