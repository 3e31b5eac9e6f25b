//! Compiles the filter expression of the command line.

use sockbroker_filter::{Compiler, FilterError, LinkLayer, Program};

use super::link::LinkHeader;
use crate::failure::{Exit, Failure};

/// Compiles an expression for the packets of an interface. Can wait for a name server.
pub(super) fn compile(
    expression: &str,
    interface: &str,
    link: LinkHeader,
) -> Result<Program, Failure> {
    match link {
        LinkHeader::Ethernet => Compiler::new()
            .and_then(|compiler| compiler.compile(expression, LinkLayer::Ethernet))
            .map_err(|error| failed(&error)),
        // A program for a file would read the cooked header, which the packets of the socket do not have.
        LinkHeader::Cooked => Err(Failure::usage(format!(
            "cannot filter packets of {interface}: filter expressions require an Ethernet or loopback interface; \
             use --write FILE, and filter the file: tcpdump -r FILE EXPRESSION"
        ))),
    }
}

fn failed(error: &FilterError) -> Failure {
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
