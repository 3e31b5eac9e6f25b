//! `sockbroker policy`: checks policy files and explains their decisions, without a broker.

mod args;

use std::io::Write as _;
use std::net::IpAddr;

use serde_json::json;
use sockbroker_policy::Denial;
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::rights::Rights;
use sockbroker_policy::rule::Effect;
use sockbroker_policy::subject::Subject;
use sockbroker_policy::words::Described;
use sockbroker_sys::{accounts, peer};
use sockbrokerd::config::policy::{self, Loaded, PolicyError};

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::{Screen, Style};
pub(crate) use args::PolicyCommand;
use args::{ExplainArgs, PolicyCheckArgs};

/// The environment variable that names a broker for other subcommands.
const BROKER: &str = "SOCKBROKER";
const BROKER_IGNORED: &str = "sockbroker: explain reads policy files and does not query the broker of $SOCKBROKER; \
    `sockbroker call policy.check action=...` does";

pub(crate) fn run(global: &Global, command: &PolicyCommand) -> Result<Exit, Failure> {
    if global.broker.is_some() || global.private || global.session.is_some() || global.persist {
        return Err(Failure::usage(
            "policy does not accept --broker, --private, --session or --persist: it reads policy files",
        ));
    }
    match command {
        PolicyCommand::Check(args) => check(global, args),
        PolicyCommand::Explain(args) => explain(global, args),
    }
}

/// Reports files that cannot be used. The message shows the position in the file on several lines.
fn report_unusable(error: &PolicyError) -> Exit {
    // Best effort: the exit code reports the failure too.
    drop(writeln!(std::io::stderr(), "sockbroker: {error}"));
    Exit::Config
}

fn check(global: &Global, args: &PolicyCheckArgs) -> Result<Exit, Failure> {
    let loaded = match args.files.as_slice() {
        [] => policy::load(None),
        files => policy::load_files(files),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(report_unusable(&error)),
    };
    let warnings: Vec<_> = loaded
        .warnings
        .iter()
        .chain(&policy::missing_rules(&loaded))
        .chain(&policy::missing_on_host(&loaded))
        .map(ToString::to_string)
        .collect();
    let exit = if args.strict && !warnings.is_empty() { Exit::Failed } else { Exit::Done };
    let mut screen = Screen::new();
    if global.json {
        screen.json(&json!({ "rules": loaded.rules.len(), "warnings": warnings }))?;
        return Ok(exit);
    }
    for warning in &warnings {
        screen.line(format_args!("{} {warning}", screen.look(Style::Bold, "warning:")))?;
    }
    let count =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (rules, warnings) = (loaded.rules.len(), warnings.len());
    screen.line(format_args!("{}, {}", count(rules, "rule"), count(warnings, "warning")))?;
    Ok(exit)
}

fn explain(global: &Global, args: &ExplainArgs) -> Result<Exit, Failure> {
    let action = args.action.join(" ");
    check_ports(&action)?;
    let action: Described = action.parse().map_err(|error: String| Failure::usage(error))?;
    if std::env::var_os(BROKER).is_some_and(|broker| !broker.is_empty()) {
        // Best effort: the result does not depend on it.
        drop(writeln!(std::io::stderr(), "{BROKER_IGNORED}"));
    }
    let subject = subject(args)?;
    let loaded = match policy::load(args.policy.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(report_unusable(&error)),
    };
    let positions = positions(&loaded);
    // The user of the shipped service. The built-in rule allows this user and root.
    let owner = accounts::user("sockbroker").unwrap_or(0);
    let rights = loaded.into_policy(owner).select(&subject, Vec::new());
    let reasons = reasons(&rights, &action, &positions);
    let snaplen = action.snaplen_limit(&rights);
    let promiscuous = action.refused_in_promiscuous_mode(&rights);
    let verdict = action.judge(&rights);
    let exit = verdict.as_ref().map_or(Exit::Failed, |_| Exit::Done);
    let mut screen = Screen::new();
    if global.json {
        screen.json(&match &verdict {
            Ok((rule, None)) => json!({ "allowed": true, "rule": rule.as_str() }),
            Ok((rule, Some(scope))) => json!({
                "allowed": true,
                "rule": rule.as_str(),
                "packets": scope.lines(),
                "snaplen": snaplen,
                "promiscuous": promiscuous.is_none(),
            }),
            Err(denial) => json!({
                "allowed": false,
                "rule": denial.rule.as_str(),
                "grant": denial.grant,
                "message": denial.to_string(),
            }),
        })?;
        return Ok(exit);
    }
    match &verdict {
        Ok((rule, scope)) => {
            let word = screen.look(Style::Bold, "allowed");
            screen.line(format_args!("{word} by rule `{rule}`"))?;
            if let Some(scope) = scope {
                show_capture(&mut screen, scope, snaplen, promiscuous.as_ref())?;
            }
        }
        Err(denial) => {
            let word = screen.look(Style::Bold, "refused");
            screen.line(format_args!("{word}: {denial}"))?;
        }
    }
    for reason in reasons {
        screen.line(format_args!("  {reason}"))?;
    }
    // If no rule decided, the refusal already names the grant.
    if let Some(denial) = verdict.err().filter(|it| !it.to_string().contains(&it.grant)) {
        screen.line(format_args!("a rule that allows it has: {}", denial.grant))?;
    }
    Ok(exit)
}

