//! `proto::api::interface`: network interfaces and the host name.

use sockbroker_proto::api::interface::{
    GethostnameParams, IfIndextonameParams, IfNameindexParams, IfNametoindexParams,
    InterfacesServer, SethostnameParams,
};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::network::{host, interface};
use crate::rpc::call::Call;
use sockbroker_policy::action::{Hostname, Interfaces, SetHostname};

impl InterfacesServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn if_nameindex(call: &Call, params: IfNameindexParams) -> OpResult<Vec<(u32, String)>> {
        let IfNameindexParams { netns } = params;
        let selection = call.selection(netns.as_ref())?;
        let permit = call.permit_within(&selection.namespace, Interfaces)?;
        interface::list(permit, &selection, call.caller())
    }

    fn if_nametoindex(call: &Call, params: IfNametoindexParams) -> OpResult<u32> {
        let IfNametoindexParams { if_name, netns } = params;
        let selection = call.selection(netns.as_ref())?;
        let permit = call.permit_within(&selection.namespace, Interfaces)?;
        interface::index_of(permit, &selection, &if_name, call.caller())
    }

    fn if_indextoname(call: &Call, params: IfIndextonameParams) -> OpResult<String> {
        let IfIndextonameParams { if_index, netns } = params;
        let index = u32::try_from(if_index)
            .map_err(|_error| OpError::overflow("the interface index must be 0-4294967295"))?;
        let selection = call.selection(netns.as_ref())?;
        let permit = call.permit_within(&selection.namespace, Interfaces)?;
        interface::name_of(permit, &selection, index, call.caller())
    }

    fn gethostname(call: &Call, _: GethostnameParams) -> OpResult<String> {
        host::hostname(call.permit(Hostname)?)
    }

    fn sethostname(call: &Call, params: SethostnameParams) -> OpResult<()> {
        let SethostnameParams { name } = params;
        host::set_hostname(call.permit(SetHostname { name })?, call.caller())
    }
}
