//! The options that every subcommand shares.

#![expect(clippy::doc_markdown, reason = "these comments are the help on the terminal")]

use clap::Args;
use sockbroker_client::Config;

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

    /// Let the sockets of this command outlive a restart, an upgrade and a crash of the broker, and wait for its return.
    ///
    /// The policy must grant persist. A capture of sniff continues too: each packet is recorded once, or counted as dropped. A
    /// capture from a broker on another machine ends with the process that serves it.
    #[arg(long, global = true, conflicts_with_all = ["private", "session"])]
    pub(crate) persist: bool,

    /// How long calls wait for the broker to return, with --persist. Default: 30.
    #[arg(long, global = true, value_name = "SECONDS", requires = "persist")]
    pub(crate) reconnect_seconds: Option<u32>,

    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// The options of the connection to the broker.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new().persist(self.persist);
        self.reconnect_seconds.map_or(config, |seconds| config.reconnect_seconds(seconds))
    }

    /// Fails if any of these options is set: `subcommand` uses none of them.
    pub(crate) fn refuse(&self, subcommand: &str) -> Result<(), Failure> {
        let Self { broker, private, session, persist, reconnect_seconds: _, json } = self;
        if broker.is_none() && !private && session.is_none() && !persist && !json {
            return Ok(());
        }
        let options = "--broker, --private, --session, --persist or --json";
        Err(Failure::usage(format!("{subcommand} does not accept {options}")))
    }
}
