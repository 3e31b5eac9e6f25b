//! Addresses between JSON and the kernel: read with the look-ups they need, and spelt.

use sockbroker_proto::address::{Address, AddressValue, Parsed, SocketKind};
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::resolver::AddressInfo;

use super::call::Call;
use crate::ops::error::{OpError, OpResult};
use crate::ops::interface::name_in_address;
use crate::ops::resolve::{self, Question};
use crate::policy::action::{Interfaces, Resolve, SocketFacts};

impl Call {
    /// Reads an address for a kind of socket, asking resolver or interface table where it must.
    /// Without a name there is no await, so a call keeps its place among its neighbours.
    pub(super) async fn address(
        &self,
        facts: SocketFacts,
        value: &AddressValue,
    ) -> OpResult<Address> {
        let kind = SocketKind { family: facts.family, proto: facts.proto };
        match value.read(kind)? {
            Parsed::Address(Address::Opaque { family, data }) => known(facts, family, data),
            Parsed::Address(address) => Ok(address),
            Parsed::Interface(address) => {
                resolve::interface_address(self.permit(Interfaces)?, address)
            }
            Parsed::Host(host) => {
                let permit = self.permit(Resolve)?;
                let name = host.host.clone();
                let address = self.resolver().address(permit, host).await?;
                self.session().looked_up(&name, [address.clone()]);
                Ok(address)
            }
        }
    }

    /// `getaddrinfo(3)`; the session remembers what a name led to.
    pub(super) async fn look_up(&self, question: Question) -> OpResult<Vec<AddressInfo>> {
        let host = question.host.clone().unwrap_or_default();
        let permit = self.permit(Resolve)?;
        let found = self.resolver().address_info(permit, question).await?;
        let addresses = found.iter().filter_map(|info| info.address.decode(info.proto));
        self.session().looked_up(&host, addresses);
        Ok(found)
    }
}

/// An opaque address in the form that the policy can judge, if the broker knows its family. It must be
/// of the socket's own family: some protocols ignore what the address says of itself.
fn known(facts: SocketFacts, family: u16, data: Vec<u8>) -> OpResult<Address> {
    if i32::from(family) != facts.family {
        let text = format!("an address of family {family} on a socket of family {}", facts.family);
        return Err(OpError::value(text));
    }
    let raw = RawAddress::encode(&Address::Opaque { family, data });
    raw.decode(facts.proto).ok_or_else(|| OpError::value("an empty address"))
}

/// An address for a result; `None` where the kernel gave none.
pub(super) fn spell(address: Option<&Address>) -> AddressValue {
    address.map_or(AddressValue::None(()), |address| address.to_value(&name_in_address))
}
