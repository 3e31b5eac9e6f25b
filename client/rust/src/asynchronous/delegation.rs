//! Sockets that this process keeps itself, with the broker for what the kernel refuses.

use std::os::fd::{AsFd, OwnedFd};

use sockbroker_proto::api::delegation::Program;

use super::broker::Broker;
use crate::address::Address;
use crate::constant::{Domain, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation;
use crate::option::{OptionType, RawValue, SocketOption};

impl Broker {
    /// Creates a socket that belongs to this process alone: the broker passes the descriptor and keeps no
    /// handle. `program` is for the audit, if this process acts for another one.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant the socket or its descriptor, [`Error::Descriptor`] if
    /// the connection cannot carry descriptors.
    pub async fn delegate(
        &self,
        domain: Domain,
        ty: Type,
        protocol: Protocol,
        program: Option<Program>,
    ) -> Result<OwnedFd> {
        self.run(operation::delegate(domain, ty, protocol, program, None)).await
    }

    /// Binds a socket of this process, such as to a port that the kernel refuses to it. The broker keeps no
    /// copy of the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], or the error of the kernel.
    pub async fn apply_bind(
        &self,
        socket: impl AsFd,
        address: impl Into<Address>,
        program: Option<Program>,
    ) -> Result<()> {
        let socket = [socket.as_fd()];
        let encoding = self.payload_encoding();
        self.run(operation::apply_bind(&socket, address.into(), encoding, program)).await
    }

    /// Sets an option of a socket of this process.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], or the error of the kernel.
    pub async fn apply_option<T: OptionType>(
        &self,
        socket: impl AsFd,
        option: SocketOption<T>,
        value: T,
        program: Option<Program>,
    ) -> Result<()> {
        let place = (option.level(), option.number());
        self.apply_option_raw(socket, place, value.into_raw(), program).await
    }

    /// Sets an option of a socket of this process, by level and number.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], or the error of the kernel.
    pub async fn apply_option_raw(
        &self,
        socket: impl AsFd,
        place: (i32, i32),
        value: RawValue,
        program: Option<Program>,
    ) -> Result<()> {
        let socket = [socket.as_fd()];
        self.run(operation::apply_option(&socket, place, value, program)).await
    }
}
