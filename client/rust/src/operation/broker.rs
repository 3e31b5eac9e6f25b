//! The session and the broker itself.

use std::collections::BTreeMap;
use std::time::Duration;

use sockbroker_proto::api::broker::BrokerInfo;
use sockbroker_proto::api::session::{Constants, LimitInfo, SessionInfo};

use super::call::{Call, Operation, json};
use super::socket::duration;
use crate::error::Result;
use crate::wire::response::Response;

pub(crate) fn session() -> impl Operation<Output = SessionInfo> {
    Call::new("session.info", (), json)
}

pub(crate) fn broker_info() -> impl Operation<Output = BrokerInfo> {
    Call::new("broker.info", (), json)
}

pub(crate) fn limits() -> impl Operation<Output = BTreeMap<String, LimitInfo>> {
    Call::new("session.limits", (), json)
}

pub(crate) fn constants() -> impl Operation<Output = BTreeMap<String, i64>> {
    fn read(response: &mut Response<'_>) -> Result<BTreeMap<String, i64>> {
        Ok(response.value::<Constants>()?.constants)
    }
    Call::new("socket.constants", (), read)
}

pub(crate) fn default_timeout() -> impl Operation<Output = Option<Duration>> {
    Call::new("socket.getdefaulttimeout", (), duration)
}

pub(crate) fn set_default_timeout(timeout: Option<Duration>) -> impl Operation<Output = ()> {
    let seconds = timeout.as_ref().map(Duration::as_secs_f64);
    Call::new("socket.setdefaulttimeout", (seconds,), json)
}
