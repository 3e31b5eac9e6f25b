//! `proto::api::broker`: the broker itself.

use jsonrpsee::Extensions;
use jsonrpsee::core::{RpcResult, async_trait};
use sockbroker_proto::PROTOCOL_VERSION;
use sockbroker_proto::api::broker::{BrokerInfo, BrokerServer, PolicyInfo};

use crate::handlers::Handlers;
use crate::rpc::call::Call;

#[async_trait]
impl BrokerServer for Handlers {
    fn info(&self, ext: &Extensions) -> RpcResult<BrokerInfo> {
        let broker = Call::of(ext)?.broker();
        let (policy, generation) = broker.policy.current();
        Ok(BrokerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            process: broker.process.clone(),
            policy: PolicyInfo {
                generation,
                files: policy.files().to_vec(),
                rules: policy.rules().len() as u64,
            },
        })
    }
}
