//! Compiles the filter expression of the command line.

use sockbroker_filter::{Compiler, FilterError, LinkLayer};
use sockbroker_pcapng::LinkType;
use sockbroker_proto::api::capture::CaptureInterface;

use crate::failure::{Exit, Failure};

/// A filter expression, and its program for interfaces of every kind.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) expression: String,
    /// As `SO_ATTACH_FILTER` takes it.
    pub(crate) program: Vec<u8>,
    compiler: Compiler,
}

impl Filter {
    /// Compiles an expression. Can wait for a name server.
    pub(crate) fn compile(expression: String) -> Result<Self, Failure> {
        let compiler = Compiler::new().map_err(|error| failed(&error))?;
        let program = compiler.compile_for_any(&expression).map_err(|error| failed(&error))?;
        Ok(Self { expression, program: program.encode(), compiler })
    }

    /// Fails if the expression cannot select packets of an interface that the command line names.
    pub(crate) fn check(&self, interface: &CaptureInterface) -> Result<(), Failure> {
        let CaptureInterface { name, link_type, .. } = interface;
        match LinkType(*link_type) {
            LinkType::ETHERNET => Ok(()),
            LinkType::RAW => {
                let compiled = self.compiler.compile(&self.expression, LinkLayer::RawIp);
                compiled.map(drop).map_err(|error| failed(&error))
            }
            LinkType(number) => Err(Failure::usage(format!(
                "cannot filter packets of {name}, which have the link type {number}: filter expressions require an \
                 interface of Ethernet, loopback or IP; use --write FILE, and filter the file: \
                 tcpdump -r FILE EXPRESSION"
            ))),
        }
    }
}

/// The failure of compiling an expression.
pub(super) fn failed(error: &FilterError) -> Failure {
    let exit = match error {
        FilterError::TooLong { .. }
        | FilterError::NullByte
        | FilterError::Refused { .. }
        | FilterError::Kernel { .. }
        | FilterError::Vlan { .. } => Exit::Usage,
        FilterError::NoCompiler | FilterError::Run(_) | FilterError::Output { .. } => Exit::System,
    };
    Failure::new(exit, error.to_string())
}