/// Prints what an allowed capture lets through, and what it can request.
fn show_capture(
    screen: &mut Screen,
    scope: &CaptureScope,
    snaplen: Option<u64>,
    refused_promiscuous: Option<&Denial>,
) -> Result<(), Failure> {
    for (number, line) in scope.lines().iter().enumerate() {
        let label = if number == 0 { "lets through:" } else { "" };
        screen.line(format_args!("{label:13} {line}"))?;
    }
    if let Some(snaplen) = snaplen {
        screen.line(format_args!(
            "snap length:  at most {snaplen} bytes of each packet (sniff -s {snaplen})"
        ))?;
    }
    if let Some(refusal) = refused_promiscuous {
        screen.line(format_args!("promiscuous:  refused (sniff -p); {refusal}"))?;
    }
    Ok(())
}

/// Refuses an address without a port if the sockets have ports: rules about ports would match port 0.
fn check_ports(action: &str) -> Result<(), Failure> {
    let without = ["SOCK_RAW", "SOCK_PACKET", "AF_PACKET", "IPPROTO_ICMP", "IPPROTO_ICMPV6"];
    let mut words = action.split_whitespace();
    // The group of a multicast option is an address without a port.
    let verb = words.next();
    if verb == Some("option") || action.split_whitespace().any(|word| without.contains(&word)) {
        return Ok(());
    }
    for word in words {
        let Some((side @ ("local" | "remote"), address)) = word.split_once('=') else { continue };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let example = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("{side}={ip}:80"),
            Ok(IpAddr::V6(ip)) => format!("{side}=[{ip}]:80"),
            Err(_with_port) => continue,
        };
        return Err(Failure::usage(format!(
            "cannot explain {word}: it has no port; write {example}"
        )));
    }
    Ok(())
}

/// Returns the subject of the action.
fn subject(args: &ExplainArgs) -> Result<Subject, Failure> {
    let unknown = |name: &str| {
        Failure::new(
            Exit::Usage,
            format!("cannot explain for user {name}: there is no such user on this host"),
        )
    };
    let uid = match (&args.user, args.uid) {
        (Some(name), _) => accounts::user(name).ok_or_else(|| unknown(name))?,
        (None, Some(uid)) => uid,
        (None, None) => sockbroker_sys::process::effective_uid(),
    };
    // A user ID without an account has no groups.
    let (gid, groups) = accounts::groups_of(uid).unwrap_or((uid, Vec::new()));
    let subject = Subject::new(uid, gid).in_groups(groups);
    // Another user without --cgroup: a process outside of any unit, which rules about units do not match.
    let own = uid == sockbroker_sys::process::effective_uid();
    let assumed = || if own { peer::own_control_group().ok() } else { Some("/".to_owned()) };
    Ok(subject.in_cgroup(args.cgroup.clone().or_else(assumed)))
}

/// Returns the names of the rules with their positions in the files.
fn positions(loaded: &Loaded) -> Vec<(String, String)> {
    loaded.rules.iter().map(|(rule, position)| (rule.name.to_string(), position.clone())).collect()
}

/// Explains each rule about the subject and the verb: why it decides or does not.
fn reasons(rights: &Rights, action: &Described, positions: &[(String, String)]) -> Vec<String> {
    let considered = action.considered(rights).into_iter();
    let reasons = considered.map(|(rule, mismatch)| {
        let position = positions.iter().find(|(name, _)| *name == *rule.name);
        let position = position.map_or("", |(_, position)| position.as_str());
        let effect = rule.effect.word();
        match mismatch {
            Some(operand) => {
                let (rule, field) = (&rule.name, operand.word());
                format!("`{rule}` ({position}) would {effect} it, but its {field} does not match")
            }
            None if action.is_about_packets(rule) => {
                let which = match rule.effect {
                    Effect::Allow => "lets through",
                    Effect::Deny => "excludes",
                };
                format!("`{}` ({position}) {which} the packets of its fields: {effect}", rule.name)
            }
            None => format!("`{}` ({position}) matches: {effect}", rule.name),
        }
    });
    reasons.collect()
}
