//! `sockbroker token`: tokens for clients on other machines.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueHint};
use sha2::{Digest as _, Sha256};
use sockbroker_gateway::tokens;

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, report};

/// What every token begins with.
const PREFIX: &str = "sbk_";
/// The random bytes of a token.
const SECRET: usize = 32;

/// The subcommands of `sockbroker token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    New(NewArgs),
}

/// Create a token, print it once, and add its hash to the file of tokens.
///
/// The file has the SHA-256 of the token, and not the token. A client sends it as `Authorization: Bearer TOKEN`;
/// clients of this project read it from ~/.config/sockbroker/HOST/token. Reload the broker afterwards.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sockbroker token new ci-7 --expires 2027-03-01 --network 10.1.0.0/16
  sockbroker token new ci-8 --rule capture --file tokens.toml")]
pub(crate) struct NewArgs {
    /// The name by which rules select the client.
    name: String,

    /// The day on which the token expires (UTC). Default: never.
    #[arg(long, value_name = "YYYY-MM-DD")]
    expires: Option<String>,

    /// A network from which the token can be used; can be repeated. Default: all.
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,

    /// A rule of the policy that can grant something to the client; can be repeated. Default: all.
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,

    /// The file of tokens.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          default_value = "/etc/sockbroker/tokens.toml")]
    file: PathBuf,
}

pub(crate) fn run(global: &Global, command: &TokenCommand) -> Result<Exit, Failure> {
    global.refuse("token")?;
    let TokenCommand::New(args) = command;
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::new(Exit::System, format!("cannot make a token: {error}")))?;
    let token = PREFIX.to_owned() + &base64_simd::URL_SAFE_NO_PAD.encode_to_string(secret);
    add(args, &entry(args, &token)?)?;
    Screen::new().line(&token)?;
    report(&format!(
        "its hash is in {}: reload the broker, and keep the token: it is not stored",
        args.file.display()
    ));
    Ok(Exit::Done)
}

/// The entry of the file.
fn entry(args: &NewArgs, token: &str) -> Result<String, Failure> {
    let is_plain = |text: &str| {
        !text.is_empty()
            && !text
                .chars()
                .any(|one| one.is_whitespace() || one.is_control() || "\"\\".contains(one))
    };
    let texts = [&args.networks, &args.rules].into_iter().flatten().map(String::as_str);
    let given = texts.chain([args.name.as_str()]).chain(args.expires.as_deref());
    for text in given {
        if !is_plain(text) {
            let text =
                format!("cannot use {text:?}: it is empty, or has blanks, quotes or backslashes");
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    let mut hash = String::new();
    for byte in Sha256::digest(token) {
        // Writing to a string does not fail.
        write!(hash, "{byte:02x}").ok();
    }
    let mut text = format!("[[token]]\n{}\nsha256 = \"{hash}\"\n", name_line(&args.name));
    if let Some(expires) = &args.expires {
        if !is_date(expires) {
            let text = format!("cannot use the day {expires:?}: write it like 2027-03-01");
            return Err(Failure::new(Exit::Usage, text));
        }
        writeln!(text, "expires = {expires}").ok();
    }
    for (name, values) in [("networks", &args.networks), ("rules", &args.rules)] {
        if !values.is_empty() {
            writeln!(text, "{name} = {values:?}").ok();
        }
    }
    // The broker would refuse the whole file.
    check(&text).map_err(|reason| {
        Failure::new(Exit::Usage, format!("cannot use the token {:?}: {reason}", args.name))
    })?;
    Ok(text)
}

/// Checks entries as the broker does. The reason is one line.
fn check(text: &str) -> Result<(), String> {
    let checked = tokens::check(text, SystemTime::now());
    checked.map_err(|reason| {
        let lines: Vec<_> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" ").trim_start_matches("tokens: ").to_owned()
    })
}

fn name_line(name: &str) -> String {
    format!("name = \"{name}\"")
}

fn is_date(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    lengths == [4, 2, 2] && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Adds an entry at the end of the file, which is created if it does not exist.
fn add(args: &NewArgs, entry: &str) -> Result<(), Failure> {
    let failed = |what: &str, reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Stream, format!("cannot {what} {}: {reason}", args.file.display()))
    };
    let present = match fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("read", &error)),
    };
    let own = name_line(&args.name);
    if present.lines().any(|line| line.trim() == own) {
        let reason =
            format!("it has a token {:?}: choose another name, or remove the entry", args.name);
        return Err(failed("add to", &reason));
    }
    // Also with the tokens that are there: these can have expired.
    tokens::check(&format!("{present}\n{entry}"), SystemTime::UNIX_EPOCH)
        .map_err(|reason| failed("add to", &reason))?;
    let gap = if present.is_empty() { "" } else { "\n" };
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&args.file);
    let added = file.and_then(|mut file| file.write_all(format!("{gap}{entry}").as_bytes()));
    added.map_err(|error| failed("write", &error))
}
