//! `proto::api::interface`: network interfaces and the host name.

use sockbroker_proto::api::interface::{
    GethostnameParams, IfIndextonameParams, IfNameindexParams, IfNametoindexParams,
    InterfacesServer, SethostnameParams,
};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::network::host;
use crate::rpc::call::Call;
use sockbroker_policy::action::{Hostname, Interfaces, SetHostname};

impl InterfacesServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn if_nameindex(call: &Call, _: IfNameindexParams) -> OpResult<Vec<(u32, String)>> {
        call.broker().network.interfaces(call.permit(Interfaces)?)
    }

    fn if_nametoindex(call: &Call, params: IfNametoindexParams) -> OpResult<u32> {
        let IfNametoindexParams { if_name } = params;
        call.broker().network.interface_index(call.permit(Interfaces)?, &if_name)
    }

    fn if_indextoname(call: &Call, params: IfIndextonameParams) -> OpResult<String> {
        let IfIndextonameParams { if_index } = params;
        let index = u32::try_from(if_index)
            .map_err(|_error| OpError::overflow("the interface index must be 0-4294967295"))?;
        call.broker().network.interface_name(call.permit(Interfaces)?, index)
    }

    fn gethostname(call: &Call, _: GethostnameParams) -> OpResult<String> {
        host::hostname(call.permit(Hostname)?)
    }

    fn sethostname(call: &Call, params: SethostnameParams) -> OpResult<()> {
        let SethostnameParams { name } = params;
        host::set_hostname(call.permit(SetHostname { name })?, call.caller())
    }
}
