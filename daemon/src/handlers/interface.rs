//! `proto::api::interface`: interfaces and the name of the host.

use jsonrpsee::Extensions;
use jsonrpsee::core::{RpcResult, async_trait};
use sockbroker_proto::api::interface::InterfacesServer;

use crate::error::OpError;
use crate::handlers::Handlers;
use crate::network::interface;
use crate::rpc::call::Call;
use sockbroker_policy::action::{Hostname, Interfaces, SetHostname};

#[async_trait]
impl InterfacesServer for Handlers {
    fn if_nameindex(&self, ext: &Extensions) -> RpcResult<Vec<(u32, String)>> {
        Ok(interface::list(Call::of(ext)?.permit(Interfaces)?)?)
    }

    fn if_nametoindex(&self, ext: &Extensions, if_name: String) -> RpcResult<u32> {
        Ok(interface::index_of(Call::of(ext)?.permit(Interfaces)?, &if_name)?)
    }

    fn if_indextoname(&self, ext: &Extensions, if_index: i64) -> RpcResult<String> {
        let index = u32::try_from(if_index)
            .map_err(|_error| OpError::overflow("the interface index must be 0-4294967295"))?;
        Ok(interface::name_of(Call::of(ext)?.permit(Interfaces)?, index)?)
    }

    fn gethostname(&self, ext: &Extensions) -> RpcResult<String> {
        Ok(interface::hostname(Call::of(ext)?.permit(Hostname)?)?)
    }

    fn sethostname(&self, ext: &Extensions, name: String) -> RpcResult<()> {
        Ok(interface::set_hostname(Call::of(ext)?.permit(SetHostname { name })?)?)
    }
}
