//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Owns network sockets and lends them to programs that hold no privileges.
///
/// Serves Python's socket module as JSON-RPC 2.0 on a Unix socket: LSP framing, newline-delimited
/// JSON, HTTP and WebSocket on the same path.
#[derive(Debug, Clone, Parser)]
#[command(name = "sockbrokerd", version, about, long_about)]
pub struct Args {
    /// The Unix socket to serve, made with mode 0660. Without it, what the configuration says; else
    /// /run/sockbroker/socket for root, and sockbroker.socket in the runtime directory for others.
    #[arg(long, value_name = "PATH", conflicts_with = "stdio")]
    pub socket: Option<PathBuf>,

    /// Serve one client on standard input and output with LSP framing, and end with it.
    #[arg(long)]
    pub stdio: bool,

    /// The configuration file (TOML). Without it the credential sockbrokerd.toml, else
    /// /etc/sockbroker/sockbrokerd.toml; without them the defaults hold.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The policy file (TOML). Without it the credential policy.toml, else
    /// /etc/sockbroker/policy.toml. Files of the folder beside it, policy.d for policy.toml, are read
    /// after it; see sockbroker-policy(5).
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Read no policy file: root and the broker's own user may do everything, nobody else anything;
    /// and no configuration but that of --config. For a broker of one's own, which the host's files are
    /// not about.
    #[arg(long, conflicts_with = "policy")]
    pub built_in_policy: bool,

    /// Check configuration and policy, and end: exit code 0 if both can be used, 78 if not.
    #[arg(long)]
    pub check: bool,
}
