//! The options that every subcommand shares.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use clap::Args;

use crate::failure::Failure;

/// What every subcommand takes, unless it has no use for it.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The broker: unix:PATH, stdio:COMMAND, or what else the environment variable SOCKBROKER takes.
    ///
    /// Without it: SOCKBROKER, else the user's socket, else the system's.
    #[arg(long, global = true, value_name = "ENDPOINT", conflicts_with = "private")]
    pub(crate) broker: Option<String>,

    /// Start a broker for this command alone. It can do what you can do.
    #[arg(long, global = true)]
    pub(crate) private: bool,

    /// Work in the session of this token, which session.open gave. Without it: SOCKBROKER_SESSION,
    /// else a session that ends with the command.
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) session: Option<String>,

    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// Fails where one of them is given to a subcommand that has no use for it.
    pub(crate) fn refuse(&self, subcommand: &str) -> Result<(), Failure> {
        let Self { broker, private, session, json } = self;
        if broker.is_none() && !private && session.is_none() && !json {
            return Ok(());
        }
        let options = "--broker, --private, --session and --json";
        Err(Failure::usage(format!("{subcommand} takes none of {options}")))
    }
}
