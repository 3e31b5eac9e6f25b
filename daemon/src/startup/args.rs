//! The command line.

use std::path::PathBuf;

use clap::Parser;

use sockbroker_monitor::role::Role;

use crate::config::Mode;

/// Owns network sockets and lends them to programs that hold no privileges.
///
/// Serves Python's socket module as JSON-RPC 2.0 on a Unix socket: LSP framing, newline-delimited
/// JSON, HTTP and WebSocket on the same path.
#[derive(Debug, Clone, Parser)]
#[command(name = "sockbrokerd", version, about, long_about)]
pub struct Args {
    /// The Unix socket to serve. Without it, what the configuration says; else
    /// /run/sockbroker/socket for root, and sockbroker.socket in the runtime directory for others.
    #[arg(long, value_name = "PATH", conflicts_with = "stdio")]
    pub socket: Option<PathBuf>,

    /// The group of the socket, a name or a number: its members may connect. Without it what the
    /// configuration says, else the broker's own group.
    #[arg(long, value_name = "GROUP", conflicts_with = "stdio")]
    pub socket_group: Option<String>,

    /// The mode of the socket in octal digits. Without it what the configuration says, else 0660: owner
    /// and group.
    #[arg(long, value_name = "MODE", conflicts_with = "stdio")]
    pub socket_mode: Option<Mode>,

    /// Serve one client on standard input and output, and exit when it disconnects. The first byte selects LSP framing
    /// or newline-delimited JSON.
    #[arg(long)]
    pub stdio: bool,

    /// The configuration file (TOML). Without it the credential sockbrokerd.toml, else
    /// /etc/sockbroker/sockbrokerd.toml; without them the defaults hold.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The policy file (TOML). Without it the credential policy.toml, else
    /// /etc/sockbroker/policy.toml. Files of its drop-in folder, policy.d for policy.toml, are read
    /// after it; see sockbroker-policy(5).
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Read no policy file: root and the broker's own user may do everything, nobody else anything;
    /// and no configuration but that of --config. For a broker of a single user, to which the
    /// host's files do not apply.
    #[arg(long, conflicts_with = "policy")]
    pub built_in_policy: bool,

    /// The role of this process, if the broker started it.
    #[arg(long, hide = true, value_parser = parse_role)]
    pub role: Option<Role>,

    /// The process that started this one.
    #[arg(long, hide = true, requires = "role")]
    pub parent: Option<u32>,

    /// A file of the gateway's credentials: its kind and its path.
    #[arg(long, hide = true, num_args = 2, value_names = ["KIND", "PATH"], requires = "role")]
    pub remote_file: Vec<PathBuf>,

    /// Check configuration and policy, and exit: with 0 if both can be used, with 78 if not.
    #[arg(long)]
    pub check: bool,
}

fn parse_role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| format!("there is no role {word:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    const PAGE: &str = include_str!("../../../deploy/man/sockbrokerd.8");
    const README: &str = include_str!("../../../README.md");

    /// Every option with the name of its value, if it takes one: `--socket path`, `--stdio`.
    fn options() -> BTreeSet<String> {
        let mut command = Args::command();
        command.build();
        let text = |option: &clap::Arg| {
            let name = format!("--{}", option.get_long().unwrap());
            match option.get_value_names() {
                Some([value]) if option.get_action().takes_values() => {
                    format!("{name} {}", value.to_lowercase())
                }
                _ => name,
            }
        };
        command.get_arguments().filter(|option| !option.is_hide_set()).map(text).collect()
    }

    /// `Fl Fl socket Ar path | Fl Fl stdio` as options.
    fn in_page(line: &str) -> Vec<String> {
        let text = |part: &str| {
            let mut words = part.split(' ');
            let name = words.next().unwrap_or_default();
            match (words.next(), words.next()) {
                (Some("Ar"), Some(value)) => format!("--{name} {value}"),
                _ => format!("--{name}"),
            }
        };
        line.split("Fl Fl ").skip(1).map(text).collect()
    }

    #[test]
    fn the_page_has_every_option_and_no_other() {
        let items = PAGE.lines().filter_map(|line| line.strip_prefix(".It Fl"));
        let found: Vec<_> = items.flat_map(|item| in_page(&format!("Fl{item}"))).collect();
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), options());
        assert_eq!(found.len(), options().len(), "an option is there twice: {found:?}");
        let (_, rest) = PAGE.split_once(".Sh SYNOPSIS\n").unwrap();
        let (synopsis, _) = rest.split_once(".Sh ").unwrap();
        let mut brief: BTreeSet<_> = synopsis.lines().flat_map(in_page).collect();
        brief.extend(["--help".to_owned(), "--version".to_owned()]);
        assert_eq!(brief, options());
    }

    #[test]
    fn the_readme_has_every_option_and_no_other() {
        let (_, rest) = README.split_once("## Flags of sockbrokerd\n").unwrap();
        let (table, _) = rest.split_once("\n\nA path that exists").unwrap();
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `--")?.split_once(" | "));
        let found = cells.flat_map(|(cell, _)| {
            let flags = cell.split(", `--").map(|flag| flag.trim_end_matches('`').to_lowercase());
            flags.map(|flag| format!("--{flag}")).collect::<Vec<_>>()
        });
        assert_eq!(found.collect::<BTreeSet<_>>(), options());
    }
}
