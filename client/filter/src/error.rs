//! Why an expression is not compiled.

use std::io;

use sockbroker_bpf::{CheckError, VlanError};

/// The maximum length of an expression in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 64 << 10;

/// An expression that is not compiled.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Neither libpcap nor tcpdump is installed.
    #[error(
        "cannot compile filter expressions: neither libpcap nor tcpdump is installed; install libpcap \
         (package libpcap0.8 or libpcap) or tcpdump"
    )]
    NoCompiler,
    /// The expression is longer than the limit.
    #[error("the filter expression has {bytes} bytes, the limit is {MAX_EXPRESSION_BYTES}")]
    TooLong {
        /// The length of the expression.
        bytes: usize,
    },
    /// The expression contains a null byte.
    #[error("the filter expression contains a null byte")]
    NullByte,
    /// libpcap refuses the expression.
    #[error("cannot compile the filter {expression:?}: {message}")]
    Refused {
        /// The expression.
        expression: String,
        /// The message of libpcap.
        message: String,
    },
    /// The kernel would refuse the program.
    #[error("the kernel cannot run the filter {expression:?}: {error}")]
    Kernel {
        /// The expression.
        expression: String,
        /// What it would refuse.
        #[source]
        error: CheckError,
    },
    /// The expression cannot be adapted to how the kernel keeps VLAN tags.
    #[error("cannot use the filter {expression:?} on VLAN tags: {error}")]
    Vlan {
        /// The expression.
        expression: String,
        /// The instruction that cannot be adapted.
        #[source]
        error: VlanError,
    },
    /// tcpdump cannot be run.
    #[error("cannot run tcpdump: {0}")]
    Run(#[source] io::Error),
    /// tcpdump has printed something other than a program.
    #[error("tcpdump -ddd printed {line:?}, which is not a part of a program")]
    Output {
        /// The line.
        line: String,
    },
}
