//! The options that every subcommand shares.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use clap::Args;

use crate::failure::Failure;

/// The options of every subcommand. A subcommand that cannot use one refuses it.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The broker to use: unix:PATH, ssh://USER@HOST:PORT/PATH (only HOST is needed), tls://HOST:PORT, stdio:COMMAND,
    /// ws+unix:PATH or http+unix:PATH, as in SOCKBROKER.
    ///
    /// Default: the value of SOCKBROKER, else the user's socket, else the system's socket.
    #[arg(long, global = true, value_name = "ENDPOINT", conflicts_with = "private")]
    pub(crate) broker: Option<String>,

    /// Start a broker for this command alone. It has your privileges.
    #[arg(long, global = true)]
    pub(crate) private: bool,

    /// Use the session with this token, which session.open returned. Default: the value of
    /// SOCKBROKER_SESSION, else a new session that ends with the command.
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) session: Option<String>,

    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// Fails if any of these options is set: `subcommand` uses none of them.
    pub(crate) fn refuse(&self, subcommand: &str) -> Result<(), Failure> {
        let Self { broker, private, session, json } = self;
        if broker.is_none() && !private && session.is_none() && !json {
            return Ok(());
        }
        let options = "--broker, --private, --session or --json";
        Err(Failure::usage(format!("{subcommand} does not accept {options}")))
    }
}
