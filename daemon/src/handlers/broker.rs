//! `proto::api::broker`: versions, the process and the policy of the broker.

use sockbroker_proto::PROTOCOL_VERSION;
use sockbroker_proto::api::broker::{BrokerInfo, BrokerServer, InfoParams, PolicyInfo};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::rpc::call::Call;

impl BrokerServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn info(call: &Call, _: InfoParams) -> OpResult<BrokerInfo> {
        let broker = call.broker();
        let (policy, generation) = broker.policy.current();
        Ok(BrokerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            process: broker.process.clone(),
            opener: broker.opener.as_ref().map(|(_, process)| process.clone()),
            policy: PolicyInfo {
                generation,
                files: policy.files().to_vec(),
                rules: policy.rules().len() as u64,
            },
        })
    }
}
